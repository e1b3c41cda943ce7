"""torch's checkpoints from before the zip format: five pickles, then the storages."""

import re
import struct
from collections.abc import Mapping

from lora_server.errors import FileRefused
from lora_server.formats.excerpt import excerpt
from lora_server.formats.pickle_stream import PickleStream
from lora_server.formats.pickle_values import Global
from lora_server.formats.pickle_walk import walk
from lora_server.formats.refusals import CORRUPT, UNSAFE_PICKLE, UNSUPPORTED
from lora_server.formats.source import Read, exactly
from lora_server.formats.torch_objects import TorchRules
from lora_server.formats.torch_storages import Storages
from lora_server.formats.torch_zip import MAX_PICKLE_BYTES, Loaded

# The pickles of torch's magic number and of its protocol version 1001, to the byte.
MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
_VERSION = bytes.fromhex("80024de9032e")

_KEY = re.compile("-?[0-9]{1,20}")  # the storage's address in the process that saved it
_COUNT = struct.Struct("<q")


def load(read: Read, size: int) -> Loaded:
    """Return the object of a legacy checkpoint of `size` bytes, every byte accounted for."""
    at = len(MAGIC) + len(_VERSION)
    if exactly(read, 0, at) != MAGIC + _VERSION:
        raise FileRefused(UNSUPPORTED, "not torch's legacy format with protocol version 1001")
    system, at = _walk_plain(read, at, size, "system pickle")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise FileRefused(UNSUPPORTED, "the tensors are not little-endian")
    storages = Storages(_KEY, extra=(None,))
    stream = _stream(read, at, size)
    root = walk(stream, TorchRules(storages), "object pickle")
    keys, at = _walk_plain(read, at + stream.position, size, "storage list")
    return Loaded(root, _begins(read, at, size, _ordered(keys, storages), storages))


class _NoNames:
    """The rules for pickles that hold plain values only."""

    def named(self, name: Global) -> object:
        raise FileRefused(UNSAFE_PICKLE, f"global {excerpt(str(name))} is not allowed here")

    def called(self, function: object, arguments: tuple[object, ...]) -> object:
        del function, arguments
        raise FileRefused(UNSAFE_PICKLE, "a call is not allowed here")

    def referred(self, persistent_id: object) -> object:
        del persistent_id
        raise FileRefused(UNSAFE_PICKLE, "a persistent id is not allowed here")


def _stream(read: Read, begin: int, size: int) -> PickleStream:
    return PickleStream(read, begin, min(size, begin + MAX_PICKLE_BYTES))


def _walk_plain(read: Read, begin: int, size: int, title: str) -> tuple[object, int]:
    stream = _stream(read, begin, size)
    value = walk(stream, _NoNames(), title)
    return value, begin + stream.position


def _ordered(keys: object, storages: Storages) -> list[str]:
    """Return the storage list, which names what the object refers to, each once."""
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise FileRefused(CORRUPT, "the storage list is no list of strings")
    if len(set(keys)) != len(keys) or set(keys) != storages.by_key.keys():
        raise FileRefused(CORRUPT, "the storage list differs from what the object refers to")
    return keys


def _begins(
    read: Read, at: int, size: int, keys: list[str], storages: Storages
) -> Mapping[str, int]:
    begins: dict[str, int] = {}
    for key in keys:
        storage = storages.by_key[key]
        count = _COUNT.unpack(exactly(read, at, _COUNT.size))[0]
        if count != storage.numel:
            reason = f"storage {excerpt(key)} has {count} elements, not {storage.numel}"
            raise FileRefused(CORRUPT, reason)
        begins[key] = at + _COUNT.size
        at += _COUNT.size + storage.nbytes
        if at > size:
            raise FileRefused(CORRUPT, f"the file ends inside storage {excerpt(key)}")
    if at != size:
        raise FileRefused(CORRUPT, f"{size - at} bytes after the last storage")
    return begins
