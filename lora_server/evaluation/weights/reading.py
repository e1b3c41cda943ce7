"""Tensors from a descriptor, a bounded piece at a time.

Read with preadv into a buffer that is used again, not mapped: a file that shrinks is then a
refusal and not a SIGBUS, memory does not grow with the file, and no page is faulted in twice.
"""

import math
import os
from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from lora_server.errors import FileRefused
from lora_server.evaluation.weights.numbers import Floats, decode
from lora_server.formats.refusals import TOO_COMPLEX
from lora_server.formats.tensor_bytes import Packer
from lora_server.formats.tensors import DTYPE_BITS, Container, Tensor, TensorTable
from lora_server.judge.reading import read_at

# Elements held at once of one tensor: the largest halves of real adapters have 5 million.
PIECE_ELEMENTS = 8 * 1024 * 1024


class Reader:
    """Reads the tensors of one file; an array it returns is good until the next is asked for."""

    def __init__(self, fd: int, table: TensorTable) -> None:
        self._fd = fd
        self._packed = table.container is not Container.SAFETENSORS
        self._packer = Packer(partial(read_at, fd), os.fstat(fd).st_size)
        self._raw = np.empty(0, np.uint8)
        self._floats = np.empty(0, np.float32)

    def whole(self, tensor: Tensor) -> Floats:
        """Return a tensor in its shape; raises FileRefused where the file ends inside it.

        The caller sees to it that the tensor is small enough.
        """
        return self._read(tensor, tensor.numel).reshape(tensor.shape)

    def runs(self, tensor: Tensor) -> Iterator[Floats]:
        """Yield all elements in logical order, in flat pieces of bounded size."""
        if self._packed and not is_row_major(tensor):
            for chunk in self._packer.packed(tensor):
                raw = np.frombuffer(chunk, np.uint8)
                yield decode(raw, tensor.dtype, self._room(raw.size // _width(tensor)))
            return
        for begin in range(0, tensor.numel, PIECE_ELEMENTS):
            count = min(PIECE_ELEMENTS, tensor.numel - begin)
            at = tensor.begin + begin * _width(tensor)
            yield self._read(replace(tensor, shape=(count,), stride=(1,), begin=at), count)

    def rows(self, tensor: Tensor) -> Iterator[Floats]:
        """Yield a tensor of shape (m, …), flattened to m rows, some rows at a time.

        A piece has at most PIECE_ELEMENTS elements, or is one row.
        """
        length, width = tensor.shape[0], tensor.numel // max(tensor.shape[0], 1)
        if tensor.numel <= PIECE_ELEMENTS:
            yield self._read(tensor, tensor.numel).reshape(length, width)
            return
        step = max(1, PIECE_ELEMENTS // max(width, 1))
        for begin in range(0, length, step):
            shape = (min(step, length - begin), width)
            yield self._read(cut(tensor, begin * width, shape, width), math.prod(shape)).reshape(
                shape
            )

    def columns(self, tensor: Tensor) -> Iterator[Floats]:
        """Yield the transpose of a tensor of shape (r, …) flattened to r rows, as `rows` does."""
        rank, length = tensor.shape[0], tensor.numel // max(tensor.shape[0], 1)
        if tensor.numel <= PIECE_ELEMENTS:
            yield self._read(tensor, tensor.numel).reshape(rank, length).T
            return
        step = max(1, PIECE_ELEMENTS // rank)
        for begin in range(0, length, step):
            shape = (rank, min(step, length - begin))
            piece = self._read(cut(tensor, begin, shape, length), math.prod(shape))
            yield piece.reshape(shape).T

    def _room(self, count: int) -> npt.NDArray[np.float32]:
        if self._floats.size < count:
            self._floats = np.empty(count, np.float32)
        return self._floats[:count]

    def _read(self, tensor: Tensor, count: int) -> Floats:
        nbytes = count * _width(tensor)
        if self._raw.size < nbytes:
            self._raw = np.empty(nbytes, np.uint8)
        raw = self._raw[:nbytes]
        self._fill(tensor, raw)
        return decode(raw, tensor.dtype, self._room(count))

    def _fill(self, tensor: Tensor, raw: npt.NDArray[np.uint8]) -> None:
        if self._packed:
            self._fill_packed(tensor, raw)
            return
        if is_row_major(tensor):
            self._fill_run(raw, tensor.begin)
            return
        step = tensor.stride[0] * _width(tensor)
        for index, row in enumerate(raw.reshape(tensor.shape[0], -1)):
            self._fill_run(row, tensor.begin + index * step)

    def _fill_packed(self, tensor: Tensor, raw: npt.NDArray[np.uint8]) -> None:
        at = 0
        for chunk in self._packer.packed(tensor):
            raw[at : at + len(chunk)] = np.frombuffer(chunk, np.uint8)
            at += len(chunk)

    def _fill_run(self, raw: npt.NDArray[np.uint8], offset: int) -> None:
        done = 0
        while done < raw.size:
            read = os.preadv(self._fd, [raw[done:].data], offset + done)
            if not read:
                raise FileRefused("lora_truncated", "the file became shorter while it was read")
            done += read


def _width(tensor: Tensor) -> int:
    """Return the bytes that an element takes."""
    return DTYPE_BITS[tensor.dtype] // 8


def cut(tensor: Tensor, skip: int, shape: tuple[int, int], stride: int) -> Tensor:
    """Return a block of a tensor in row-major order, from its element number `skip` on."""
    if not is_row_major(tensor):
        raise FileRefused(TOO_COMPLEX, "a large tensor is too scattered to be measured")
    begin = tensor.begin + skip * _width(tensor)
    return replace(tensor, shape=shape, stride=(stride, 1), begin=begin)


def is_row_major(tensor: Tensor) -> bool:
    """Whether the elements lie one after the other in logical order."""
    step = 1
    for size, stride in zip(reversed(tensor.shape), reversed(tensor.stride), strict=True):
        if size != 1 and stride != step:
            return False
        step *= size
    return True
