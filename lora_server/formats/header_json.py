"""The JSON of a header in the types that it has to have: fast where its bytes leave no doubt.

A header is canonical when writing what was read gives the same bytes. Such a text has no
duplicate key, no odd number and no odd escape, so there is nothing left that another parser
could read otherwise. Trained files are canonical; all others are read by `strict_json`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import msgspec

from lora_server.errors import FileRefused
from lora_server.formats.excerpt import excerpt
from lora_server.formats.strict_json import MAX_DIGITS, parse_object

METADATA = "__metadata__"

_FIELDS = frozenset({"dtype", "shape", "data_offsets"})
_Count = Annotated[int, msgspec.Meta(ge=0, lt=10**MAX_DIGITS)]


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What a header says of one tensor; in the right types, and nothing else is checked."""

    dtype: str
    shape: tuple[_Count, ...]
    data_offsets: tuple[_Count, _Count]


class Header(NamedTuple):
    """A header's entries by name, and its metadata."""

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]


class _Preamble(msgspec.Struct):
    metadata: dict[str, str] = msgspec.field(default_factory=dict, name=METADATA)


_decode_preamble = msgspec.json.Decoder(_Preamble).decode
_decode_entries = msgspec.json.Decoder(dict[str, Entry]).decode
_encode = msgspec.json.Encoder().encode


def read_header(encoded: bytes, *, max_objects: int, max_strings: int) -> Header:
    """Return the header that `encoded` holds; raises FileRefused as `parse_object` does."""
    header = canonical_header(encoded)
    if header is None or not _fits(header, max_objects, max_strings):
        return strict_header(encoded, max_objects=max_objects, max_strings=max_strings)
    return header


def _fits(header: Header, max_objects: int, max_strings: int) -> bool:
    """Tell whether the text surely has no more objects and strings than it may."""
    entries, texts = len(header.entries), len(header.metadata)
    return entries + 2 <= max_objects and 5 * entries + 2 * texts + 1 <= max_strings


def canonical_header(encoded: bytes) -> Header | None:
    """Return the header of a canonical text; None where `strict_header` has to look at it.

    Metadata may be missing or come first; spaces may follow the whole.
    """
    text = encoded.rstrip(b" ")
    try:
        metadata = _decode_preamble(text).metadata
        before = b'{"%b":%b,' % (METADATA.encode(), _encode(metadata))
        rest = b"{" + text[len(before) :] if text.startswith(before) else text
        entries = _decode_entries(rest)
    except (ValueError, RecursionError):  # whatever is wrong, the strict reader says it
        return None
    if METADATA in entries or _encode(entries) != rest:
        return None
    return Header(entries, metadata)


def strict_header(encoded: bytes, *, max_objects: int, max_strings: int) -> Header:
    """Return the header of any text that has one reading; raises FileRefused."""
    fields = parse_object(encoded, max_objects=max_objects, max_strings=max_strings)
    metadata = _metadata(fields.pop(METADATA, {}))
    return Header({name: _entry(name, value) for name, value in fields.items()}, metadata)


def corrupt(name: str, flaw: str) -> FileRefused:
    """Return the refusal of a header for what it says of one tensor."""
    return FileRefused("lora_corrupt", f"tensor {excerpt(name)} {flaw}")


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise FileRefused("lora_corrupt", f"{METADATA} is not an object")
    for key, text in value.items():
        if not isinstance(text, str):
            raise FileRefused("lora_corrupt", f"{METADATA} has no string for {excerpt(key)}")
    return value


def _entry(name: str, value: Any) -> Entry:
    if not isinstance(value, dict) or value.keys() != _FIELDS:
        raise corrupt(name, "has other fields than dtype, shape and data_offsets")
    if not isinstance(value["dtype"], str):
        raise corrupt(name, "has a dtype that is not a string")
    shape, offsets = (_integers(name, value[field], field) for field in ("shape", "data_offsets"))
    match offsets:
        case (begin, end):
            return Entry(value["dtype"], shape, (begin, end))
    raise corrupt(name, "has data_offsets that are not [begin, end]")


def _integers(name: str, value: Any, field: str) -> tuple[int, ...]:
    # type() and not isinstance(): true and false are instances of int.
    if not isinstance(value, list) or any(type(item) is not int for item in value):
        raise corrupt(name, f"has a {field} that is not a list of integers")
    return tuple(value)
