"""Protocol-2 pickles written opcode by opcode, as torch.save writes them and otherwise."""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Name:
    """A GLOBAL opcode."""

    module: str
    name: str


@dataclass(frozen=True)
class Call:
    """A REDUCE opcode over a callable and its arguments."""

    function: object
    arguments: object


@dataclass(frozen=True)
class Built:
    """A BUILD opcode over a value and its state."""

    target: object
    state: object


@dataclass(frozen=True)
class Raw:
    """Opcodes as they are, which should leave one value; they take no memo entry."""

    code: bytes


@dataclass(frozen=True)
class Reference:
    """A BINPERSID opcode over whatever stands for a storage."""

    persistent_id: object


@dataclass(eq=False)
class Held:
    """A storage: its class, its bytes in the file, and what the pickle claims of it."""

    data: bytes
    kind: Name
    numel: int
    key: str = "0"
    location: str = "cpu"


ORDERED = Name("collections", "OrderedDict")


def ordered(items: dict[Any, object] | None = None) -> object:
    """Return an OrderedDict, filled as pickle fills one."""
    return Filled(Call(ORDERED, ()), items or {})


@dataclass(frozen=True)
class Filled:
    """A value that SETITEMS is applied to."""

    target: object
    items: dict[Any, object]


@dataclass
class Pickle:
    """Writes one value and remembers what it met."""

    legacy: bool = False
    out: bytearray = field(default_factory=lambda: bytearray(b"\x80\x02"))
    memo: dict[object, int] = field(default_factory=dict)
    count: int = 0
    kept: list[object] = field(default_factory=list)  # so that no id is used twice
    storages: dict[str, Held] = field(default_factory=dict)

    def dump(self, value: object) -> bytes:
        """Return the whole pickle of a value."""
        self.save(value)
        return bytes(self.out + b".")

    def save(self, value: object) -> None:
        """Write the opcodes that leave a value on the stack."""
        key: object = value if isinstance(value, str | Name) else id(value)
        if key in self.memo:
            index = self.memo[key]
            self.out += b"h" + bytes([index]) if index < 256 else b"j" + struct.pack("<L", index)
            return
        self.kept.append(value)
        _SAVERS[type(value)](self, value)

    def put(self, value: object) -> None:
        """Give the value that was just written the next memo entry."""
        self.memo[value if isinstance(value, str | Name) else id(value)] = self.count
        small = self.count < 256
        self.out += b"q" + bytes([self.count]) if small else b"r" + struct.pack("<L", self.count)
        self.count += 1


def _save_int(pickle: Pickle, value: int) -> None:
    if 0 <= value < 256:
        pickle.out += b"K" + bytes([value])
    elif 0 <= value < 65536:
        pickle.out += b"M" + struct.pack("<H", value)
    elif -(1 << 31) <= value < 1 << 31:
        pickle.out += b"J" + struct.pack("<l", value)
    else:
        nbytes = value.bit_length() // 8 + 1
        pickle.out += bytes([0x8A, nbytes]) + value.to_bytes(nbytes, "little", signed=True)


def _save_str(pickle: Pickle, value: str) -> None:
    raw = value.encode()
    pickle.out += b"X" + struct.pack("<L", len(raw)) + raw
    pickle.put(value)


def _save_tuple(pickle: Pickle, value: tuple[object, ...]) -> None:
    if len(value) > 3:
        pickle.out += b"("
    for item in value:
        pickle.save(item)
    pickle.out += {0: b")", 1: b"\x85", 2: b"\x86", 3: b"\x87"}.get(len(value), b"t")
    if value:
        pickle.put(value)


def _save_list(pickle: Pickle, value: list[object]) -> None:
    pickle.out += b"]"
    pickle.put(value)
    if value:
        pickle.out += b"("
        for item in value:
            pickle.save(item)
        pickle.out += b"e"


def _save_items(pickle: Pickle, value: dict[object, object]) -> None:
    items = list(value.items())
    for first in range(0, len(items), 1000):  # pickle's own batches
        pickle.out += b"("
        for key, item in items[first : first + 1000]:
            pickle.save(key)
            pickle.save(item)
        pickle.out += b"u"


def _save_dict(pickle: Pickle, value: dict[object, object]) -> None:
    pickle.out += b"}"
    pickle.put(value)
    _save_items(pickle, value)


def _save_filled(pickle: Pickle, value: Filled) -> None:
    pickle.save(value.target)
    _save_items(pickle, dict(value.items.items()))


def _save_name(pickle: Pickle, value: Name) -> None:
    pickle.out += b"c" + f"{value.module}\n{value.name}\n".encode()
    pickle.put(value)


def _save_call(pickle: Pickle, value: Call) -> None:
    pickle.save(value.function)
    pickle.save(value.arguments)
    pickle.out += b"R"
    pickle.put(value)


def _save_built(pickle: Pickle, value: Built) -> None:
    pickle.save(value.target)
    pickle.save(value.state)
    pickle.out += b"b"


def _save_reference(pickle: Pickle, value: Reference) -> None:
    pickle.save(value.persistent_id)
    pickle.out += b"Q"


def _save_held(pickle: Pickle, value: Held) -> None:
    pickle.storages[value.key] = value
    extra = (None,) if pickle.legacy else ()
    pickle.save(("storage", value.kind, value.key, value.location, value.numel, *extra))
    pickle.out += b"Q"


_SAVERS: dict[type, Callable[[Pickle, Any], None]] = {
    int: _save_int,
    str: _save_str,
    tuple: _save_tuple,
    list: _save_list,
    dict: _save_dict,
    Filled: _save_filled,
    Name: _save_name,
    Call: _save_call,
    Built: _save_built,
    Reference: _save_reference,
    Held: _save_held,
    bool: lambda pickle, value: pickle.out.append(0x88 if value else 0x89),
    float: lambda pickle, value: pickle.out.extend(b"G" + struct.pack(">d", value)),
    type(None): lambda pickle, _: pickle.out.append(ord("N")),
    Raw: lambda pickle, value: pickle.out.extend(value.code),
}
