"""The state of a symbolic pickle machine: its stack, marks, memo and budgets."""

import re
import struct
from typing import Protocol

from lora_server.errors import FileRefused
from lora_server.formats.excerpt import excerpt
from lora_server.formats.pickle_stream import PickleStream
from lora_server.formats.pickle_values import Global, Ordered, is_dict
from lora_server.formats.refusals import CORRUPT, TOO_COMPLEX, UNSAFE_PICKLE

MAX_STACK = 100_000  # values awaiting one collection; pickle itself batches by 1000
MAX_MARKS = 100  # collections under construction at once
MAX_CONTAINERS = 520_000  # a tensor takes five, and there may be 100,000
MAX_STRING_BYTES = 1024 * 1024
MAX_TEXT_BYTES = 16 * 1024 * 1024  # all strings together
MAX_LONG_BYTES = 16
MAX_GLOBAL_BYTES = 256

_IDENTIFIER = re.compile(rb"[A-Za-z0-9_.]+")


class Rules(Protocol):
    """What a pickle may name, call and refer to; each refuses with FileRefused."""

    def named(self, name: Global) -> object:
        """Return the value that stands for an imported name."""

    def called(self, function: object, arguments: tuple[object, ...]) -> object:
        """Return what a call would have made."""

    def referred(self, persistent_id: object) -> object:
        """Return what a persistent id refers to."""


class Machine:
    """Builds inert values; every operation that torch.save has no use for is refused."""

    def __init__(self, stream: PickleStream, rules: Rules) -> None:
        self.stream = stream
        self.rules = rules
        self.at = 0  # where the current opcode stands
        self.stack: list[object] = []
        self.marked: list[list[object]] = []  # the stacks below each open mark
        self.memo: list[object] = []
        self.containers = 0
        self.text_bytes = 0

    def push(self, value: object) -> None:
        """Put a value on the stack."""
        self.stack.append(value)
        if len(self.stack) > MAX_STACK:
            raise FileRefused(TOO_COMPLEX, f"more than {MAX_STACK} values in one collection")

    def pop(self) -> object:
        """Take the top value."""
        if not self.stack:
            raise FileRefused(CORRUPT, "a value is taken where there is none")
        return self.stack.pop()

    def top(self) -> object:
        """Return the value that an opcode is about to change."""
        if not self.stack:
            raise FileRefused(CORRUPT, "a value is changed where there is none")
        return self.stack[-1]

    def push_container(self, value: object) -> None:
        """Push a new collection, or the result of a call, and count it."""
        self.containers += 1
        if self.containers > MAX_CONTAINERS:
            raise FileRefused(TOO_COMPLEX, f"more than {MAX_CONTAINERS} collections")
        self.push(value)

    def mark(self) -> None:
        """Set the stack aside and begin a collection."""
        if len(self.marked) >= MAX_MARKS:
            raise FileRefused(TOO_COMPLEX, f"collections nested more than {MAX_MARKS} deep")
        self.marked.append(self.stack)
        self.stack = []

    def pop_marked(self) -> list[object]:
        """Take what was pushed since the last mark."""
        if not self.marked:
            raise FileRefused(CORRUPT, "a mark is used where there is none")
        values, self.stack = self.stack, self.marked.pop()
        return values

    def push_tuple(self, count: int) -> None:
        """Make a tuple of the top `count` values."""
        if len(self.stack) < count:
            raise FileRefused(CORRUPT, "a tuple takes more values than there are")
        values = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.push_container(values)

    def push_unpacked(self, layout: struct.Struct) -> None:
        """Push a number of a fixed layout."""
        self.push(layout.unpack(self.stream.take(layout.size))[0])

    def push_long(self) -> None:
        """Push an integer of a counted number of bytes."""
        nbytes = self.stream.byte()
        if nbytes > MAX_LONG_BYTES:
            raise FileRefused(TOO_COMPLEX, f"an integer of more than {MAX_LONG_BYTES} bytes")
        self.push(int.from_bytes(self.stream.take(nbytes), "little", signed=True))

    def push_text(self, layout: struct.Struct, encoding: str) -> None:
        """Push a string whose length is of the given layout."""
        nbytes = layout.unpack(self.stream.take(layout.size))[0]
        self.text_bytes += nbytes
        if nbytes > MAX_STRING_BYTES or self.text_bytes > MAX_TEXT_BYTES:
            reason = f"strings of more than {MAX_STRING_BYTES} bytes, or {MAX_TEXT_BYTES} in all"
            raise FileRefused(TOO_COMPLEX, reason)
        try:
            self.push(self.stream.take(nbytes).decode(encoding))
        except UnicodeDecodeError:
            raise FileRefused(CORRUPT, f"a string is not valid {encoding}") from None

    def push_global(self) -> None:
        """Push what the rules make of a name."""
        module, name = (self._identifier() for _ in range(2))
        self.push(self.rules.named(Global(module, name)))

    def _identifier(self) -> str:
        line = self.stream.line(MAX_GLOBAL_BYTES)
        if not _IDENTIFIER.fullmatch(line):
            raise FileRefused(UNSAFE_PICKLE, f"global name {excerpt(line)} is not a plain name")
        return line.decode("ascii")

    def put(self, layout: struct.Struct) -> None:
        """Remember the top value; torch.save numbers them in order, so any other index is odd."""
        index = layout.unpack(self.stream.take(layout.size))[0]
        if index != len(self.memo):
            raise FileRefused(UNSAFE_PICKLE, f"memo entry {index} is written out of order")
        self.memo.append(self.top())

    def get(self, layout: struct.Struct) -> None:
        """Push a remembered value."""
        index = layout.unpack(self.stream.take(layout.size))[0]
        if index >= len(self.memo):
            raise FileRefused(UNSAFE_PICKLE, f"memo entry {index} is read before it is written")
        self.push(self.memo[index])

    def refer(self) -> None:
        """Replace a persistent id by what it refers to."""
        self.push(self.rules.referred(self.pop()))

    def reduce(self) -> None:
        """Replace a name and its arguments by what the call would have made."""
        arguments, function = self.pop(), self.pop()
        if type(arguments) is not tuple:
            raise FileRefused(UNSAFE_PICKLE, "a call without a tuple of arguments")
        self.push_container(self.rules.called(function, arguments))

    def build(self) -> None:
        """Drop the state of an OrderedDict, which torch uses for module versions only."""
        state, target = self.pop(), self.top()
        plain = type(target) is Ordered and isinstance(state, dict) and list(state) == ["_metadata"]
        if not plain:
            raise FileRefused(UNSAFE_PICKLE, "BUILD may only give an OrderedDict its _metadata")

    def append(self, values: list[object]) -> None:
        """Extend the list on top."""
        target = self.top()
        if type(target) is not list:
            raise FileRefused(CORRUPT, "APPEND to something that is no list")
        target.extend(values)

    def set_items(self, items: list[object]) -> None:
        """Set keys, alternating with their values, of the dictionary on top."""
        target = self.top()
        if not isinstance(target, dict) or not is_dict(target):
            raise FileRefused(CORRUPT, "SETITEM on something that is no dictionary")
        if len(items) % 2:
            raise FileRefused(CORRUPT, "a dictionary key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in {str, int}:
                raise FileRefused(CORRUPT, "a dictionary key is neither a string nor an integer")
            if key in target:
                raise FileRefused(CORRUPT, f"dictionary key {excerpt(str(key))} is set twice")
            target[key] = value

    def set_item(self) -> None:
        """Set one key."""
        value, key = self.pop(), self.pop()
        self.set_items([key, value])
