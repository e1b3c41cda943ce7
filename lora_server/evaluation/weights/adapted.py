"""The modules of a file with their parts, alphas and scales, ready to be measured."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from lora_server.evaluation.weights.declared import Declared, declared
from lora_server.evaluation.weights.placing import BLOCKS, DOUBLE, SINGLE, Position, position
from lora_server.formats.source import Read
from lora_server.formats.tensors import Tensor, TensorTable
from lora_server.inspection.families import Family, Rule, signature
from lora_server.inspection.geometry import Geometry
from lora_server.inspection.impostors import refuse_merged, refuse_plain
from lora_server.inspection.modules import Module, judge, sort
from lora_server.inspection.scales import alphas

# Parts that are no weights: what they hold scales, and their dtype loads as any other.
SCALARS = frozenset({"alpha", "rescale", "on_input"})


@dataclass(frozen=True, slots=True)
class Adapted:
    """One adapted layer: its tensors by part, and by what factor their product counts."""

    path: str
    parts: Mapping[str, Tensor]
    rule: Rule
    family: Family
    is_dora: bool
    geometry: Geometry
    position: Position
    alpha: float | None  # as stored; None where there is none, or where it is no number
    scale: float  # may be infinite or not a number where a stored alpha is

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """The tensors that hold weights."""
        return tuple(tensor for part, tensor in self.parts.items() if part not in SCALARS)

    @property
    def dtype(self) -> str:
        """The dtypes of the weights, joined by + where they differ."""
        return "+".join(sorted({tensor.dtype for tensor in self.weights}))


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file holds: its modules in file order, and what belongs to none."""

    modules: tuple[Adapted, ...]
    strays: tuple[str, ...]  # paths of alphas or magnitudes without weights
    repeated: int  # parts that a second named adapter in the same file brings
    plain: tuple[Tensor, ...]
    declared: Declared
    table: TensorTable
    nonfinite: tuple[str, ...] = ()  # names of tensors outside of modules that hold NaN or Inf


def contents(table: TensorTable, read: Read) -> Contents:
    """Gather a file's modules.

    Args:
        table: the file's tensors and metadata, already checked against its size.
        read: (offset, nbytes) → bytes of the file; asked only for the alphas' few bytes.

    Raises:
        FileRefused: `lora_not_an_adapter`, `lora_incomplete` or `lora_shape_mismatch`.
    """
    tensors = sort(table.tensors)
    judged = judge(tensors.parts)
    if not judged.complete:
        refuse_plain(table.tensors)
    refuse_merged(tensors.plain, len(judged.complete))
    says = declared(table.metadata)
    rules = {path: signature(tuple(parts)).rule for path, parts in tensors.parts.items()}
    paths = [path for path, rule in rules.items() if rule.family is not Family.STRAY]
    stored = [module.alpha for module in judged.complete if module.alpha is not None]
    values = iter(alphas(stored, read))
    modules = [
        _adapted(
            path,
            tensors.parts[path],
            rules[path],
            module,
            None if module.alpha is None else next(values),
            says,
        )
        for path, module in zip(paths, judged.complete, strict=True)
    ]
    return Contents(
        modules=_with_double(modules),
        strays=tuple(path for path, rule in rules.items() if rule.family is Family.STRAY),
        repeated=tensors.repeated,
        plain=tensors.plain,
        declared=says,
        table=table,
    )


def _adapted(  # noqa: PLR0913, PLR0917 - all that one module is made of
    path: str,
    parts: Mapping[str, Tensor],
    rule: Rule,
    module: Module,
    alpha: float | None,
    says: Declared,
) -> Adapted:
    return Adapted(
        path=path,
        parts=parts,
        rule=rule,
        family=module.family,
        is_dora=module.is_dora,
        geometry=module.geometry,
        position=position(module.place),
        alpha=alpha,
        scale=_scale(module, alpha, says),
    )


def _scale(module: Module, alpha: float | None, says: Declared) -> float:
    """Return the factor before up @ down; 1 without an alpha, as the loaders take it.

    A stored alpha counts as alpha / rank: LyCORIS stores one for rsLoRA such that this is right.
    Without one, what PEFT's embedded configuration says counts, as in diffusers.
    """
    rank = module.geometry.rank
    if rank is None:
        return 1.0
    if alpha is None:
        claim = says.of_part(position(module.place).part) if module.alpha is None else None
        if claim is None or claim.alpha is None:
            return 1.0
        return claim.alpha / (math.sqrt(rank) if claim.rslora else rank)
    return alpha / rank


def _with_double(modules: list[Adapted]) -> tuple[Adapted, ...]:
    """Call the other stack of a file that has single-stream blocks by its name."""
    if not any(module.position.group == SINGLE for module in modules):
        return tuple(modules)
    return tuple(
        replace(module, position=module.position._replace(group=DOUBLE))
        if module.position.group == BLOCKS
        else module
        for module in modules
    )
