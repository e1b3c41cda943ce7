"""The safetensors header, read into a tensor table: stricter than the official library.

A file is 8 bytes that give the header's length N, N bytes of JSON, and the tensors' bytes.
The README of huggingface/safetensors is the source of the format. Everything that its reader
checks is checked; refused besides are duplicate keys, unknown fields, odd names, headers that
list no tensor, and files that another program would take for something else. No I/O here.
"""

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from math import prod
from typing import NamedTuple

from lora_server.errors import FileRefused
from lora_server.formats.excerpt import excerpt
from lora_server.formats.header_json import METADATA, Entry, corrupt, read_header
from lora_server.formats.polyglot import refuse_foreign_head
from lora_server.formats.strict_json import has_surrogate
from lora_server.formats.tensors import DTYPE_BITS, Container, Tensor, TensorTable

LENGTH_BYTES = 8
MAX_HEADER_SIZE = 16 * 1024 * 1024  # bytes; headers of trained adapters have a few MiB at most
MAX_TENSORS = 100_000
MAX_NAME_BYTES = 512
MAX_RANK = 8
# numpy and the official library multiply dimensions and bits as 64-bit numbers, zeros or not.
MAX_NONZERO_BITS = 2**63 - 1

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def header_size(head: bytes, *, max_header_size: int = MAX_HEADER_SIZE) -> int:
    """Return N, the bytes of JSON that follow the first 8 of the file.

    `head` holds the file's first 8 bytes or more; with 512 a tar impostor is seen too.
    Raises FileRefused: `lora_empty`, `lora_truncated`, `lora_polyglot`,
    `lora_header_too_large`.
    """
    if not head:
        raise FileRefused("lora_empty", "the file is empty")
    if len(head) < LENGTH_BYTES:
        message = f"the file has {len(head)} bytes; the header's length alone takes {LENGTH_BYTES}"
        raise FileRefused("lora_truncated", message)
    refuse_foreign_head(head)
    size = int.from_bytes(head[:LENGTH_BYTES], "little")
    if size > max_header_size:
        message = f"the header claims {size} bytes; at most {max_header_size} are allowed"
        raise FileRefused("lora_header_too_large", message)
    return size


def read_table(header: bytes, *, max_tensors: int = MAX_TENSORS) -> TensorTable:
    """Return the table that the N bytes of JSON in `header` declare.

    The tensors tile the file from the header's end to `expected_size`, without hole or
    overlap. Raises FileRefused with one of the codes of `parse_object`, `lora_empty` when no
    tensor is listed, `lora_too_many_tensors`, or `lora_unsupported_dtype`.
    """
    # An entry has four strings; as many again, and more, are left for metadata.
    found = read_header(header, max_objects=max_tensors + 2, max_strings=10 * max_tensors)
    _refuse_metadata(found.metadata)
    _refuse_names(found.entries, "a tensor name")
    if not found.entries:
        raise FileRefused("lora_empty", "the header lists no tensors")
    if len(found.entries) > max_tensors:
        message = (
            f"the header lists {len(found.entries)} tensors; at most {max_tensors} are allowed"
        )
        raise FileRefused("lora_too_many_tensors", message)
    data_begin = LENGTH_BYTES + len(header)
    tensors, data_bytes = _tiled(found.entries, data_begin)
    return TensorTable(
        container=Container.SAFETENSORS,
        tensors=tensors,
        metadata=found.metadata,
        data_begin=data_begin,
        expected_size=data_begin + data_bytes,
    )


def refuse_wrong_size(table: TensorTable, file_size: int) -> None:
    """Raise FileRefused `lora_truncated` or `lora_trailing_bytes` unless the size fits."""
    missing = table.expected_size - file_size
    if missing > 0:
        message = f"the file ends {missing} bytes before its last tensor does; send it again"
        raise FileRefused("lora_truncated", message)
    if missing < 0:
        message = f"the file has {-missing} bytes after its last tensor"
        raise FileRefused("lora_trailing_bytes", message)


def _tiled(entries: Mapping[str, Entry], data_begin: int) -> tuple[tuple[Tensor, ...], int]:
    """Return the tensors in file order, each where the one before ends, and their bytes in all."""
    tensors: list[Tensor] = []
    at = 0
    for name, entry in sorted(entries.items(), key=_offsets):
        dtype, shape, (begin, end) = entry.dtype, entry.shape, entry.data_offsets
        if dtype not in DTYPE_BITS or len(shape) > MAX_RANK:
            raise _unsupported(name, entry)
        extent = _extent(DTYPE_BITS[dtype], shape)
        if end - begin != extent.nbytes:
            raise corrupt(name, f"takes {extent.nbytes} bytes but its offsets span {end - begin}")
        if extent.overflows:
            raise corrupt(name, "has dimensions that overflow")
        if begin != at:
            flaw = "leaves a hole" if begin > at else "overlaps another tensor"
            raise corrupt(name, f"{flaw}: it begins at {begin}, the one before ends at {at}")
        tensors.append(Tensor(name, dtype, shape, extent.stride, data_begin + begin))
        at = end
    return tuple(tensors), at


def _offsets(item: tuple[str, Entry]) -> tuple[int, int]:
    return item[1].data_offsets


def _unsupported(name: str, entry: Entry) -> FileRefused:
    if len(entry.shape) > MAX_RANK:
        return corrupt(name, f"has {len(entry.shape)} dimensions; at most {MAX_RANK} are allowed")
    dtype = excerpt(entry.dtype)
    message = f"tensor {excerpt(name)} has the dtype {dtype}, which is not supported"
    return FileRefused("lora_unsupported_dtype", message)


class _Extent(NamedTuple):
    nbytes: int
    stride: tuple[int, ...]  # row-major, in elements
    overflows: bool  # a zero hides a product that is too large


# Keys are short, so that no file fills the memory; the hundreds of tensors of one share a few.
@lru_cache(maxsize=1024)
def _extent(bits: int, shape: tuple[int, ...]) -> _Extent:
    nbytes = prod(shape) * bits // 8
    overflows = not nbytes and prod(filter(None, shape)) * bits > MAX_NONZERO_BITS
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return _Extent(nbytes, tuple(reversed(strides)), overflows)


def _refuse_metadata(metadata: Mapping[str, str]) -> None:
    _refuse_names(metadata, f"a key of {METADATA}")
    for key, text in metadata.items():
        if has_surrogate(text):
            message = f"{METADATA} has no valid string for {excerpt(key)}"
            raise FileRefused("lora_corrupt", message)


def _refuse_names(names: Collection[str], what: str) -> None:
    # In nearly all files all names are plain, which is seen in one go.
    together = "".join(names)
    if together.isascii() and together.isprintable() and _fit(names):
        return
    for name in names:
        _refuse_name(name, what)


def _fit(names: Collection[str]) -> bool:
    return not names or (min(map(len, names)) > 0 and max(map(len, names)) <= MAX_NAME_BYTES)


def _refuse_name(name: str, what: str) -> None:
    if not name or has_surrogate(name) or _CONTROL.search(name):
        message = f"{what} is empty, or has a control or surrogate character: {excerpt(name)}"
        raise FileRefused("lora_corrupt", message)
    if len(name.encode()) > MAX_NAME_BYTES:
        message = f"{what} is over {MAX_NAME_BYTES} bytes long: {excerpt(name)}"
        raise FileRefused("lora_corrupt", message)
