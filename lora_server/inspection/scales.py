"""Alpha: the one quantity whose value, not only its shape, has to be read from the file."""

import math
import struct
from collections.abc import Iterable, Mapping

from lora_server.formats.source import Read
from lora_server.formats.tensors import DTYPE_BITS, Tensor

# struct's letter for each dtype that holds an alpha; BF16 has none and is the top half of F32.
_FORMATS: Mapping[str, str] = {
    "F16": "<e",
    "F32": "<f",
    "F64": "<d",
    "I8": "<b",
    "U8": "<B",
    "I16": "<h",
    "U16": "<H",
    "I32": "<i",
    "U32": "<I",
    "I64": "<q",
    "U64": "<Q",
}


def decode(dtype: str, raw: bytes) -> float | None:
    """Return the number that these bytes hold; None where the dtype holds no alpha."""
    if dtype == "BF16" and len(raw) == struct.calcsize("<e"):
        return float(struct.unpack("<f", b"\x00\x00" + raw)[0])
    letter = _FORMATS.get(dtype)
    if letter is None or len(raw) != struct.calcsize(letter):
        return None
    return float(struct.unpack(letter, raw)[0])


def alphas(tensors: Iterable[Tensor], read: Read) -> list[float | None]:
    """Return the value of each tensor, None for what is no single number.

    One file repeats a few values hundreds of times, so equal bytes are decoded once.
    """
    known: dict[tuple[str, bytes], float | None] = {}
    values = []
    for tensor in tensors:
        nbytes = DTYPE_BITS[tensor.dtype] // 8
        raw = read(tensor.begin, nbytes) if math.prod(tensor.shape) == 1 else b""
        key = (tensor.dtype, raw)
        if key not in known:
            known[key] = decode(*key)
        values.append(known[key])
    return values
