"""What a spectrum says: norms, ranks by several definitions, what a smaller rank would keep.

With singular values σ₁ ≥ σ₂ ≥ … and S = Σ σᵢ²: stable rank S / σ₁²; effective rank
exp(-Σ pᵢ ln pᵢ) with pᵢ = σᵢ² / S (Roy and Vetterli 2007, on energies); participation ratio
S² / Σ σᵢ⁴; the energy rank at share t is the least k with Σ_{i ≤ k} σᵢ² ≥ t S.
"""

from typing import NamedTuple

import numpy as np

from lora_server.evaluation.weights.spectra import Spectrum, Values

# Singular values below this share of the largest are none.
RANK_TOLERANCE = 1e-6
# Sums are good to this share, so that a rank that keeps exactly a share is not missed.
_SUM_TOLERANCE = 1e-12


class Quantities(NamedTuple):
    """One spectrum in numbers; None is what it cannot tell."""

    frobenius: float
    spectral: float
    stable_rank: float | None
    effective_rank: float | None
    participation: float | None
    k90: int | None
    k99: int | None
    real_rank: int | None


ZERO = Quantities(0.0, 0.0, None, None, None, None, None, 0)


def quantities(spectrum: Spectrum) -> Quantities:
    """Return the quantities of a spectrum; norms may be infinite where float64 ends."""
    values = spectrum.values
    if not values.size or not spectrum.unit or not values[0]:
        return ZERO
    first = float(values[0])
    relative = values / first
    squares = np.square(relative)
    total = spectrum.square_sum / first**2
    frobenius = first * spectrum.unit * float(np.sqrt(total))
    spectral = first * spectrum.unit
    k90 = energy_rank(squares, total, 0.90)
    k99 = energy_rank(squares, total, 0.99)
    if spectrum.cut:
        return Quantities(frobenius, spectral, total, None, None, k90, k99, None)
    shares = squares / total
    present = shares[shares > 0]
    return Quantities(
        frobenius=frobenius,
        spectral=spectral,
        stable_rank=total,
        effective_rank=float(np.exp(-np.sum(present * np.log(present)))),
        participation=float(total**2 / np.square(squares).sum()),
        k90=k90,
        k99=k99,
        real_rank=int(np.count_nonzero(relative > RANK_TOLERANCE)),
    )


def energy_rank(squares: Values, total: float, share: float) -> int | None:
    """Return the least k whose first k squares hold this share; None where too few are known."""
    sums = np.cumsum(squares)
    reached = int(np.searchsorted(sums, share * total * (1 - _SUM_TOLERANCE)))
    return reached + 1 if reached < sums.size else None
