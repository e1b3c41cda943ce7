"""Frozen dataclasses to JSON's plain data."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any


def dump(record: object) -> Any:
    """Return the record as dicts, lists, strings, numbers, booleans and None."""
    if is_dataclass(record):
        return {field.name: dump(getattr(record, field.name)) for field in fields(record)}
    if isinstance(record, tuple):
        return [dump(item) for item in record]
    if isinstance(record, Mapping):
        return {str(key): dump(value) for key, value in record.items()}
    return str(record) if isinstance(record, str) else record
