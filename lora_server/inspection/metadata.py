"""Metadata values under bounds: what a stranger wrote is cut before it is kept or parsed."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

MAX_TEXT_CHARS = 500
# Tag tables of large data sets exceed 1 MiB; beyond this nobody reads them.
MAX_JSON_CHARS = 8 * 1024 * 1024
# Larger numbers are not counts of anything, and cannot all become floats or JSON numbers.
MAX_COUNT = 2**53
NOTHING_SAID = frozenset({"", "none", "null", "nan"})


def text(value: object, *, max_chars: int = MAX_TEXT_CHARS) -> str:
    """Return printable text on one line, cut to size; empty for what is not text."""
    if not isinstance(value, str):
        return ""
    # Lone surrogates survive JSON's escapes and break every encoder after it.
    shown = value[: 2 * max_chars].encode("utf-8", "replace").decode()
    if not shown.isprintable():
        shown = "".join(char if char.isprintable() else " " for char in shown)
    return " ".join(shown.split())[:max_chars]


def said(metadata: Mapping[str, str], key: str) -> str:
    """Return the text under a key; trainers write "None" for nothing."""
    value = text(metadata.get(key))
    return "" if value.lower() in NOTHING_SAID else value


def parsed(value: object) -> Any:
    """Return JSON held in a string; None where there is none, or it is too long or too deep."""
    if not isinstance(value, str) or len(value) > MAX_JSON_CHARS:
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def table(value: object) -> dict[str, Any]:
    """Return a parsed JSON object; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def rows(value: object) -> Iterator[dict[str, Any]]:
    """Yield the objects of a parsed JSON list; nothing for anything else."""
    return (row for row in (value if isinstance(value, list) else []) if isinstance(row, dict))


def count(value: object) -> int | None:
    """Return a number of things; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= MAX_COUNT else None


def scalar(value: object) -> str:
    """Return a JSON scalar as text; empty for containers, null and absurd numbers."""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        return str(value) if abs(value) <= MAX_COUNT else ""
    return str(value) if isinstance(value, float) else text(value)
