"""Files of torch.save, zip and legacy, written without torch."""

import struct
from collections.abc import Mapping

from lora_server.formats.source import Read
from lora_server.formats.tensors import Tensor
from tests.formats.pickle_bytes import Call, Held, Name, Pickle, ordered
from tests.formats.zip_bytes import Part, archive

MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
VERSION = bytes.fromhex("80024de9032e")
SYSTEM = {
    "protocol_version": 1001,
    "little_endian": True,
    "type_sizes": {"short": 2, "int": 4, "long": 4},
}
UNTYPED = Name("torch.storage", "UntypedStorage")
REBUILD_V2 = Name("torch._utils", "_rebuild_tensor_v2")
REBUILD_V3 = Name("torch._utils", "_rebuild_tensor_v3")
REBUILD_PARAMETER = Name("torch._utils", "_rebuild_parameter")

ITEM_BYTES = {"Double": 8, "Long": 8, "Float": 4, "Int": 4, "Half": 2, "BFloat16": 2, "Short": 2}


def held(data: bytes = bytes(16), kind: str = "Float", key: str = "0") -> Held:
    """Return a typed storage of some bytes."""
    name = Name("torch", f"{kind}Storage")
    return Held(data, name, len(data) // ITEM_BYTES.get(kind, 1), key)


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides that torch gives a contiguous tensor."""
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.insert(0, step)
        step *= max(size, 1)
    return tuple(strides)


def tensor(
    storage: object,
    shape: tuple[int, ...],
    stride: tuple[int, ...] | None = None,
    offset: int = 0,
) -> Call:
    """Return the rebuild call of a plain tensor."""
    strides = row_major(shape) if stride is None else stride
    return Call(REBUILD_V2, (storage, offset, shape, strides, False, ordered()))


def tensor_v3(data: bytes, shape: tuple[int, ...], dtype: str, key: str = "0") -> Call:
    """Return the rebuild call of a tensor whose dtype has no storage class."""
    storage = Held(data, UNTYPED, len(data), key)
    arguments = (storage, 0, shape, row_major(shape), False, ordered(), Name("torch", dtype))
    return Call(REBUILD_V3, arguments)


def floats(*values: float) -> bytes:
    """Return F32 bytes."""
    return struct.pack(f"<{len(values)}f", *values)


def lora(rank: int = 2, width: int = 4) -> dict[object, object]:
    """Return a small LoRA layer: down, up and alpha, each in its own storage."""
    down = held(floats(*range(rank * width)), key="0")
    up = held(floats(*range(100, 100 + rank * width)), key="1")
    return {
        "unet.q.lora_down.weight": tensor(down, (rank, width)),
        "unet.q.lora_up.weight": tensor(up, (width, rank)),
        "unet.q.alpha": tensor(held(floats(rank), key="2"), ()),
    }


def zip_parts(pickle: bytes, records: Mapping[str, bytes], folder: str = "archive") -> list[Part]:
    """Return the members of a zip checkpoint in torch's order."""
    notes = {".format_version": b"1", ".storage_alignment": b"64", "byteorder": b"little"}
    late = {"version": b"3\n", ".data/serialization_id": b"0" * 40}
    storages = {f"data/{key}": data for key, data in records.items()}
    files = {"data.pkl": pickle} | notes | storages | late
    return [Part(f"{folder}/{name}", data) for name, data in files.items()]


def torch_parts(root: object, folder: str = "archive") -> list[Part]:
    """Return the members of an object's zip checkpoint."""
    pickle = Pickle()
    raw = pickle.dump(root)
    return zip_parts(raw, {key: item.data for key, item in pickle.storages.items()}, folder)


def torch_zip(root: object) -> bytes:
    """Return an object as torch.save writes it."""
    return archive(torch_parts(root))


def torch_legacy(
    root: object,
    *,
    changes: Mapping[str, bytes] | None = None,
    counts: Mapping[str, int] | None = None,
) -> bytes:
    """Return an object in the legacy format.

    `changes` replaces the pickles magic, version, system, object and keys; `counts` the numbers
    of elements before the storages.
    """
    pickle = Pickle(legacy=True)
    pieces = {"magic": MAGIC, "version": VERSION, "system": Pickle().dump(SYSTEM)}
    pieces["object"] = pickle.dump(root)
    pieces["keys"] = Pickle().dump(sorted(pickle.storages))
    out = b"".join((pieces | dict(changes or {})).values())
    for key, item in sorted(pickle.storages.items()):
        out += struct.pack("<q", (counts or {}).get(key, item.numel)) + item.data
    return out


def reader(data: bytes) -> Read:
    """Return positional reads over bytes, as os.pread gives them over a file."""
    return lambda offset, nbytes: data[offset : offset + nbytes]


def element_bytes(data: bytes, found: Tensor, itemsize: int) -> list[bytes]:
    """Return a tensor's elements in logical order, one by one."""
    positions = [found.begin]
    for size, stride in zip(found.shape, found.stride, strict=True):
        positions = [at + index * stride * itemsize for at in positions for index in range(size)]
    return [data[at : at + itemsize] for at in positions]
