"""The updates of a file as factors, one module at a time.

Halves that are stored are given as they are. A matrix, and a Kronecker product whose factors are
too large, are given by their leading singular vectors: of all factors of that rank the closest.
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from lora_server.evaluation.weights.adapted import Adapted, contents
from lora_server.evaluation.weights.building import composed
from lora_server.evaluation.weights.composing import Composed, Halves, Kronecker, Rows
from lora_server.evaluation.weights.grams import Pieces, exponent_of, shifted
from lora_server.evaluation.weights.matrices import LEADING, MAX_EXACT_WIDTH, leading_basis
from lora_server.evaluation.weights.reading import PIECE_ELEMENTS, Reader
from lora_server.evaluation.weights.update import Matrix, Update
from lora_server.formats.tensors import TensorTable
from lora_server.judge.reading import read_at


class _Pair(NamedTuple):
    """dW = 2**exponent up @ down.T, so that both have one row for each row of theirs."""

    up: Matrix
    down: Matrix
    exponent: int


def updates(fd: int, table: TensorTable) -> Iterator[Update]:
    """Yield the update of each module that has one, in file order.

    The arrays are the caller's own. Left out are modules whose family has no such factors, whose
    factors have more than PIECE_ELEMENTS elements, and what float32 does not hold.

    Raises:
        FileRefused: as `contents`, or the file became shorter meanwhile.
    """
    reader = Reader(fd, table)
    for module in contents(table, partial(read_at, fd)).modules:
        update = update_of(reader, module)
        if update is not None:
            yield update


def update_of(reader: Reader, module: Adapted) -> Update | None:
    """Return the update of one module, as `updates` would; None where that leaves it out."""
    with np.errstate(all="ignore"):
        pair = _pair(composed(reader, module))
        if pair is None:
            return None
        up, down = _scaled(pair, module.scale), np.ascontiguousarray(pair.down.T)
    return Update(module.path, up, down) if _is_finite(up) and _is_finite(down) else None


def _scaled(pair: _Pair, scale: float) -> Matrix:
    if not pair.exponent:
        quick = pair.up * np.float32(scale)
        if _is_finite(quick):
            return quick
    return shifted(pair.up.astype(np.float64) * scale, pair.exponent).astype(np.float32)


def _is_finite(half: Matrix) -> bool:
    """Whether all numbers are; their sum of squares tells at a glance unless it overflows."""
    flat = half.ravel(order="K")
    with np.errstate(all="ignore"):
        return bool(np.isfinite(np.dot(flat, flat)) or np.isfinite(flat).all())


def _pair(how: Composed) -> _Pair | None:
    if isinstance(how, Halves):
        up, down = _joined(how.up), _joined(how.down)
        return None if up is None or down is None else _Pair(up, down, how.exponent)
    if isinstance(how, Rows):
        return _of_rows(how)
    if isinstance(how, Kronecker):
        left, right = _pair(how.left), _pair(how.right)
        return None if left is None or right is None else _kron(left, right)
    return None


def _joined(pieces: Pieces) -> Matrix | None:
    """Return a half as one array of its own; None where it is too large for that."""
    copies = []
    elements = 0
    for piece in pieces():
        elements += piece.size
        if elements > PIECE_ELEMENTS:
            return None
        copies.append(piece.astype(np.float32))
    return copies[0] if len(copies) == 1 else np.concatenate(copies)


def _of_rows(how: Rows) -> _Pair | None:
    """Return a matrix by its right singular vectors and what it makes of them."""
    power = exponent_of(how.rows)
    if power is None:
        return None
    exact = how.width <= MAX_EXACT_WIDTH
    identity = np.eye(how.width if exact else 0, dtype=np.float32)
    vectors = identity if exact else leading_basis(how.rows, power, how.width)
    images = [(shifted(piece, -power) @ vectors).astype(np.float32) for piece in how.rows()]
    image = np.concatenate(images)
    up, down = (vectors, image) if how.transposed else (image, vectors)
    return _Pair(up, down, power + how.exponent)


def _kron(left: _Pair, right: _Pair) -> _Pair | None:
    """Return the Kronecker product, of its leading directions where it would be too large."""
    rank = left.up.shape[1] * right.up.shape[1]
    rows = max(
        left.up.shape[0] * right.up.shape[0],
        left.down.shape[0] * right.down.shape[0],
    )
    if rows * min(rank, LEADING) > PIECE_ELEMENTS:
        return None
    exponent = left.exponent + right.exponent
    if rows * rank <= PIECE_ELEMENTS:
        return _Pair(np.kron(left.up, right.up), np.kron(left.down, right.down), exponent)
    (u1, s1, v1), (u2, s2, v2) = _singular(left), _singular(right)
    products = np.outer(s1, s2)
    strongest = np.argsort(products, axis=None)[::-1][:LEADING]
    first, second = np.unravel_index(strongest, products.shape)
    up = _columns(u1[:, first], u2[:, second]) * products[first, second]
    return _Pair(up.astype(np.float32), _columns(v1[:, first], v2[:, second]), exponent)


def _columns(first: Matrix, second: Matrix) -> Matrix:
    """Return the matrix whose columns are the Kronecker products of both matrices' columns."""
    product = first[:, None, :] * second[None, :, :]
    return product.reshape(-1, first.shape[1])


def _singular(pair: _Pair) -> tuple[Matrix, Matrix, Matrix]:
    """Return left singular vectors, singular values and right singular vectors."""
    of_up, upper = np.linalg.qr(pair.up)
    of_down, lower = np.linalg.qr(pair.down)
    left, values, right = np.linalg.svd(upper @ lower.T)
    count = values.size
    return of_up @ left[:, :count], values, of_down @ right[:count].T
