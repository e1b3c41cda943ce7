"""A half of an update as its r x r Gram matrix, the base of all that is measured.

Products are taken in float32, as precise as any stored weights are, and kept in float64. What
float32 cannot hold the squares of is measured again in float64 after scaling by a power of two.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt

from lora_server.evaluation.weights.numbers import Floats

Square = npt.NDArray[np.float64]

# A half, some rows at a time: each piece has `rank` columns. Called once for every pass.
Pieces = Callable[[], Iterator[Floats]]

# Sums of squares within these are far from both ends of float32's range.
_SAFE = (1e-28, 1e30)


class Gram(NamedTuple):
    """Xᵀ X of a half X with r columns, where X = 2**exponent times what is squared here."""

    matrix: Square
    reach: float  # the largest norm of a row of X, scaled like the matrix's root
    exponent: int
    careful: bool = False  # float32 did not hold its squares


# Is shown each piece of a half in float32, with the number of its first row.
Watch = Callable[[int, npt.NDArray[np.float32]], None]


def gram(pieces: Pieces, watch: Watch | None = None) -> Gram | None:
    """Return the Gram matrix of a half; None where it holds NaN or Inf.

    What `watch` is shown is the whole half only where the outcome was not `careful`.
    """
    with np.errstate(all="ignore"):
        quick = _quick(pieces, watch)
        return _careful(pieces) if quick is None else quick


def _quick(pieces: Pieces, watch: Watch | None) -> Gram | None:
    """Return the Gram matrix by way of float32; None where that might not be right."""
    total: Square | None = None
    reach = 0.0
    begin = 0
    for piece in pieces():
        if piece.dtype != np.float32:
            return None
        if watch is not None:
            watch(begin, piece.astype(np.float32, copy=False))
            begin += piece.shape[0]
        product = (piece.T @ piece).astype(np.float64)
        total = product if total is None else total + product
        reach = max(reach, _reach(piece))
    if total is None:
        return None
    low, high = _SAFE
    squares = total.diagonal()
    # NaN compares with nothing, so it goes the careful way too; so do zeros, which may be too
    # small rather than nothing.
    if not bool(np.all((squares > low) & (squares < high))):
        return None
    return Gram(total, float(np.sqrt(reach)), 0)


def _reach(piece: Floats) -> float:
    """Return the largest squared norm of a row."""
    if piece.flags.c_contiguous:
        squares = np.einsum("ij,ij->i", piece, piece)
    else:
        squares = np.einsum("ij,ij->j", piece.T, piece.T)
    return float(squares.max(initial=0.0))


def _careful(pieces: Pieces) -> Gram | None:
    exponent = exponent_of(pieces)
    if exponent is None:
        return None
    total: Square | None = None
    reach = 0.0
    for piece in scaled(pieces, exponent):
        product = piece.T @ piece
        total = product if total is None else total + product
        reach = max(reach, _reach(piece))
    matrix = np.zeros((0, 0)) if total is None else total
    return Gram(matrix, float(np.sqrt(reach)), exponent, careful=True)


def exponent_of(pieces: Pieces) -> int | None:
    """Return the power of two just above the largest entry (0 for zeros); None for NaN or Inf."""
    largest = 0.0
    for piece in pieces():
        if piece.size:
            # np.maximum passes NaN on, whichever side it is on.
            largest = float(np.maximum(largest, np.maximum(piece.max(), -piece.min())))
    if not np.isfinite(largest):
        return None
    return int(np.frexp(largest)[1])


# Elements turned into float64 at once.
_STRIPE = 1024 * 1024


def scaled(pieces: Pieces, exponent: int) -> Iterator[Square]:
    """Yield a half times 2**-exponent in float64, in small pieces."""
    for piece in pieces():
        step = max(1, _STRIPE // max(piece.shape[1], 1))
        for begin in range(0, piece.shape[0], step):
            yield shifted(piece[begin : begin + step].astype(np.float64), -exponent)


_Array = TypeVar("_Array", bound=npt.NDArray[np.floating[Any]])


def shifted(array: _Array, exponent: int) -> _Array:
    """Return an array times 2**exponent; `ldexp` would do the same ten times slower.

    In two steps, for 2**exponent alone may be out of range where the result is not.
    """
    if not exponent:
        return array
    half = exponent // 2
    kind = array.dtype.type
    first, second = kind(2.0**half), kind(2.0 ** (exponent - half))
    return cast("_Array", array * first * second)
