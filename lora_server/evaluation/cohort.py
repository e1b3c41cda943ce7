"""A LoRA beside the stored ones of its entity type and base model: robust z, and finding W08.

Robust z = 0.6745 (value - median) / MAD, the median absolute deviation: Iglewicz and Hoaglin's
modified z-score, which up to half of the company being odd cannot spoil. Features whose scale is
multiplicative, norms and ranks, come as logarithms. An outlier is a reason to look and never a
failure: over some hundred popular adapters the largest single score is usually beyond 8.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import median

from lora_server.evaluation.report import Cohort, CohortFeature, Finding, Result

# The standard error of a MAD over n normal values is about 1.17/sqrt(n) of it: 26 % at 20. With
# fewer, chance alone moves a score across a threshold.
MIN_SIZE = 20
OUTLIER = 3.5  # the customary cut of the modified z-score
# Only several features together are worth a warning; one odd number is common.
FAR, FAR_COUNT = 8.0, 3
_CONSISTENT = 0.6745  # the MAD of a standard normal distribution


def cohort(
    features: Mapping[str, float],
    others: Sequence[Mapping[str, float]],
    *,
    entity_type: str,
    base_model: str | None,
) -> Cohort:
    """Return a LoRA's features beside those of others of its type and base, itself left out.

    A feature that fewer than MIN_SIZE of the others have is left out; so are values that are not
    finite.
    """
    known = {name: value for name, value in features.items() if _is_number(value)}
    beside = [
        _feature(name, value, company)
        for name, value in known.items()
        if len(company := _company(name, others)) >= MIN_SIZE
    ]
    found = [feature for feature in beside if math.isfinite(feature.mad)]  # none overflowed
    return Cohort(entity_type, base_model, len(others), tuple(found), _note(len(others), found))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _company(name: str, others: Sequence[Mapping[str, float]]) -> list[float]:
    return [other[name] for other in others if name in other and _is_number(other[name])]


def _feature(name: str, value: float, company: Sequence[float]) -> CohortFeature:
    middle = median(company)
    mad = median(abs(each - middle) for each in company)
    score = _CONSISTENT * (value - middle) / mad if mad > 0 else None
    # A spread next to nothing says that all are alike, not how far away one is.
    known = score if score is not None and math.isfinite(score) else None
    return CohortFeature(name, value, middle, mad, known)


def _note(size: int, found: Sequence[CohortFeature]) -> str:
    if size < MIN_SIZE:
        return f"{size} stored LoRAs of this type and base are too few; {MIN_SIZE} are needed."
    return "" if found else "The stored LoRAs of this type and base have no features in common."


def cohort_finding(company: Cohort) -> Finding:
    """Return W08: outliers as information, several far ones as a warning, never a failure."""
    if not company.features:
        return Finding(
            id="W08",
            name="Company",
            result=Result.UNAVAILABLE,
            required=False,
            summary=company.note,
            advice="Nothing has to be done: it is told as soon as there are enough.",
        )
    scores = {each.name: each.robust_z for each in company.features if each.robust_z is not None}
    outliers = sorted(
        (name for name, score in scores.items() if abs(score) > OUTLIER),
        key=lambda name: -abs(scores[name]),
    )
    far = [name for name in outliers if abs(scores[name]) > FAR]
    result = Result.WARN if len(far) >= FAR_COUNT else Result.INFO if outliers else Result.PASS
    beside = f"{company.size} stored LoRAs of the type {company.entity_type} on the same base"
    named = ", ".join(f"{name} (z {scores[name]:+.1f})" for name in outliers[:5])
    return Finding(
        id="W08",
        name="Company",
        result=result,
        required=False,
        summary=f"Beside {beside}, this stands out: {named or 'nothing'}.",
        advice="Check the training's settings; being unusual is no fault." if outliers else "",
    )
