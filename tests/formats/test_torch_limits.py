"""Claims about the budgets: what is just within one comes in, one more does not."""

import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from lora_server.errors import FileRefused
from lora_server.formats import pickle_machine, torch_names, torch_objects, torch_zip
from lora_server.formats.torch_file import read_table
from tests.formats.pickle_bytes import Built, Call, Held, Name, Raw, ordered
from tests.formats.torch_bytes import (
    REBUILD_V2,
    held,
    lora,
    reader,
    tensor,
    torch_parts,
)
from tests.formats.torch_bytes import torch_zip as write
from tests.formats.zip_bytes import Part, archive

SIX = held(bytes(24))
ONE = tensor(SIX, (6,))


@dataclass(frozen=True)
class Limit:
    """A builder of files by amount, and the largest amount that may pass."""

    build: Callable[[int], bytes]
    most: int
    code: str = "lora_pickle_too_complex"


def _beside(code: bytes) -> bytes:
    return write(lora() | {"x": Raw(code)})


def _nested(depth: int) -> bytes:
    value: object = ONE
    for _ in range(depth):
        value = {"a": value}
    return write(value)


def _text(nbytes: int) -> bytes:
    return b"X" + struct.pack("<L", nbytes) + bytes(nbytes)


def _texts(nbytes: int) -> bytes:
    """Return strings of nbytes bytes in all, the memo's and keys' included."""
    own = sum(len(key) for key in ("storage", "0", "cpu", "x", "t"))
    whole, rest = divmod(nbytes - own, 1 << 20)
    code = b"](" + _text(1 << 20) * whole + _text(rest) + b"e"
    return write({"t": ONE, "x": Raw(code)})


def _metadata(nbytes: int) -> bytes:
    return write({"t": ONE, "x": {"a": "v" * (nbytes - 3)}})


def _note(nbytes: int) -> bytes:
    parts = [part for part in torch_parts(lora()) if not part.name.endswith("/version")]
    return archive([*parts, Part("archive/version", bytes(nbytes))])


def _global(nbytes: int) -> bytes:
    """Return a file with a harmless text after a name of nbytes bytes."""
    return _beside(b"c" + b"a" * nbytes + b"\nSize\n")


def _location(chars: int) -> bytes:
    return write(
        {"x": tensor(Held(bytes(4), Name("torch", "FloatStorage"), 1, "0", "c" * chars), ())}
    )


def _rank(rank: int) -> bytes:
    return write({"x": Call(REBUILD_V2, (SIX, 0, (1,) * rank, (1,) * rank, False, ordered()))})


def _marks(count: int) -> bytes:
    """Return a file with count marks open at once, two of them around the state."""
    deep = Raw(b"(" * (count - 2) + b"t" * (count - 2))
    return write(lora() | {"x": Built(ordered(), {"_metadata": deep})})


def _many(count: int) -> bytes:
    """Return a file of count tensors, one value under many names."""
    names = {f"n{index}": ONE for index in range(count)}
    return write(names)


LIMITS = {
    "values in one collection": Limit(
        lambda count: _beside(b"](" + b"J\0\0\0\0" * count + b"e"), pickle_machine.MAX_STACK
    ),
    "open marks": Limit(_marks, pickle_machine.MAX_MARKS),
    "bytes of a string": Limit(
        lambda count: write({"t": ONE, "x": [Raw(_text(count))]}), pickle_machine.MAX_STRING_BYTES
    ),
    "bytes of all strings": Limit(_texts, pickle_machine.MAX_TEXT_BYTES),
    "bytes of an integer": Limit(
        lambda count: _beside(bytes([0x8A, count]) + bytes(count)), pickle_machine.MAX_LONG_BYTES
    ),
    "depth": Limit(_nested, torch_names.MAX_DEPTH),
    "bytes of a name": Limit(lambda count: write({"a" * count: ONE}), torch_names.MAX_NAME_BYTES),
    "bytes of metadata": Limit(_metadata, torch_names.MAX_METADATA_BYTES),
    "tensors": Limit(_many, torch_names.MAX_TENSORS),
    "rank": Limit(_rank, torch_objects.MAX_RANK, "lora_corrupt"),
    "bytes of a note": Limit(_note, torch_zip.MAX_NOTE_BYTES, "lora_corrupt"),
    "letters of a location": Limit(_location, 64, "lora_corrupt"),
    "bytes of the folder": Limit(
        lambda count: archive(torch_parts(lora(), "f" * count)),
        torch_zip.MAX_FOLDER_BYTES,
        "lora_zip_ambiguous",
    ),
}


@pytest.mark.parametrize("limit", LIMITS.values(), ids=LIMITS)
def test_limits_hold_to_the_unit(limit: Limit) -> None:
    """The most passes; one more is refused."""
    most, more = limit.build(limit.most), limit.build(limit.most + 1)

    assert read_table(reader(most), len(most)).tensors
    with pytest.raises(FileRefused) as refusal:
        read_table(reader(more), len(more))
    assert refusal.value.code == limit.code, refusal.value.reason


@pytest.mark.parametrize(
    ("nbytes", "code"),
    [(256, "lora_unsafe_pickle"), (257, "lora_pickle_too_complex")],
)
def test_names_of_globals_are_bounded(nbytes: int, code: str) -> None:
    """A longer name than any real one is not even read to its end."""
    data = _global(nbytes)

    with pytest.raises(FileRefused) as refusal:
        read_table(reader(data), len(data))

    assert refusal.value.code == code


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(b"]" + b"Na" * 2_600_000, id="opcodes"),
        pytest.param(b"]" + b"]a" * 1_000_100, id="collections"),
        pytest.param(b"N" + b"\x85" * 1_000_100, id="tuples in tuples"),
    ],
)
def test_bombs_end_in_bounded_time(code: bytes) -> None:
    """Millions of opcodes are refused within seconds, whatever they pile up."""
    data = _beside(code)
    begun = time.process_time()

    with pytest.raises(FileRefused) as refusal:
        read_table(reader(data), len(data))

    assert refusal.value.code == "lora_pickle_too_complex"
    assert time.process_time() - begun < 20
