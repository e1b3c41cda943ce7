"""Warnings: what loads wrongly, is claimed wrongly, or cannot be told; codes are stable."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lora_server.formats.tensors import Container, TensorTable
from lora_server.inspection.adapter import MIXED, ROTATIONS
from lora_server.inspection.claims import network_dim, peft_config
from lora_server.inspection.layout import Layout
from lora_server.inspection.modules import Modules
from lora_server.inspection.record import Adapter, BaseModel, HashClaim, Spread, Warned


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
    return (
        *_of_weights(found.adapter),
        *_of_alphas(found),
        *_of_usage(found),
        *_of_contents(found),
        *_of_claims(found),
        *_of_peft(found.table.metadata, found.adapter),
    )


def _of_weights(adapter: Adapter) -> Iterator[Warned]:
    if adapter.dora_module_count:
        magnitudes = f"{adapter.dora_module_count} modules carry a DoRA magnitude"
        yield Warned("dora", f"{magnitudes}, which common loaders drop")
    if adapter.family == MIXED:
        yield Warned("mixed_families", f"families are mixed: {', '.join(adapter.families)}")
    unknown = adapter.families.get("unknown")
    if unknown:
        yield Warned("unknown_family", f"{unknown} modules are of no known family")


def _of_alphas(found: Findings) -> Iterator[Warned]:
    pairs = zip(found.modules.complete, found.alphas, strict=True)
    stored = [(module, alpha) for module, alpha in pairs if module.alpha is not None]
    values = [alpha for module, alpha in stored if module.family not in ROTATIONS]
    if any(alpha == 0 for alpha in values):
        yield Warned("alpha_zero", "alpha 0 silences a module in some loaders, others take rank")
    if any(alpha is not None and not math.isfinite(alpha) for alpha in values):
        yield Warned("alpha_not_finite", "an alpha is infinite or not a number")
    if any(alpha is None for _, alpha in stored):
        yield Warned("alpha_unreadable", "an alpha is not a single number; its scale is taken as 1")


def _of_usage(found: Findings) -> Iterator[Warned]:
    if found.table.container is not Container.SAFETENSORS:
        yield Warned("pickle_container", "the file is a pickle, which can run code when loaded")
    if "BFL control" in found.adapter.spellings:
        yield Warned("control_lora", "a Control LoRA needs the control image it is made for")
    if found.base_model.contradictions:
        yield Warned("base_model_contradiction", found.base_model.contradictions[0])


def _of_contents(found: Findings) -> Iterator[Warned]:
    counted = (
        ("stray_tensors", found.modules.strays, "alphas or magnitudes belong to no module"),
        ("several_adapters", found.repeated, "tensors repeat a module under another name"),
        ("plain_tensors", found.plain_count, "tensors are no part of an adapter"),
        ("layout_cut", found.layout.unplaced, "modules were not looked at for the base model"),
    )
    return (Warned(code, f"{count} {what}") for code, count, what in counted if count)


def _of_claims(found: Findings) -> Iterator[Warned]:
    if not found.table.metadata:
        yield Warned("no_metadata", "the file carries no metadata")
    claimed = network_dim(found.table.metadata)
    if claimed:
        yield from _of_rank("ss_network_dim", claimed, found.adapter.rank)
    for claim in found.hash_claims:
        if not claim.plausible:
            yield Warned("hash_implausible", f"{claim.source} cannot be valid: {claim.reason}")


def _of_rank(source: str, claimed: float, rank: Spread | None) -> Iterator[Warned]:
    if rank is not None and not rank.min <= claimed <= rank.max:
        measured = f"measured are {rank.min} to {rank.max}"
        yield Warned("rank_mismatch", f"{source} claims rank {claimed:g}, {measured}")


def _of_peft(metadata: Mapping[str, str], adapter: Adapter) -> Iterator[Warned]:
    config = peft_config(metadata)
    if not config.rank:
        return
    yield from _of_rank("lora_adapter_metadata", config.rank, adapter.rank)
    if config.alpha is not None and not adapter.alpha_count and config.alpha != config.rank:
        scale = f"lora_adapter_metadata claims a scale of {config.alpha / config.rank:g}"
        yield Warned("scale_in_metadata", f"{scale}; loaders that read only tensors take 1")
