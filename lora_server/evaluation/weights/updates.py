"""The updates of a file as factors, one module at a time."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from lora_server.evaluation.weights.adapted import Adapted, contents
from lora_server.evaluation.weights.building import composed
from lora_server.evaluation.weights.composing import Halves
from lora_server.evaluation.weights.grams import Pieces
from lora_server.evaluation.weights.reading import PIECE_ELEMENTS, Reader
from lora_server.evaluation.weights.update import Matrix, Update
from lora_server.formats.tensors import TensorTable
from lora_server.judge.reading import read_at

F32 = np.float32


def updates(fd: int, table: TensorTable) -> Iterator[Update]:
    """Yield the update of each module that is a product of two halves, in file order.

    The arrays are the caller's own. Left out are modules that have no such factors, or larger
    ones than PIECE_ELEMENTS, and those that float32 cannot hold.

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
    how = composed(reader, module)
    if not isinstance(how, Halves):
        return None
    up, down = _joined(how.up, module.scale, how.exponent), _joined(how.down)
    if up is None or down is None or not (_is_finite(up) and _is_finite(down)):
        return None
    return Update(module.path, up, down.T if down.flags.f_contiguous else down.T.copy())


def _joined(pieces: Pieces, scale: float = 1.0, exponent: int = 0) -> Matrix | None:
    """Return a half as one scaled array of its own; None where it is too large for that."""
    copies: list[Matrix] = []
    elements = 0
    for piece in pieces():
        elements += piece.size
        if elements > PIECE_ELEMENTS:
            return None
        with np.errstate(all="ignore"):
            copy = np.multiply(piece, piece.dtype.type(scale))
            copies.append((np.ldexp(copy, exponent) if exponent else copy).astype(F32, copy=False))
    return copies[0] if len(copies) == 1 else np.concatenate(copies)


def _is_finite(half: Matrix) -> bool:
    """Whether all numbers are; the sum of squares tells at a glance unless it overflows."""
    flat = half.ravel(order="K")
    with np.errstate(all="ignore"):
        return bool(np.isfinite(np.dot(flat, flat)) or np.isfinite(flat).all())
