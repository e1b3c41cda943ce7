"""A symbolic walk over a protocol-2 pickle: it builds inert values and runs nothing.

Names stay names, calls become whatever the given rules make of them, and everything that
torch.save does not write is refused with the byte where it stands.
"""

import struct
from collections.abc import Callable

from lora_server.errors import FileRefused
from lora_server.formats.pickle_machine import Machine, Rules
from lora_server.formats.pickle_opcodes import Opcode, refused_name
from lora_server.formats.pickle_stream import PickleStream
from lora_server.formats.refusals import CORRUPT, RESAVE, TOO_COMPLEX, UNSAFE_PICKLE, UNSUPPORTED

PROTOCOL = 2
MAX_OPCODES = 5_000_000  # a tensor costs about 30


def walk(stream: PickleStream, rules: Rules, title: str) -> object:
    """Return the pickle's value; a refusal says `title` and the byte where it arose.

    The stream is left behind STOP.
    """
    machine = Machine(stream, rules)
    try:
        return _run(machine)
    except FileRefused as refusal:
        reason = f"{title} byte {machine.at}: {refusal.reason}"
        raise FileRefused(refusal.code, reason) from None


def _run(machine: Machine) -> object:
    _check_protocol(machine.stream)
    for _ in range(MAX_OPCODES - 1):
        machine.at = machine.stream.position
        opcode = machine.stream.byte()
        step = _STEPS.get(opcode)
        if step is not None:
            step(machine)
        elif opcode == Opcode.STOP:
            return _result(machine)
        else:
            reason = f"opcode {refused_name(opcode)} is not allowed; {RESAVE}"
            raise FileRefused(UNSAFE_PICKLE, reason)
    raise FileRefused(TOO_COMPLEX, f"more than {MAX_OPCODES} opcodes")


def _check_protocol(stream: PickleStream) -> None:
    if stream.byte() != Opcode.PROTO:
        raise FileRefused(UNSUPPORTED, f"no protocol-2 pickle begins here; {RESAVE}")
    protocol = stream.byte()
    if protocol != PROTOCOL:
        raise FileRefused(UNSUPPORTED, f"a protocol {protocol} pickle; {RESAVE}")


def _result(machine: Machine) -> object:
    value = machine.pop()
    if machine.stack or machine.marked:
        raise FileRefused(CORRUPT, "values are left over when the pickle stops")
    return value


_U8, _U16, _U32, _I32 = (struct.Struct(code) for code in ("B", "<H", "<L", "<l"))
_F64 = struct.Struct(">d")


def _again(_: Machine) -> None:
    raise FileRefused(CORRUPT, "PROTO stands inside the pickle")


_STEPS: dict[int, Callable[[Machine], None]] = {
    Opcode.PROTO: _again,
    Opcode.GLOBAL: Machine.push_global,
    Opcode.MARK: Machine.mark,
    Opcode.EMPTY_TUPLE: lambda machine: machine.push_container(()),
    Opcode.EMPTY_LIST: lambda machine: machine.push_container([]),
    Opcode.EMPTY_DICT: lambda machine: machine.push_container({}),
    Opcode.TUPLE: lambda machine: machine.push_container(tuple(machine.pop_marked())),
    Opcode.TUPLE1: lambda machine: machine.push_tuple(1),
    Opcode.TUPLE2: lambda machine: machine.push_tuple(2),
    Opcode.TUPLE3: lambda machine: machine.push_tuple(3),
    Opcode.NONE: lambda machine: machine.push(None),
    Opcode.NEWTRUE: lambda machine: machine.push(value=True),
    Opcode.NEWFALSE: lambda machine: machine.push(value=False),
    Opcode.BININT: lambda machine: machine.push_unpacked(_I32),
    Opcode.BININT1: lambda machine: machine.push_unpacked(_U8),
    Opcode.BININT2: lambda machine: machine.push_unpacked(_U16),
    Opcode.LONG1: Machine.push_long,
    Opcode.BINFLOAT: lambda machine: machine.push_unpacked(_F64),
    Opcode.BINUNICODE: lambda machine: machine.push_text(_U32, "utf-8"),
    Opcode.SHORT_BINSTRING: lambda machine: machine.push_text(_U8, "ascii"),
    Opcode.BINPUT: lambda machine: machine.put(_U8),
    Opcode.LONG_BINPUT: lambda machine: machine.put(_U32),
    Opcode.BINGET: lambda machine: machine.get(_U8),
    Opcode.LONG_BINGET: lambda machine: machine.get(_U32),
    Opcode.BINPERSID: Machine.refer,
    Opcode.REDUCE: Machine.reduce,
    Opcode.BUILD: Machine.build,
    Opcode.APPEND: lambda machine: machine.append([machine.pop()]),
    Opcode.APPENDS: lambda machine: machine.append(machine.pop_marked()),
    Opcode.SETITEM: Machine.set_item,
    Opcode.SETITEMS: lambda machine: machine.set_items(machine.pop_marked()),
}
