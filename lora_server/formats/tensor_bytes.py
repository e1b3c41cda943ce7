"""The packed bytes of a tensor, read from wherever its strides scatter them.

A tensor is cut into bands of bounded size. Within a band the copy runs along the axis whose
elements lie closest together in the file, so that a transposed tensor is not read element by
element.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from lora_server.errors import FileRefused
from lora_server.formats.refusals import TOO_COMPLEX
from lora_server.formats.source import Read, chunks, exactly
from lora_server.formats.tensors import DTYPE_BITS, Tensor

BAND_BYTES = 16 * 1024 * 1024  # held at once of the output, and as much of the file
MAX_RUNS = 8_000_000  # separate copies within one file
MAX_REREADS = 16  # bytes fetched for one file, in files of its size
_SPARE_BYTES = 64 * 1024 * 1024  # so that small files may be scattered as they like

_PIECE_BYTES = 256 * 1024  # fetched at once of a run that is longer than the window
_FAR_BYTES = 4096  # elements further apart than this are fetched one by one
_FORMATS: dict[int, Literal["B", "H", "I", "Q"]] = {1: "B", 2: "H", 4: "I", 8: "Q"}


@dataclass(frozen=True, slots=True)
class _Axis:
    size: int
    stride: int  # in elements of the file
    step: int = 0  # in elements of the band


class Packer:
    """Packs the tensors of one file, and gives up where scattered ones cost too much."""

    def __init__(
        self, read: Read, file_size: int, *, band_bytes: int = BAND_BYTES, max_runs: int = MAX_RUNS
    ) -> None:
        self._read = read
        self._band_bytes = band_bytes
        self._runs_left = max_runs
        self._fetch_left = MAX_REREADS * file_size + _SPARE_BYTES

    def packed(self, tensor: Tensor) -> Iterator[bytes]:
        """Yield the elements in logical order, row-major, in bounded pieces."""
        axes = _merged(tensor)
        itemsize = DTYPE_BITS[tensor.dtype] // 8
        if not tensor.numel:
            return
        if not axes or axes == [_Axis(tensor.numel, 1)]:
            yield from chunks(self._read, tensor.begin, tensor.nbytes)
            return
        for first, band in _bands(axes, self._band_bytes // itemsize):
            yield self._gather(tensor.begin + first * itemsize, _stepped(band), itemsize)

    def _gather(self, begin: int, axes: list[_Axis], itemsize: int) -> bytes:
        """Return one band, whose axes' steps say where its elements go."""
        out = bytearray(itemsize * math.prod(axis.size for axis in axes))
        target = memoryview(out).cast(_FORMATS[itemsize])
        window = self._window(begin, axes, itemsize)
        close = [axis for axis in axes if axis.stride and axis.size > 1]
        inner = min(close, key=lambda axis: axis.stride, default=_Axis(1, 1, 1))
        outer = [axis for axis in axes if axis is not inner]
        self._spend(runs=math.prod(axis.size for axis in outer))
        for indices in itertools.product(*(range(axis.size) for axis in outer)):
            at = sum(index * axis.stride for index, axis in zip(indices, outer, strict=True))
            to = sum(index * axis.step for index, axis in zip(indices, outer, strict=True))
            if window is not None:
                target[_slice(to, inner.size, inner.step)] = window[
                    _slice(at, inner.size, inner.stride)
                ]
                continue
            for piece in self._pieces(begin + at * itemsize, inner, itemsize):
                target[_slice(to, len(piece), inner.step)] = piece
                to += len(piece) * inner.step
        return bytes(out)

    def _window(self, begin: int, axes: list[_Axis], itemsize: int) -> "memoryview[int] | None":
        """Return all that a band is taken from, or None where that is more than a band."""
        reach = 1 + sum((axis.size - 1) * axis.stride for axis in axes)
        if reach * itemsize > self._band_bytes:
            return None
        return self._fetch(begin, reach * itemsize).cast(_FORMATS[itemsize])

    def _pieces(self, begin: int, axis: _Axis, itemsize: int) -> "Iterator[memoryview[int]]":
        """Yield the elements along one axis, fetched together where they lie close."""
        apart = axis.stride * itemsize
        most = 1 if apart > _FAR_BYTES else _PIECE_BYTES // apart
        for index in range(0, axis.size, most):
            count = min(most, axis.size - index)
            self._spend(runs=1)
            nbytes = (count - 1) * apart + itemsize
            elements = self._fetch(begin + index * apart, nbytes).cast(_FORMATS[itemsize])
            yield elements[:: axis.stride]

    def _fetch(self, begin: int, nbytes: int) -> memoryview:
        self._spend(nbytes=nbytes)
        return memoryview(exactly(self._read, begin, nbytes))

    def _spend(self, *, runs: int = 0, nbytes: int = 0) -> None:
        self._runs_left -= runs
        self._fetch_left -= nbytes
        if self._runs_left < 0 or self._fetch_left < 0:
            raise FileRefused(TOO_COMPLEX, "the tensors are too scattered to be packed")


def _slice(first: int, count: int, step: int) -> slice:
    return slice(first, first + (count - 1) * step + 1, step)


def _merged(tensor: Tensor) -> list[_Axis]:
    """Return the axes without those of size 1, neighbours joined where they are one run."""
    axes: list[_Axis] = []
    for size, stride in zip(tensor.shape, tensor.stride, strict=True):
        if size == 1:
            continue
        if axes and axes[-1].stride == stride * size:
            axes[-1] = _Axis(axes[-1].size * size, stride)
        else:
            axes.append(_Axis(size, stride))
    return axes


def _bands(axes: list[_Axis], limit: int) -> Iterator[tuple[int, list[_Axis]]]:
    """Cut the axes into blocks of at most `limit` elements, in logical order.

    Each comes with the position of its first element in the file, in elements.
    """
    first, *rest = axes
    inner = math.prod(axis.size for axis in rest)
    if inner > limit:
        for index in range(first.size):
            for begin, band in _bands(rest, limit):
                yield index * first.stride + begin, band
        return
    rows = limit // inner
    for index in range(0, first.size, rows):
        count = min(rows, first.size - index)
        yield index * first.stride, [_Axis(count, first.stride), *rest]


def _stepped(axes: list[_Axis]) -> list[_Axis]:
    """Return the axes with the steps of a packed block."""
    stepped: list[_Axis] = []
    step = 1
    for axis in reversed(axes):
        stepped.append(_Axis(axis.size, axis.stride, step))
        step *= axis.size
    return stepped[::-1]
