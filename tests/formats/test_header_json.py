"""The fast reader of headers has no opinion of its own: it says what the strict one says."""

import json
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from lora_server.errors import FileRefused
from lora_server.formats.header_json import (
    Header,
    canonical_header,
    read_header,
    strict_header,
)
from lora_server.formats.safetensors import LENGTH_BYTES, MAX_TENSORS
from tests.formats.drawn_headers import mutated, tables
from tests.formats.hostile_safetensors import ODD_BUT_VALID, TRICKS
from tests.formats.safetensors_files import encoded, entry

LIMITS = {"max_objects": MAX_TENSORS + 2, "max_strings": 10 * MAX_TENSORS}
ENTRY = '{"dtype":"F16","shape":[2],"data_offsets":[0,4]}'
METADATA = '"__metadata__":{"format":"pt"}'
# What JSON has to escape, what it may, and what it need not.
TEXTS = ("\\", '"', "/", "\x00\x1f\x7f\b\t\n\f\r", "é\u2028\U0001f999", '{"a": [1, "b"]}', "")


def header_of(file: bytes) -> bytes:
    """Return the JSON of a file, as much as is there of what it claims."""
    return file[LENGTH_BYTES : LENGTH_BYTES + int.from_bytes(file[:LENGTH_BYTES], "little")]


def strict(header: bytes) -> Header | None:
    """Return what the strict reader reads; None where it refuses."""
    try:
        return strict_header(header, **LIMITS)
    except FileRefused:
        return None


def assert_of_one_mind(header: bytes) -> None:
    """Let the fast reader read only what the strict one reads, with the same meaning."""
    found = canonical_header(header)

    assert found is None or found == strict(header)


@pytest.mark.parametrize("text", TEXTS)
def test_what_the_official_library_writes_is_canonical(text: str) -> None:
    """A header as trainers save it takes the fast way, whatever its metadata holds."""
    tensors = {name: np.zeros((3, 2), "f2") for name in ("a.lora_down.weight", "é", "b\\")}
    header = header_of(save(tensors, {"key": text, "comment" + text: "x"}))

    found = canonical_header(header)
    assert found == strict(header)
    assert found is not None
    assert found.entries.keys() == tensors.keys()
    assert found.metadata["key"] == text


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f'{{"a":{ENTRY},"a":{ENTRY}}}', id="a tensor twice"),
        pytest.param(f'{{{METADATA},{METADATA},"a":{ENTRY}}}', id="metadata twice"),
        pytest.param(f'{{{METADATA},"a":{ENTRY},{METADATA}}}', id="metadata again at the end"),
        pytest.param(f'{{{METADATA},"a":{ENTRY},"__metadata__":{ENTRY}}}', id="metadata a tensor"),
        pytest.param(f'{{"a":{ENTRY},{METADATA}}}', id="metadata last"),
        pytest.param(f'{{"__metadata__":{{"k":"1","k":"2"}},"a":{ENTRY}}}', id="a key twice"),
        pytest.param(f'{{"__metadata__":{{"k":1}},"a":{ENTRY}}}', id="a number in metadata"),
        pytest.param(f'{{"a":{ENTRY[:-1]},"dtype":"F16"}}}}', id="a field twice"),
        pytest.param(f'{{"a":{ENTRY[:-1]},"more":1}}}}', id="a field too many"),
        pytest.param(f'{{"\\u0061":{ENTRY}}}', id="an escape for nothing"),
        pytest.param(f'{{"\\ud800":{ENTRY}}}', id="half a surrogate pair"),
        pytest.param(f'{{"a":{ENTRY}}} {{}}', id="a second text"),
        pytest.param(f' {{"a":{ENTRY}}}', id="a space before"),
        pytest.param(f'{{"a": {ENTRY}}}', id="a space inside"),
        pytest.param(f'{{"a":{ENTRY}}}\n', id="a line's end"),
        pytest.param(f'{{"a":{ENTRY.replace("[2]", "[2.0]")}}}', id="a float"),
        pytest.param(f'{{"a":{ENTRY.replace("[2]", "[2e0]")}}}', id="an exponent"),
        pytest.param(f'{{"a":{ENTRY.replace("[2]", "[true]")}}}', id="a boolean"),
        pytest.param(f'{{"a":{ENTRY.replace("[0,", "[-0,")}}}', id="minus zero"),
        pytest.param(f'{{"a":{ENTRY.replace("[2]", "[-2]")}}}', id="a negative number"),
        pytest.param(f'{{"a":{ENTRY.replace("[2]", "[1000000000000000]")}}}', id="16 digits"),
        pytest.param('{"a":' + "[" * 100_000, id="a deep text"),
        pytest.param("", id="nothing"),
    ],
)
def test_a_text_with_room_for_doubt_takes_the_strict_way(text: str) -> None:
    """Whatever two readers could read differently is left to the one that says why."""
    assert canonical_header(text.encode()) is None


def test_bytes_that_are_no_utf8_take_the_strict_way() -> None:
    """Text in another encoding is not guessed at."""
    assert canonical_header(f'{{"\xff":{ENTRY}}}'.encode("latin-1")) is None


@pytest.mark.parametrize("limit", [{"max_objects": 3}, {"max_strings": 12}])
def test_the_limits_are_those_of_the_strict_way(limit: dict[str, int]) -> None:
    """A canonical header may have no more entries and strings than any other."""
    header = encoded({"__metadata__": {"k": "v"}, "a": entry(), "b": entry(begin=4, end=8)})

    assert canonical_header(header) is not None
    assert read_header(header, **LIMITS) == canonical_header(header)
    with pytest.raises(FileRefused):
        read_header(header, **{**LIMITS, **limit})


@pytest.mark.parametrize("name", [*TRICKS, *ODD_BUT_VALID])
def test_hostile_and_odd_headers_are_read_alike(name: str) -> None:
    """No trick works on the fast reader that does not work on the strict one."""
    build = TRICKS[name].build if name in TRICKS else ODD_BUT_VALID[name]

    assert_of_one_mind(header_of(build()))


@settings(max_examples=600, deadline=None)
@given(tables(), st.data())
def test_drawn_headers_are_read_alike(
    drawn: tuple[dict[str, object], int], data: st.DataObject
) -> None:
    """Canonical or nearly so: the two readers agree, or the fast one leaves it to the other."""
    compact = partial(json.dumps, separators=(",", ":"), ensure_ascii=False)
    fields, _ = drawn
    metadata = {key: text for key, text in fields.items() if key == "__metadata__"}
    header = compact({**metadata, **fields}).encode("utf-8", "surrogatepass")

    assert_of_one_mind(header)
    assert_of_one_mind(data.draw(mutated(header)))
