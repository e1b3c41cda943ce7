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


def updates(fd: int, table: TensorTable) -> Iterator[Update]:
    """Yield the update of each module that is a product of two halves, in file order.

    The arrays are the caller's own. Left out are modules that have no such factors, or larger
    ones than PIECE_ELEMENTS, and those that float32 cannot hold.

    Raises:
        FileRefused: as `contents`, or the file became shorter meanwhile.
    """
    reader = Reader(fd, table)
    for module in contents(table, partial(read_at, fd)).modules:
        update = _update(reader, module)
        if update is not None:
            yield update


def _update(reader: Reader, module: Adapted) -> Update | None:
    how = composed(reader, module)
    if not isinstance(how, Halves):
        return None
    up, down = _joined(how.up), _joined(how.down)
    if up is None or down is None:
        return None
    with np.errstate(all="ignore"):
        up = np.ldexp(up * np.float32(module.scale), how.exponent).astype(np.float32)
    if not (np.isfinite(up).all() and np.isfinite(down).all()):
        return None
    return Update(module.path, up, np.ascontiguousarray(down.T))


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
