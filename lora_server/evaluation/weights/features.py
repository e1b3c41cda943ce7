"""The few numbers by which a LoRA is held beside the stored ones of its type and base."""

import math
from collections.abc import Mapping

from lora_server.evaluation.report import WeightsMeasure
from lora_server.inspection.paths import DENOISER, PRIOR

_SMALLEST = 1e-30  # logarithms of less than this say no more than "nothing"


def features(measure: WeightsMeasure) -> Mapping[str, float]:
    """Return the features that are known; norms and ranks as base-10 logarithms.

    They vary by factors from LoRA to LoRA, so that their logarithms have a meaningful spread.
    """
    encoders = sum(part.energy for part in measure.parts if part.name not in {DENOISER, PRIOR})
    strongest = max((module.energy or 0.0 for module in measure.modules), default=0.0)
    known = {
        "log10 frobenius norm": _log(measure.frobenius),
        "log10 spectral norm": _log(measure.spectral),
        "log10 effective rank": _log(measure.effective_rank),
        "log10 stable rank": _log(measure.stable_rank),
        "text encoder energy": encoders,
        "strongest module's energy": strongest,
        "log10 module count": _log(measure.measured_count),
    }
    return {name: value for name, value in known.items() if value is not None}


def _log(value: float | None) -> float | None:
    return math.log10(max(value, _SMALLEST)) if value else None
