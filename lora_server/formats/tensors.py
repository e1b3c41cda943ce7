"""The tensor table: what every container is read into, whatever its format."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import msgspec


class Container(StrEnum):
    """The file formats that can hold an accepted LoRA."""

    SAFETENSORS = "safetensors"
    TORCH_ZIP = "torch_zip"
    TORCH_LEGACY = "torch_legacy"


# Bits an element takes, by safetensors' spelling of the dtype.
DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "F8_E8M0": 8,
    "U16": 16,
    "I16": 16,
    "F16": 16,
    "BF16": 16,
    "U32": 32,
    "I32": 32,
    "F32": 32,
    "U64": 64,
    "I64": 64,
    "F64": 64,
}


class Tensor(msgspec.Struct, frozen=True, gc=False):
    """One tensor as its container declares it, checked against the file's real size."""

    name: str
    dtype: str  # a key of DTYPE_BITS
    shape: tuple[int, ...]
    stride: tuple[int, ...]  # in elements; row-major in safetensors files
    begin: int  # byte offset in the file of the element at index (0, ..., 0)

    @property
    def numel(self) -> int:
        """The number of elements; 1 for a scalar."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def nbytes(self) -> int:
        """The packed size in bytes."""
        return self.numel * DTYPE_BITS[self.dtype] // 8


@dataclass(frozen=True, slots=True)
class TensorTable:
    """What a file holds: its tensors in file order and its string metadata."""

    container: Container
    tensors: tuple[Tensor, ...]
    metadata: Mapping[str, str]
    data_begin: int  # offset of the tensor section in a safetensors file; 0 elsewhere
    expected_size: int  # bytes the whole file must have
