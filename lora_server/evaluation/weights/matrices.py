"""Spectra of matrices that no factorisation makes cheap: exact where narrow, else the beginning.

The leading singular values come from subspace iteration with a random start and Rayleigh-Ritz
values (Halko, Martinsson and Tropp 2011, section 4.5); they are never too large. The Frobenius
norm is exact.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lora_server.evaluation.weights.grams import Pieces, exponent_of, shifted
from lora_server.evaluation.weights.spectra import Spectrum, Values, triangle, unit

MAX_EXACT_WIDTH = 320
LEADING = 64
_EXTRA = 16  # more directions than are asked for; what is asked for then converges faster
_PASSES = 3
_SEED = 1

Basis = npt.NDArray[np.float32]


class Dense(NamedTuple):
    """The spectrum of a matrix and its largest entry."""

    spectrum: Spectrum
    largest: float


def dense(rows: Pieces, width: int, scale: float, exponent: int) -> Dense | None:
    """Return the spectrum of scale * 2**exponent times a matrix; None where it is not finite."""
    power = exponent_of(rows)
    if power is None:
        return None
    largest, square_sum = _sizes(rows, power)
    top = unit(scale * largest, power + exponent)
    if not largest:
        return Dense(Spectrum(np.zeros(0), 0.0, 0.0), 0.0)
    factor = unit(scale, power + exponent)
    if width <= MAX_EXACT_WIDTH:
        upper = triangle(rows, power)
        values: Values = np.linalg.svd(upper, compute_uv=False).astype(np.float64)
        return Dense(Spectrum(values, factor, float(np.square(values).sum())), top)
    values = _leading(rows, power, width)
    return Dense(Spectrum(values, factor, square_sum, cut=True), top)


def _sizes(rows: Pieces, power: int) -> tuple[float, float]:
    """Return the largest entry and the sum of squares."""
    largest = square_sum = 0.0
    for piece in rows():
        small = shifted(piece, -power)
        largest = max(largest, float(np.abs(small).max(initial=0.0)))
        square_sum += float(np.einsum("ij,ij->i", small, small).astype(np.float64).sum())
    return largest, square_sum


def _leading(rows: Pieces, power: int, width: int) -> Values:
    basis = leading_basis(rows, power, width)
    projected = np.zeros((basis.shape[1], basis.shape[1]))
    for piece in rows():
        image = shifted(piece, -power) @ basis
        projected += (image.T @ image).astype(np.float64)
    squares = np.linalg.eigvalsh(projected)[::-1][:LEADING]
    values: Values = np.sqrt(np.maximum(squares, 0.0)).astype(np.float64)
    return values


def leading_basis(rows: Pieces, power: int, width: int) -> Basis:
    """Return an orthonormal basis near the leading right singular vectors, as columns."""
    count = min(width, LEADING + _EXTRA)
    basis = np.random.default_rng(_SEED).standard_normal((width, count), dtype=np.float32)
    for _ in range(_PASSES):
        image = np.zeros((width, count))
        for piece in rows():
            small = shifted(piece, -power)
            image += small.T @ (small @ basis)
        basis = np.linalg.qr(image)[0].astype(np.float32)
    return basis


def kronecker(left: Dense, right: Dense) -> Dense:
    """Return the spectrum of a Kronecker product: every product of two singular values."""
    values = np.outer(left.spectrum.values, right.spectrum.values).ravel()
    values[::-1].sort()
    cut = left.spectrum.cut or right.spectrum.cut
    spectrum = Spectrum(
        # Of a spectrum whose end is not known, only so many products are sure to be the largest.
        values[:LEADING] if cut else values,
        left.spectrum.unit * right.spectrum.unit,
        left.spectrum.square_sum * right.spectrum.square_sum,
        cut=cut,
    )
    return Dense(spectrum, left.largest * right.largest)
