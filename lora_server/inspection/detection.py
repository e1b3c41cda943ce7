"""The verdict on the base model: measurements narrow, claims pick, disagreement is said.

Names, shapes and counts each exclude bases. What is left alone is certain; where several are
left a claim among them, or custom, makes one likely; a claim that is not among them is a
contradiction and picks nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from lora_server.inspection.base_keys import spoken_for
from lora_server.inspection.base_shapes import (
    depths,
    number_findings,
    shape_findings,
    stream_widths,
)
from lora_server.inspection.bases import CUSTOM, DEPTHS, WIDTHS, Base, Bases
from lora_server.inspection.claims import BaseClaim
from lora_server.inspection.layout import Group
from lora_server.inspection.metadata import text
from lora_server.inspection.record import BaseModel, Confidence, Evidence, Source

MAX_EVIDENCE = 32
MAX_CONTRADICTIONS = 8
_DETAIL_CHARS = 200


def names(bases: Iterable[Base]) -> tuple[str, ...]:
    """Return the bases' names in the order of the enumeration."""
    chosen = set(bases)
    return tuple(str(base) for base in Base if base in chosen)


@dataclass(slots=True)
class _Case:
    """What is known so far: the bases left (None before anything spoke) and why."""

    left: Bases | None = None
    excluded_all: bool = False
    evidence: dict[Evidence, None] = field(default_factory=dict)
    contradictions: dict[str, None] = field(default_factory=dict)

    def hear(self, source: Source, says: Bases, detail: str) -> None:
        """Take one observation; one that excludes all that is left is a contradiction."""
        detail = text(detail, max_chars=_DETAIL_CHARS)
        self.evidence[Evidence(source, names(says), detail)] = None
        remaining = says if self.left is None else self.left & says
        if remaining:
            self.left = remaining
            return
        self.excluded_all = True
        self.contradict(f"{detail} fits none of {', '.join(names(self.left or ()))}")

    def contradict(self, sentence: str) -> None:
        """Note a disagreement."""
        self.contradictions[sentence[: 2 * _DETAIL_CHARS]] = None


def detect(groups: list[Group], claims: Iterable[BaseClaim]) -> BaseModel:
    """Return the base model of an adapter with this layout and these claims."""
    case = _Case()
    _hear_keys(case, groups)
    if case.left is not None:
        _hear_shapes(case, groups)
        _hear_counts(case, groups)
    measured = case.left
    claimed = _hear_claims(case, claims)
    return _verdict(case, measured, claimed, stream_widths(groups))


def _hear_keys(case: _Case, groups: list[Group]) -> None:
    said: dict[Bases, str] = {}
    for group in groups:
        for says in spoken_for(group.slot, group.pattern):
            said.setdefault(says, group.flat)
    # Wide statements first, so that the narrow ones are what is seen to contradict.
    for says, flat in sorted(said.items(), key=lambda item: (-len(item[0]), item[1])):
        case.hear(Source.KEYS, says, flat)


def _hear_shapes(case: _Case, groups: list[Group]) -> None:
    for finding in dict(shape_findings(groups)).items():
        case.hear(Source.SHAPES, *finding)
    for width in sorted(stream_widths(groups)):
        _hear_width(case, width)


def _hear_width(case: _Case, width: int) -> None:
    left = case.left or frozenset()
    if not any(base in WIDTHS for base in left):
        return
    exact = frozenset(base for base in left if width in WIDTHS.get(base, ()))
    # A base of unknown width stays only where no known one fits.
    unmeasured = frozenset(base for base in left if base not in WIDTHS)
    case.hear(Source.SHAPES, exact or unmeasured, f"width {width}")


def _hear_counts(case: _Case, groups: list[Group]) -> None:
    for finding in dict(number_findings(groups)).items():
        case.hear(Source.COUNTS, *finding)
    main, single = depths(groups)
    left = case.left or frozenset()
    deep = frozenset(
        base
        for base in left
        if base not in DEPTHS or (DEPTHS[base][0] >= main and DEPTHS[base][1] >= single)
    )
    if deep != left:
        case.hear(Source.COUNTS, deep, f"at least {main} + {single} blocks")
    # Both stacks ending at a base's last block is no accident; one alone may be.
    exact = frozenset(base for base in deep if DEPTHS.get(base) == (main, single))
    if main and single and exact and exact != deep:
        case.hear(Source.COUNTS, exact, f"exactly {main} + {single} blocks")


def _hear_claims(case: _Case, claims: Iterable[BaseClaim]) -> Bases | None:
    """Return what all claims agree on; None where they are silent or at odds."""
    agreed: Bases | None = None
    for claim in claims:
        detail = f"{claim.source} says {claim.spelling}"
        case.evidence[Evidence(Source.CLAIM, names(claim.says), detail[:_DETAIL_CHARS])] = None
        common = claim.says if agreed is None else agreed & claim.says
        if agreed is not None and not common:
            case.contradict(f"{detail}, another claim says {', '.join(names(agreed))}")
        agreed = common
    return agreed or None


def _verdict(
    case: _Case, measured: Bases | None, claimed: Bases | None, widths: set[int]
) -> BaseModel:
    left = measured
    if measured is None:
        left = claimed or frozenset()
    elif claimed is not None and not measured & claimed:
        case.contradict(
            f"metadata claims {', '.join(names(claimed))}, "
            f"the tensors fit {', '.join(names(measured))}"
        )
    chosen, confidence = _choose(case, measured, claimed)
    candidates = left | claimed if case.contradictions and left and claimed else left
    evidence = tuple(case.evidence)
    return BaseModel(
        name=None if chosen is None else str(chosen),
        confidence=confidence,
        candidates=names(candidates or ()),
        variant=_variant(chosen, widths),
        evidence=evidence[:MAX_EVIDENCE],
        evidence_cut=max(0, len(evidence) - MAX_EVIDENCE),
        contradictions=tuple(case.contradictions)[:MAX_CONTRADICTIONS],
    )


def _choose(
    case: _Case, measured: Bases | None, claimed: Bases | None
) -> tuple[Base | None, Confidence]:
    if case.excluded_all:
        return None, Confidence.UNKNOWN
    if measured is None:
        return _only(claimed, Confidence.LIKELY)
    disagrees = claimed is not None and not measured & claimed
    if len(measured) == 1:
        return _only(measured, Confidence.LIKELY if disagrees else Confidence.CERTAIN)
    if disagrees:
        return None, Confidence.AMBIGUOUS
    if claimed is None and measured in CUSTOM:
        return CUSTOM[measured], Confidence.LIKELY
    return _only(measured & claimed if claimed else measured, Confidence.LIKELY)


def _only(bases: Bases | None, confidence: Confidence) -> tuple[Base | None, Confidence]:
    if not bases:
        return None, Confidence.UNKNOWN
    if len(bases) > 1:
        return None, Confidence.AMBIGUOUS
    return next(iter(bases)), confidence


def _variant(base: Base | None, widths: set[int]) -> str | None:
    sizes = {1536: "medium", 2432: "3.5 large"} if base is Base.SD3 else {}
    return next((sizes[width] for width in widths if width in sizes), None)
