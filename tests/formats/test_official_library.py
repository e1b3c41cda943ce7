"""The official library as a witness: what it refuses is never let in."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize

from lora_server.errors import FileRefused
from lora_server.formats.safetensors import (
    LENGTH_BYTES,
    header_size,
    read_table,
    refuse_wrong_size,
)
from lora_server.formats.tensors import TensorTable
from tests.formats.drawn_headers import mutated, tables
from tests.formats.hostile_safetensors import ODD_BUT_VALID, TRICKS
from tests.formats.safetensors_files import container

SIZES = st.sampled_from([0, 1, 2, 3, 2**31, 2**40])
NUMBERS = st.one_of(
    st.sampled_from(["-0", "-1", "1.0", "1e0", "NaN", "true", "null", '"1"', str(2**64), "00"]),
    st.integers(0, 8).map(str),
)


def ours(file: bytes) -> TensorTable | None:
    """Return the table of `file`, None where it is refused."""
    try:
        size = header_size(file)
        table = read_table(file[LENGTH_BYTES : LENGTH_BYTES + size])
        refuse_wrong_size(table, len(file))
    except FileRefused:
        return None
    return table


def theirs(file: bytes) -> dict[str, tuple[str, list[int], bytes]] | None:
    """Return what the library reads from `file`, None where it refuses."""
    try:
        tensors = deserialize(file)  # type: ignore[no-untyped-call]  # the library's stub has none
    except SafetensorError:
        return None
    return {name: (at["dtype"], at["shape"], bytes(at["data"])) for name, at in tensors}


def distinct(size: int) -> bytes:
    """Return bytes that differ from place to place, so that a tensor read elsewhere is seen."""
    return bytes(at % 251 for at in range(size))


def assert_no_more_lenient(file: bytes) -> None:
    """Let in only what the library lets in, with the same meaning."""
    table = ours(file)
    if table is not None:
        read = {
            t.name: (t.dtype, list(t.shape), file[t.begin : t.begin + t.nbytes])
            for t in table.tensors
        }
        assert read == theirs(file)


@settings(max_examples=300, deadline=None)
@given(tables(), st.sampled_from([json.dumps, partial(json.dumps, ensure_ascii=False)]))
def test_generated_tables_are_read_alike(
    drawn: tuple[dict[str, Any], int], dumps: Callable[[object], str]
) -> None:
    """A table that tiles its buffer means to us what it means to the library."""
    fields, size = drawn
    header = dumps(fields).encode("utf-8", "surrogatepass")

    assert_no_more_lenient(container(header, distinct(size)))


@settings(max_examples=600, deadline=None)
@given(tables(), st.data())
def test_mutated_headers_are_not_let_in(
    drawn: tuple[dict[str, Any], int], data: st.DataObject
) -> None:
    """A header with some bytes exchanged is refused wherever the library refuses it."""
    fields, size = drawn
    header = data.draw(mutated(json.dumps(fields).encode("utf-8", "surrogatepass")))

    assert_no_more_lenient(container(header, distinct(size)))


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(NUMBERS, SIZES.map(str)), max_size=4), st.tuples(NUMBERS, NUMBERS))
def test_odd_numbers_are_not_let_in(shape: list[str], offsets: tuple[str, str]) -> None:
    """A number that the library does not read as one is refused."""
    header = (
        f'{{"a":{{"dtype":"U8","shape":[{",".join(shape)}],"data_offsets":[{",".join(offsets)}]}}}}'
    )
    for size in (0, 1, 2, 4):
        assert_no_more_lenient(container(header.encode(), bytes(size)))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 120), st.integers(0, 255), st.integers(-3, 3))
def test_damaged_files_are_not_let_in(at: int, byte: int, cut: int) -> None:
    """A byte changed anywhere, or a few cut or added, is refused where the library refuses."""
    file = bytearray(ODD_BUT_VALID["every order and width"]())
    file[at] = byte
    damaged = bytes(file[:cut]) if cut < 0 else bytes(file) + bytes(cut)

    assert_no_more_lenient(damaged)


@pytest.mark.parametrize("name", [name for name in TRICKS if "million" not in name])
def test_tricks_are_not_let_in(name: str) -> None:
    """What is refused for its content is refused, or harmless, by the header alone."""
    assert_no_more_lenient(TRICKS[name].build())


@pytest.mark.parametrize("name", ODD_BUT_VALID)
def test_the_library_reads_what_is_let_in(name: str) -> None:
    """Each odd file is let in, and the library finds the same tensors."""
    file = ODD_BUT_VALID[name]()

    assert ours(file) is not None
    assert_no_more_lenient(file)
