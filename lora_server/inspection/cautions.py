"""Warnings: what loads wrongly, is claimed wrongly, or cannot be told; codes are stable."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lora_server.formats.tensors import Container, TensorTable
from lora_server.inspection.adapter import MIXED, ROTATIONS
from lora_server.inspection.claims import network_dim, peft_config
from lora_server.inspection.layout import Layout
from lora_server.inspection.modules import Modules
from lora_server.inspection.record import Adapter, BaseModel, HashClaim, Warned


@dataclass(frozen=True, slots=True)
class Findings:
    """All that the warnings are drawn from."""

    table: TensorTable
    modules: Modules
    alphas: Sequence[float | None]
    repeated: int
    plain_count: int
    layout: Layout
    adapter: Adapter
    base_model: BaseModel
    hash_claims: tuple[HashClaim, ...]


def cautions(found: Findings) -> tuple[Warned, ...]:
    """Return every warning that applies."""
    drawn = (
        *_of_weights(found),
        *_of_alphas(found),
        *_of_usage(found),
        *_of_contents(found),
        *_of_claims(found),
        *_of_container(found),
    )
    return tuple(Warned(code, message) for code, message in drawn)


def _of_weights(found: Findings) -> Iterator[tuple[str, str]]:
    adapter = found.adapter
    if adapter.dora_module_count:
        yield (
            "dora",
            (
                f"{adapter.dora_module_count} modules carry a DoRA magnitude, which common loaders drop"
            ),
        )
    if adapter.family == MIXED:
        yield "mixed_families", f"families are mixed: {', '.join(adapter.families)}"
    if "unknown" in adapter.families:
        yield "unknown_family", f"{adapter.families['unknown']} modules are of no known family"


def _of_alphas(found: Findings) -> Iterator[tuple[str, str]]:
    pairs = zip(found.modules.complete, found.alphas, strict=True)
    stored = [(module, alpha) for module, alpha in pairs if module.alpha is not None]
    values = [alpha for module, alpha in stored if module.family not in ROTATIONS]
    if any(alpha == 0 for alpha in values):
        yield (
            "alpha_zero",
            "an alpha of 0 silences its module in some loaders, others take the rank",
        )
    if any(alpha is not None and not math.isfinite(alpha) for alpha in values):
        yield "alpha_not_finite", "an alpha is infinite or not a number"
    if any(alpha is None for _, alpha in stored):
        yield "alpha_unreadable", "an alpha is not a single number; its scale is taken as 1"


def _of_usage(found: Findings) -> Iterator[tuple[str, str]]:
    if "BFL control" in found.adapter.spellings:
        yield "control_lora", "a Control LoRA needs the control image that it is made for"
    if found.base_model.contradictions:
        yield "base_model_contradiction", found.base_model.contradictions[0]


def _of_contents(found: Findings) -> Iterator[tuple[str, str]]:
    if found.modules.strays:
        yield "stray_tensors", f"{found.modules.strays} alphas or magnitudes belong to no module"
    if found.repeated:
        yield "several_adapters", f"{found.repeated} tensors repeat a module under another name"
    if found.plain_count:
        yield "plain_tensors", f"{found.plain_count} tensors are no part of an adapter"
    if found.layout.unplaced:
        yield "layout_cut", f"{found.layout.unplaced} modules were not looked at for the base model"


def _of_claims(found: Findings) -> Iterator[tuple[str, str]]:
    metadata, rank = found.table.metadata, found.adapter.rank
    if not metadata:
        yield "no_metadata", "the file carries no metadata"
    claimed = network_dim(metadata)
    if claimed and rank is not None and not rank.min <= claimed <= rank.max:
        yield (
            "rank_mismatch",
            (f"ss_network_dim claims {claimed}, measured are {rank.min} to {rank.max}"),
        )
    yield from _of_peft(metadata, found.adapter)
    for claim in found.hash_claims:
        if not claim.plausible:
            yield "hash_implausible", f"{claim.source} cannot be valid: {claim.reason}"


def _of_peft(metadata: Mapping[str, str], adapter: Adapter) -> Iterator[tuple[str, str]]:
    config = peft_config(metadata)
    if adapter.rank is None or not config.rank:
        return
    if not adapter.rank.min <= config.rank <= adapter.rank.max:
        yield (
            "rank_mismatch",
            (
                f"lora_adapter_metadata claims rank {config.rank:g}, "
                f"measured are {adapter.rank.min} to {adapter.rank.max}"
            ),
        )
    if config.alpha is not None and not adapter.alpha_count and config.alpha != config.rank:
        yield (
            "scale_in_metadata",
            (
                f"lora_adapter_metadata claims a scale of {config.alpha / config.rank:g}, "
                "which loaders that read only tensors take as 1"
            ),
        )


def _of_container(found: Findings) -> Iterator[tuple[str, str]]:
    if found.table.container is not Container.SAFETENSORS:
        yield "pickle_container", "the file is a pickle, which runs code in programs that load it"
