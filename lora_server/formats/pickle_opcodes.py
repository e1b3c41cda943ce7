"""The pickle opcodes that torch.save writes, and the names of those it never needs.

The allowed ones are the set of torch's own restricted unpickler without NEWOBJ and EMPTY_SET.
"""

from enum import IntEnum


class Opcode(IntEnum):
    """Every opcode that is understood; any other byte is refused."""

    PROTO = 0x80
    GLOBAL = 0x63
    MARK = 0x28
    EMPTY_TUPLE = 0x29
    EMPTY_LIST = 0x5D
    EMPTY_DICT = 0x7D
    TUPLE = 0x74
    TUPLE1 = 0x85
    TUPLE2 = 0x86
    TUPLE3 = 0x87
    NONE = 0x4E
    NEWTRUE = 0x88
    NEWFALSE = 0x89
    BININT = 0x4A
    BININT1 = 0x4B
    BININT2 = 0x4D
    LONG1 = 0x8A
    BINFLOAT = 0x47
    BINUNICODE = 0x58
    SHORT_BINSTRING = 0x55
    BINPUT = 0x71
    LONG_BINPUT = 0x72
    BINGET = 0x68
    LONG_BINGET = 0x6A
    BINPERSID = 0x51
    REDUCE = 0x52
    BUILD = 0x62
    APPEND = 0x61
    APPENDS = 0x65
    SETITEM = 0x73
    SETITEMS = 0x75
    STOP = 0x2E


_REFUSED = {
    0x30: "POP",
    0x31: "POP_MARK",
    0x32: "DUP",
    0x42: "BINBYTES",
    0x43: "SHORT_BINBYTES",
    0x46: "FLOAT",
    0x49: "INT",
    0x4C: "LONG",
    0x50: "PERSID",
    0x53: "STRING",
    0x54: "BINSTRING",
    0x56: "UNICODE",
    0x64: "DICT",
    0x67: "GET",
    0x69: "INST",
    0x6C: "LIST",
    0x6F: "OBJ",
    0x70: "PUT",
    0x81: "NEWOBJ",
    0x82: "EXT1",
    0x83: "EXT2",
    0x84: "EXT4",
    0x8B: "LONG4",
    0x8C: "SHORT_BINUNICODE",
    0x8D: "BINUNICODE8",
    0x8E: "BINBYTES8",
    0x8F: "EMPTY_SET",
    0x90: "ADDITEMS",
    0x91: "FROZENSET",
    0x92: "NEWOBJ_EX",
    0x93: "STACK_GLOBAL",
    0x94: "MEMOIZE",
    0x95: "FRAME",
    0x96: "BYTEARRAY8",
    0x97: "NEXT_BUFFER",
    0x98: "READONLY_BUFFER",
}


def refused_name(opcode: int) -> str:
    """Return what pickle calls an opcode that is not understood here."""
    return _REFUSED.get(opcode, f"0x{opcode:02x}")
