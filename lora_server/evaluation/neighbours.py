"""What a LoRA has in common with stored ones: kinds of neighbours, conflicts in a stack, W09.

The thresholds are of the cosine of two updates, which ignores strength. Unrelated LoRAs of one
base lie within a few hundredths of 0. They are starting points, to be calibrated on a company's
own history: a base, an optimiser and a rank all have their say.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lora_server.evaluation.comparison import SIMILAR, Comparison
from lora_server.evaluation.report import Finding, Neighbour, Result, StackConflict

Kind = Literal["same bytes", "same weights", "near duplicate", "same training", "similar"]

# Rounding both factors to 16 bits leaves 1 - cosine at about 1e-6, and another spelling nothing.
SAME_WEIGHTS = 1 - 1e-5
SAME_STRENGTH = 1e-3  # how far the ratio of two norms of the same weights may be from 1
# Rounding to 8 bits, a change of strength or the last steps of a training stay above this (W09).
NEAR_DUPLICATE = 0.999
# Checkpoints of one run share what all of its steps before have learned; two runs begin from
# other random factors and stay well below, even on the same images.
SAME_TRAINING = 0.6
# Stacked LoRAs add up. Where a third of one's energy lies in modules whose leading directions the
# other one writes to, they overwrite each other visibly; by chance it is max(i, j)/m, about 0.01.
CONFLICT = 0.3
FAR_ABOVE_CHANCE = 5.0  # narrow modules overlap by chance alone
MOST_LINKS = 10
MOST_NAMED = 3

_TRAITS: dict[Kind, str] = {
    "same bytes": "is the same file",
    "same weights": "holds the same weights",
    "near duplicate": "is a near duplicate",
    "same training": "comes from the same training",
    "similar": "is similar",
}
_DUPLICATES: tuple[Kind, ...] = ("same bytes", "same weights", "near duplicate")


@dataclass(frozen=True, slots=True)
class Known:
    """What the catalogue knows of a LoRA that matters beside others."""

    partial_path: str
    sha256: str
    entity_type: str


def neighbours(
    subject: Known,
    compared: Iterable[tuple[Known, Comparison]],
    twins: Iterable[tuple[Known, Kind]] = (),
) -> tuple[Neighbour, ...]:
    """Return those that have something in common with a LoRA, nearest first.

    `twins` are known by their digests to hold the same bytes or the same weights, whatever a
    comparison would say of them.
    """
    beside = {other.partial_path: (other, comparison) for other, comparison in compared}
    found = [_twin(other, kind, beside.pop(other.partial_path, None)) for other, kind in twins]
    for other, comparison in beside.values():
        kind = _kind(subject, other, comparison)
        if kind is not None:
            found.append(_neighbour(other, comparison, kind))
    order = tuple(_TRAITS)
    near = (each for each in found if each.partial_path != subject.partial_path)
    return tuple(
        sorted(near, key=lambda each: (order.index(each.kind), -each.cosine, each.partial_path))
    )


def _twin(other: Known, kind: Kind, beside: tuple[Known, Comparison] | None) -> Neighbour:
    if beside is not None:
        return replace(_neighbour(other, beside[1], kind), cosine=1.0)
    return Neighbour(other.partial_path, other.sha256, 1.0, None, 0, kind)


def _neighbour(other: Known, comparison: Comparison, kind: Kind) -> Neighbour:
    return Neighbour(
        partial_path=other.partial_path,
        sha256=other.sha256,
        cosine=comparison.cosine,
        overlap=comparison.overlap,
        shared_modules=comparison.shared_modules,
        kind=kind,
    )


def _kind(subject: Known, other: Known, comparison: Comparison) -> Kind | None:
    return "same bytes" if subject.sha256 == other.sha256 else _kind_by_weights(comparison)


def _kind_by_weights(comparison: Comparison) -> Kind | None:
    cosine = comparison.cosine
    if cosine > NEAR_DUPLICATE:
        as_strong = abs(comparison.strength - 1) < SAME_STRENGTH
        return "same weights" if cosine > SAME_WEIGHTS and as_strong else "near duplicate"
    if cosine > SAME_TRAINING:
        return "same training"
    return "similar" if cosine > SIMILAR else None


def conflicts(
    subject: Known, others: Iterable[tuple[Known, Comparison]]
) -> tuple[StackConflict, ...]:
    """Return the LoRAs of other types that fight for the same directions, worst first."""
    found = [
        StackConflict(other.partial_path, comparison.overlap, comparison.cosine, _fight(comparison))
        for other, comparison in others
        if other.entity_type != subject.entity_type and _is_conflict(comparison)
    ]
    return tuple(sorted(found, key=lambda each: (-each.overlap, each.partial_path)))


def _is_conflict(comparison: Comparison) -> bool:
    by_chance = FAR_ABOVE_CHANCE * comparison.expected_overlap
    return comparison.overlap > max(CONFLICT, by_chance)


def _fight(comparison: Comparison) -> str:
    where = f"{comparison.overlap:.0%} of its leading directions are written to by both"
    by_chance = f"{comparison.expected_overlap:.1%} would be by chance"
    if comparison.cosine > SIMILAR:
        effect = "they push the same way: stacked, the effect is too strong"
    elif comparison.cosine < -SIMILAR:
        effect = "they push opposite ways: stacked, they cancel"
    else:
        effect = "they push different ways: stacked, each disturbs the other"
    return f"{where} ({by_chance}); {effect}."


def duplicates_finding(
    near: Sequence[Neighbour], fights: Sequence[StackConflict], *, compared: int
) -> Finding:
    """Return W09: a warning where a stored LoRA is this one over again.

    `compared` is how many stored LoRAs were searched; what did not take part was not seen.
    """
    doubles = [each for each in near if each.kind in _DUPLICATES]
    shown = doubles or list(near)
    links = [each.partial_path for each in shown] + [each.partial_path for each in fights]
    result = Result.WARN if doubles else Result.INFO if links else Result.PASS
    return Finding(
        id="W09",
        name="Duplicates and relatives",
        result=result,
        required=False,
        summary=_summary(near, fights, compared),
        advice=_advice(doubles, near, fights),
        links=tuple(dict.fromkeys(links))[:MOST_LINKS],
    )


def _summary(near: Sequence[Neighbour], fights: Sequence[StackConflict], compared: int) -> str:
    searched = f"{compared} stored LoRA{'' if compared == 1 else 's'} searched"
    if not compared:
        searched = "there is no other stored LoRA to compare with"
    if not (near or fights or compared):
        return "There is no other stored LoRA to compare with."
    said = [f"{each.partial_path} {_TRAITS[each.kind]} (cosine {each.cosine:.4g})" for each in near]
    if len(said) > MOST_NAMED + 1:
        said = [*said[:MOST_NAMED], f"{len(said) - MOST_NAMED} more are related"]
    if fights:
        worst = fights[0]
        said.append(f"stacking with {worst.partial_path} conflicts (overlap {worst.overlap:.0%})")
    return f"{'; '.join(said) or 'Nothing is similar'}; {searched}."


def _advice(
    doubles: Sequence[Neighbour], near: Sequence[Neighbour], fights: Sequence[StackConflict]
) -> str:
    if doubles:
        return f"Keep one of the two, unless {doubles[0].partial_path} is a copy on purpose."
    if any(each.kind == "same training" for each in near):
        return "Compare it with the other versions of its training before it replaces one."
    if fights:
        return f"Look at it together with {fights[0].partial_path}, or lower both strengths."
    return ""
