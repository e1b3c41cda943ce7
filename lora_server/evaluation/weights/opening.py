"""A stored file opened for comparison: its pieces at hand by the name all spellings share."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from lora_server.evaluation.weights.adapted import Adapted, contents
from lora_server.evaluation.weights.canonical import Piece, pieces
from lora_server.evaluation.weights.composing import matrix_shape
from lora_server.evaluation.weights.reading import Reader
from lora_server.evaluation.weights.sketches import sketch
from lora_server.evaluation.weights.update import Update
from lora_server.evaluation.weights.updates import update_of
from lora_server.formats.safetensors import MAX_HEADER_SIZE, refuse_wrong_size
from lora_server.formats.tensors import TensorTable
from lora_server.judge.reading import header_table, read_at, whole_table

SAFETENSORS = ".safetensors"


@dataclass(frozen=True, slots=True)
class Compared:
    """A file to be compared: a descriptor, its extension in lower case, its stored sketch.

    Where the sketch is empty or of another version it is made from the file, which takes longer.
    """

    fd: int
    extension: str
    sketch: bytes = b""


class Opened:
    """The modules of a file, read when they are asked for; the latest is kept if it is fused."""

    def __init__(self, fd: int, extension: str) -> None:
        """Read the header; raises FileRefused or OSError."""
        table = _table(fd, extension)
        self._reader = Reader(fd, table)
        self.modules: dict[str, Adapted] = {}
        self._cuts: dict[str, tuple[Piece, ...]] = {}
        self._where: dict[str, tuple[str, Piece]] = {}
        self._latest: tuple[str, Update | None] = ("", None)
        for module in contents(table, partial(read_at, fd)).modules:
            shape = matrix_shape(module)
            if shape is None:
                continue
            self.modules[module.path] = module
            self._cuts[module.path] = pieces(module.path, shape)
            for piece in self._cuts[module.path]:
                self._where.setdefault(piece.key, (module.path, piece))

    def keys(self, path: str) -> Iterator[str]:
        """Yield the names of a module's pieces."""
        return (piece.key for piece in self._cuts[path])

    def elements(self, keys: set[str]) -> int:
        """Return how many numbers the modules with pieces of these names hold."""
        paths = {self._where[key][0] for key in keys & self._where.keys()}
        return sum(math.prod(t.shape) for path in paths for t in self.modules[path].weights)

    def sketch(self) -> bytes:
        """Return the sketch of the whole file, made by reading all of it."""
        found = (self._update(path) for path in self.modules)
        return sketch(update for update in found if update is not None)

    def __contains__(self, key: str) -> bool:
        return key in self._where

    def rows(self, key: str) -> int:
        """Return how many outputs a piece has, which costs no reading; 0 where there is none."""
        _, piece = self._where.get(key, ("", None))
        return 0 if piece is None else piece.end - piece.begin

    def piece(self, key: str) -> Update | None:
        """Return a piece as an update of its own, named by its key; None where there is none.

        Raises FileRefused or OSError where the file cannot be read any more.
        """
        path, piece = self._where.get(key, ("", None))
        if piece is None:
            return None
        whole = self._update(path)
        if whole is None or whole.up.shape[0] < piece.end:
            return None
        return Update(key, whole.up[piece.begin : piece.end], whole.down)

    def _update(self, path: str) -> Update | None:
        if self._latest[0] == path:
            return self._latest[1]
        self._latest = ("", None)  # let go first: two together are never needed
        update = update_of(self._reader, self.modules[path])
        if len(self._cuts[path]) > 1:
            self._latest = (path, update)
        return update


def _table(fd: int, extension: str) -> TensorTable:
    """Read a table that was judged when the file came in: less is checked than at the door."""
    if extension != SAFETENSORS:
        return whole_table(fd, extension)
    table = header_table(fd, MAX_HEADER_SIZE)
    refuse_wrong_size(table, os.fstat(fd).st_size)
    return table
