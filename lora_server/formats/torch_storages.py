"""Storages: the runs of elements that a torch checkpoint keeps outside its pickle."""

import re
from dataclasses import dataclass

from lora_server.errors import FileRefused
from lora_server.formats.excerpt import excerpt
from lora_server.formats.pickle_values import Global
from lora_server.formats.refusals import CORRUPT, UNSAFE_PICKLE
from lora_server.formats.tensors import DTYPE_BITS

MAX_LOCATION_CHARS = 64

_STORAGE_DTYPES = {
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "DoubleStorage": "F64",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
_UNTYPED = Global("torch.storage", "UntypedStorage")

CLASSES = frozenset({_UNTYPED, *(Global("torch", name) for name in _STORAGE_DTYPES)})


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of elements that the file holds under `key`."""

    key: str
    dtype: str  # U8 where it is untyped
    untyped: bool
    numel: int

    @property
    def nbytes(self) -> int:
        """Its declared size in bytes, which its record must have."""
        return self.numel * DTYPE_BITS[self.dtype] // 8


class Storages:
    """The storages that one object pickle refers to, by key."""

    def __init__(self, key: re.Pattern[str], extra: tuple[None, ...] = ()) -> None:
        self._key = key
        self._extra = extra  # items of a persistent id behind its five
        self.by_key: dict[str, Storage] = {}

    def referred(self, persistent_id: object) -> Storage:
        """Return the storage of a persistent id; one key always means one storage."""
        storage = self._storage(persistent_id)
        known = self.by_key.setdefault(storage.key, storage)
        if known != storage:
            reason = f"storage {excerpt(storage.key)} is declared twice, differently"
            raise FileRefused(CORRUPT, reason)
        return known

    def _storage(self, persistent_id: object) -> Storage:
        match persistent_id:
            case tuple(("storage", Global() as kind, str(key), str(location), numel, *extra)):
                dtype = _storage_dtype(kind)
            case _:
                raise FileRefused(UNSAFE_PICKLE, "a persistent id that names no storage")
        if tuple(extra) != self._extra or not self._key.fullmatch(key):
            raise FileRefused(CORRUPT, f"storage id {excerpt(key)} is not of this file format")
        if len(location) > MAX_LOCATION_CHARS or type(numel) is not int or numel < 0:
            raise FileRefused(CORRUPT, f"storage {excerpt(key)} has no proper size or location")
        return Storage(key=key, dtype=dtype, untyped=kind == _UNTYPED, numel=numel)


def _storage_dtype(kind: Global) -> str:
    if kind not in CLASSES:
        raise FileRefused(UNSAFE_PICKLE, f"{excerpt(str(kind))} is no storage class")
    return "U8" if kind == _UNTYPED else _STORAGE_DTYPES[kind.name]
