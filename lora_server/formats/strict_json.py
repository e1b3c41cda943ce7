"""JSON that has one reading only: what a model file's header may be written in.

Two parsers may differ on duplicate keys, on numbers past 2**53, on NaN and on lone surrogates.
All of these are refused, and the cost of a hostile text is bounded before it is parsed.
"""

import json
import re
from typing import Any

from lora_server.errors import FileRefused
from lora_server.formats.excerpt import excerpt

# Every integer that fits is below 2**53: the same number to a reader that only knows doubles.
MAX_DIGITS = 15

_SURROGATE = re.compile(r"[\ud800-\udfff]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def parse_object(encoded: bytes, *, max_objects: int, max_strings: int) -> dict[str, Any]:
    """Return the object that `encoded` holds: objects in objects, lists only innermost.

    Raises FileRefused, with `lora_duplicate_key` for a key that an object gives twice,
    `lora_header_too_large` past `max_objects` or `max_strings`, and else `lora_corrupt`.
    Numbers come out as non-negative integers only. Strings may still hold a lone surrogate.
    """
    if not encoded.startswith(b"{"):
        raise FileRefused("lora_corrupt", "the header does not begin with '{'")
    _bound_structure(encoded, max_objects=max_objects, max_strings=max_strings)
    try:
        parsed: dict[str, Any] = json.loads(
            encoded.decode(),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_no_number,
            parse_constant=_no_number,
        )
    except UnicodeDecodeError as error:
        where = f"the header is not UTF-8 at its byte {error.start}"
        raise FileRefused("lora_corrupt", where) from error
    except json.JSONDecodeError as error:
        where = f"the header is not JSON at its character {error.pos}: {excerpt(error.msg)}"
        raise FileRefused("lora_corrupt", where) from error
    return parsed


def has_surrogate(text: str) -> bool:
    r"""Tell whether `text`, from an escape like \ud800, cannot be written as UTF-8."""
    # Text that is ASCII says so at once, whatever its length.
    return not text.isascii() and _SURROGATE.search(text) is not None


def _bound_structure(encoded: bytes, *, max_objects: int, max_strings: int) -> None:
    """Refuse, before any value is built, what would be deep or many."""
    unescaped = encoded.replace(rb"\\", b"").replace(rb"\"", b"")
    if unescaped.count(b'"') > 2 * max_strings:
        raise FileRefused("lora_header_too_large", f"the header has over {max_strings} strings")
    outside_strings = b"".join(unescaped.split(b'"')[::2])
    brackets = outside_strings.translate(None, delete=_NOT_BRACKETS)
    if brackets.count(b"{") > max_objects:
        raise FileRefused("lora_too_many_tensors", f"the header has over {max_objects} entries")
    # Innermost first: lists, the objects around them, the one object around those.
    for pair in (b"[]", b"{}", b"{}"):
        brackets = brackets.replace(pair, b"")
    if brackets:
        raise FileRefused("lora_corrupt", "the header nests too deep, or a bracket is unmatched")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    built = dict(pairs)
    if len(built) != len(pairs):
        raise FileRefused("lora_duplicate_key", f"the header gives {_repeated(pairs)} twice")
    return built


def _repeated(pairs: list[tuple[str, Any]]) -> str:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            return excerpt(key)
        seen.add(key)
    return "a key"


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS or digits.startswith("-"):
        return _no_number(digits)
    return int(digits)


def _no_number(text: str) -> int:
    message = f"the header has the number {excerpt(text)}, not an integer from 0 to 10**15 - 1"
    raise FileRefused("lora_corrupt", message)
