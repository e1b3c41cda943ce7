"""The corpus of torch files that must be refused, each named after its trick."""

from dataclasses import dataclass

from tests.formats.hostile_pickle import MARKER, roots
from tests.formats.hostile_zip import TRICKS
from tests.formats.pickle_bytes import Call, Name, Pickle, Raw
from tests.formats.torch_bytes import MAGIC, SYSTEM, VERSION, lora, torch_legacy, torch_zip

CORRUPT, UNSAFE, UNSUPPORTED = "lora_corrupt", "lora_unsafe_pickle", "lora_unsupported"
EVIL = Pickle().dump(Call(Name("os", "system"), (f"touch {MARKER}",)))


@dataclass(frozen=True)
class Hostile:
    """One file and the code it must be refused with."""

    name: str
    data: bytes
    code: str


def corpus() -> list[Hostile]:
    """Return every hostile or broken file: pickle tricks in both containers, and the rest."""
    pickles = [
        Hostile(f"{container}: {name}", write(root), code)
        for name, (root, code) in roots().items()
        for container, write in (("zip", torch_zip), ("legacy", torch_legacy))
    ]
    zips = [Hostile(f"zip: {name}", build(), code) for name, (build, code) in TRICKS.items()]
    others = [Hostile(name, data, code) for name, (data, code) in _others().items()]
    return [*pickles, *zips, *(_legacy()), *others]


def _changed(piece: str, data: bytes) -> bytes:
    return torch_legacy(lora(), changes={piece: data})


def _system(**changes: object) -> bytes:
    return _changed("system", Pickle().dump(SYSTEM | changes))


def _keys(*keys: object) -> bytes:
    return _changed("keys", Pickle().dump(list(keys)))


def _legacy() -> list[Hostile]:
    honest = torch_legacy(lora())
    tricks = {
        "magic number by a call": (_changed("magic", EVIL), UNSUPPORTED),
        "magic number of protocol 4": (_changed("magic", b"\x80\4" + MAGIC[2:]), UNSUPPORTED),
        "version by a call": (_changed("version", EVIL), UNSUPPORTED),
        "version 1000": (_changed("version", VERSION.replace(b"\xe9", b"\xe8")), UNSUPPORTED),
        "system by a call": (_changed("system", EVIL), UNSAFE),
        "system with a storage": (_changed("system", b"\x80\2)Q."), UNSAFE),
        "system with a global": (_changed("system", b"\x80\2cos\nsystem\n."), UNSAFE),
        "system with a call of None": (_changed("system", b"\x80\2N)R."), UNSAFE),
        "system is a list": (_changed("system", Pickle().dump([])), UNSUPPORTED),
        "big-endian": (_system(little_endian=False), UNSUPPORTED),
        "little-endian is 1": (_system(little_endian=1), UNSUPPORTED),
        "object by a call": (_changed("object", EVIL), UNSAFE),
        "object reads another pickle's memo": (_changed("object", b"\x80\2h\0."), UNSAFE),
        "storage list by a call": (_changed("keys", EVIL), UNSAFE),
        "storage list is a dictionary": (_changed("keys", Pickle().dump({"0": "1"})), CORRUPT),
        "storage list of integers": (_keys(0, 1, 2), CORRUPT),
        "storage list with a list": (_keys("0", "1", []), CORRUPT),
        "storage listed twice": (_keys("0", "1", "2", "2"), CORRUPT),
        "storage not listed": (_keys("0", "1"), CORRUPT),
        "storage that nothing refers to": (_keys("0", "1", "2", "3"), CORRUPT),
        "negative count": (torch_legacy(lora(), counts={"1": -1}), CORRUPT),
        "count beyond the file": (torch_legacy(lora(), counts={"2": 1 << 40}), CORRUPT),
        "bytes behind the storages": (honest + b"x", CORRUPT),
        "pickle behind the storages": (honest + EVIL, CORRUPT),
        "cut in the last storage": (honest[:-1], CORRUPT),
        "cut in the object": (honest[:300], CORRUPT),
        "only the magic number": (MAGIC, CORRUPT),
    }
    return [Hostile(f"legacy: {name}", data, code) for name, (data, code) in tricks.items()]


def _others() -> dict[str, tuple[bytes, str]]:
    return {
        "empty file": (b"", CORRUPT),
        "bare pickle": (EVIL, UNSUPPORTED),
        "bare pickle of protocol 4": (b"\x80\4" + EVIL[2:], UNSUPPORTED),
        "bare pickle of protocol 0": (b"cos\nsystem\n(S'true'\ntR.", UNSUPPORTED),
        "bare state dict": (Pickle().dump({"x": Raw(b"N")}), UNSUPPORTED),
        "tar": (b"storages".ljust(257, b"\0") + b"ustar\x0000".ljust(255, b"\0"), UNSUPPORTED),
        "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(64), UNSUPPORTED),
        "gzip": (b"\x1f\x8b\x08" + bytes(64), UNSUPPORTED),
        "numpy array": (b"\x93NUMPY\1\0" + bytes(64), UNSUPPORTED),
        "ELF program": (b"\x7fELF" + bytes(64), UNSUPPORTED),
        "GGUF": (b"GGUF\3\0\0\0" + bytes(64), UNSUPPORTED),
        "web page": (b"<!DOCTYPE html>" + bytes(64), UNSUPPORTED),
        "safetensors": (b"\2" + bytes(7) + b"{}", UNSUPPORTED),
        "empty zip": (b"PK\5\6" + bytes(18), UNSUPPORTED),
    }
