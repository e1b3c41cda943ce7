"""A verified tensor table written as a safetensors file: the same values, no pickle."""

import json
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from lora_server.errors import FileRefused
from lora_server.formats.refusals import TOO_COMPLEX
from lora_server.formats.source import Read
from lora_server.formats.tensor_bytes import Packer
from lora_server.formats.tensors import DTYPE_BITS, Tensor, TensorTable

MAX_GROWTH = 2  # output bytes of tensors per byte of input: shared storages are written apart

_LENGTH = struct.Struct("<Q")
_SCALAR = struct.Struct("<f")
_ALIGNMENT = 8
_NUMBER = re.compile(r"-?[0-9]{1,40}(\.[0-9]+)?(e[+-]?[0-9]{1,3})?")
_ALPHA = ".alpha"
_F32_MAX = 3.4e38
_FORMAT = {"format": "pt"}  # loaders of PyTorch models ask for it


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was written, and how it differs from the input."""

    size: int  # bytes written
    numbers: tuple[str, ...]  # Python numbers that became F32 tensors of the same name
    unshared: tuple[str, ...]  # tensors that had shared bytes with another and are now copies


def convert(read: Read, table: TensorTable, write: Callable[[bytes], object]) -> Conversion:
    """Write the table's tensors and metadata, front to back, as one safetensors file.

    Raises FileRefused, at worst halfway through, where the output would be more than twice the
    input or where packing scattered tensors would cost too much.
    """
    tensors = sorted(table.tensors, key=lambda tensor: (-DTYPE_BITS[tensor.dtype], tensor.name))
    if sum(tensor.nbytes for tensor in tensors) > MAX_GROWTH * table.expected_size:
        reason = f"its tensors share bytes and would take more than {MAX_GROWTH} times its size"
        raise FileRefused(TOO_COMPLEX, reason)
    alphas = _alphas(table)
    metadata = {key: text for key, text in table.metadata.items() if key not in alphas}
    header = _header(tensors, alphas, _FORMAT | metadata)
    write(header)
    size = len(header)
    packer = Packer(read, table.expected_size)
    for chunk in _data(packer, tensors, alphas):
        write(chunk)
        size += len(chunk)
    return Conversion(size, numbers=tuple(sorted(alphas)), unshared=_unshared(tensors))


def _alphas(table: TensorTable) -> dict[str, bytes]:
    """Return the `X.alpha` numbers beside tensors of `X`, as F32 bytes."""
    names = [tensor.name for tensor in table.tensors]
    modules = {name[:at] for name in names for at, char in enumerate(name) if char == "."}
    return {
        key: _SCALAR.pack(float(text))
        for key, text in table.metadata.items()
        if key.endswith(_ALPHA) and key.removesuffix(_ALPHA) in modules and _is_f32(text)
    }


def _is_f32(text: str) -> bool:
    return bool(_NUMBER.fullmatch(text)) and abs(float(text)) <= _F32_MAX


def _header(
    tensors: list[Tensor], alphas: Mapping[str, bytes], metadata: Mapping[str, str]
) -> bytes:
    """Return the length and the JSON, padded with spaces so that the data is aligned."""
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    at = 0
    for tensor in tensors:
        header[tensor.name] = _entry(tensor.dtype, tensor.shape, at, tensor.nbytes)
        at += tensor.nbytes
    for name in sorted(alphas):
        header[name] = _entry("F32", (), at, _SCALAR.size)
        at += _SCALAR.size
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-len(raw) % _ALIGNMENT)
    return _LENGTH.pack(len(raw)) + raw


def _entry(dtype: str, shape: tuple[int, ...], begin: int, nbytes: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, begin + nbytes]}


def _data(packer: Packer, tensors: list[Tensor], alphas: Mapping[str, bytes]) -> Iterator[bytes]:
    for tensor in tensors:
        yield from packer.packed(tensor)
    for name in sorted(alphas):
        yield alphas[name]


def _unshared(tensors: list[Tensor]) -> tuple[str, ...]:
    """Return the names of tensors whose bytes overlap another's."""
    spans = sorted((tensor.begin, _end(tensor), tensor.name) for tensor in tensors if tensor.numel)
    shared: set[str] = set()
    last_end, last_name = 0, ""
    for begin, end, name in spans:
        if begin < last_end:
            shared |= {name, last_name}
        if end > last_end:
            last_end, last_name = end, name
    return tuple(sorted(shared))


def _end(tensor: Tensor) -> int:
    pairs = zip(tensor.shape, tensor.stride, strict=True)
    reach = 1 + sum((size - 1) * stride for size, stride in pairs)
    return tensor.begin + reach * DTYPE_BITS[tensor.dtype] // 8
