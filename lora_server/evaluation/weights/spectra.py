"""Singular values of up @ down from what is r x r, never from the product.

The squares of the singular values are the eigenvalues of Lᵀ G_up L, where G_down = L Lᵀ. Rows of
`down` are first brought to norm 1, which takes a change of gauge that scales them out of the
result. Where the two Gram matrices nearly cancel, or small values decide the real rank, the
triangles of two QR decompositions give the values again with the whole precision of float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lora_server.evaluation.weights.grams import Gram, Pieces, Square, exponent_of, scaled

Values = npt.NDArray[np.float64]

# Matrix entries in a batch: 64 modules of rank 64.
BATCH_ENTRIES = 2**18
# Beyond this rank an eigenvalue problem takes half a second and more.
MAX_RANK = 1024

# ‖G_down‖ ‖G_up‖ / σ₁²; what float32 loses is a tenth of its precision times this, in σ₁².
_CANCELLATION = 300.0
# Values below this share of the first are not resolved by float32 products.
_UNRESOLVED = 3e-4
# Below this they are what rows of zeros leave in float64.
_NOTHING = 3e-8


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Singular values, largest first, in units of `unit`; all of them unless `cut`."""

    values: Values
    unit: float
    square_sum: float  # of all values, also of those that were cut off, in units of unit²
    cut: bool = False


class Core(NamedTuple):
    """All that is left of a module's two halves before its spectrum is taken."""

    down: Gram
    up: Gram
    scale: float  # above 0, or 0
    exponent: int = 0  # of a power of two that the update is multiplied by besides

    @property
    def power(self) -> int:
        """The exponent of the power of two that the Gram matrices leave out."""
        return self.down.exponent + self.up.exponent + self.exponent

    @property
    def bound(self) -> float:
        """What no entry of the update exceeds, by Cauchy and Schwarz; may be infinite."""
        with np.errstate(over="ignore"):
            return float(np.ldexp(self.scale * self.down.reach * self.up.reach, self.power))


def batch_size(rank: int) -> int:
    """Return how many modules of a rank are solved at once."""
    return max(1, min(1024, BATCH_ENTRIES // max(rank * rank, 1)))


def solve(cores: Sequence[Core]) -> list[tuple[Spectrum, bool]]:
    """Return the spectrum of each core, all of one rank, and whether it can be relied on.

    What cannot has to be measured again by `precise`.
    """
    rank = cores[0].down.matrix.shape[0]
    if not rank:
        return [(Spectrum(np.zeros(0), 0.0, 0.0), True) for _ in cores]
    with np.errstate(all="ignore"):
        downs = np.stack([core.down.matrix for core in cores])
        ups = np.stack([core.up.matrix for core in cores])
        norms = np.sqrt(np.diagonal(downs, axis1=1, axis2=2))
        weights = norms[:, :, None] * norms[:, None, :]
        downs = np.where(weights > 0, downs / np.where(weights > 0, weights, 1), 0)
        # A row of zeros becomes one that nothing in `up` goes with.
        diagonal = np.arange(rank)
        downs[:, diagonal, diagonal] = 1.0
        ups *= weights
        sizes = np.diagonal(ups, axis1=1, axis2=2).max(axis=1)
        ups /= np.where(sizes > 0, sizes, 1.0)[:, None, None]
        roots = _roots(downs)
        squares = np.linalg.eigvalsh(np.swapaxes(roots, 1, 2) @ ups @ roots)[:, ::-1]
        squares = np.maximum(squares, 0.0)
        cancelled = _norms(downs) * _norms(ups) > _CANCELLATION * squares[:, 0]
    return [
        _solved(core, float(size), row, cancelled=bool(far))
        for core, size, row, far in zip(cores, sizes, squares, cancelled, strict=True)
    ]


def _solved(core: Core, size: float, squares: Values, *, cancelled: bool) -> tuple[Spectrum, bool]:
    values = np.sqrt(squares)
    nonzero = values[values > _NOTHING * values[0]]
    lost = bool(nonzero.size) and bool(nonzero[-1] < _UNRESOLVED * values[0])
    reliable = not size or not (cancelled or lost)
    return Spectrum(
        values,
        unit(core.scale * float(np.sqrt(size)), core.power),
        float(squares.sum()),
    ), reliable


def _norms(matrices: Square) -> Values:
    """Return a bound on each matrix's largest eigenvalue: the largest sum of a row."""
    sums: Values = np.abs(matrices).sum(axis=2).max(axis=1)
    return sums


def _roots(matrices: Square) -> Square:
    """Return L with L Lᵀ = G for each; noise may have made some slightly indefinite."""
    try:
        return np.linalg.cholesky(matrices).astype(np.float64, copy=False)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(matrices)
        roots: Square = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
        return roots


def precise(down: Pieces, up: Pieces, core: Core) -> Spectrum:
    """Return the spectrum by QR in float64: slower, and exact to 1e-15 of the largest value.

    Both halves are known to be finite.
    """
    powers = (exponent_of(down) or 0, exponent_of(up) or 0)
    triangles = triangle(up, powers[1]), triangle(down, powers[0])
    product = triangles[0] @ triangles[1].T
    size = float(np.abs(product).max(initial=0.0))
    values: Values = np.linalg.svd(product / (size or 1.0), compute_uv=False).astype(np.float64)
    return Spectrum(
        values,
        unit(core.scale * size, sum(powers) + core.exponent),
        float(np.square(values).sum()),
    )


def triangle(pieces: Pieces, exponent: int) -> Square:
    """Return R of the QR decomposition of 2**-exponent times a matrix, taken piece by piece."""
    upper: Square | None = None
    for piece in scaled(pieces, exponent):
        stacked = piece if upper is None else np.concatenate((upper, piece))
        upper = np.asarray(np.linalg.qr(stacked, mode="r"))
    return np.zeros((0, 0)) if upper is None else upper


def unit(size: float, exponent: int) -> float:
    """Return size times a power of two; infinite where float64 ends."""
    with np.errstate(over="ignore"):
        return float(np.ldexp(size, exponent))
