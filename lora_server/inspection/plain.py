"""Frozen dataclasses to JSON's plain data and back, led by their type hints."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


def dump(record: object) -> Any:
    """Return the record as dicts, lists, strings, numbers, booleans and None."""
    if is_dataclass(record):
        return {field.name: dump(getattr(record, field.name)) for field in fields(record)}
    if isinstance(record, tuple):
        return [dump(item) for item in record]
    if isinstance(record, Mapping):
        return {str(key): dump(value) for key, value in record.items()}
    return str(record) if isinstance(record, str) else record


def load(kind: type[T], data: object) -> T:
    """Restore a record of this type; ValueError where the data does not fit it."""
    return cast("T", _load(kind, data))


def _load(kind: Any, data: object) -> Any:
    if isinstance(kind, UnionType):
        return _load_optional(kind, data)
    if is_dataclass(kind):
        return _load_record(cast("type", kind), data)
    origin = get_origin(kind)
    if origin is tuple and isinstance(data, list | tuple):
        return tuple(_load(get_args(kind)[0], item) for item in data)
    if origin is Mapping and isinstance(data, Mapping):
        return {str(key): _load(get_args(kind)[1], value) for key, value in data.items()}
    return _load_scalar(kind, data)


def _load_optional(kind: UnionType, data: object) -> Any:
    if data is None and NoneType in get_args(kind):
        return None
    inner = next(arg for arg in get_args(kind) if arg is not NoneType)
    return _load(inner, data)


def _load_record(kind: type, data: object) -> Any:
    hints = _hints(kind)
    if not isinstance(data, Mapping) or not hints.keys() <= data.keys():
        raise ValueError(f"not the plain data of {kind.__name__}")
    return kind(**{name: _load(hint, data[name]) for name, hint in hints.items()})


def _load_scalar(kind: Any, data: object) -> Any:
    if kind is float and type(data) in (int, float):
        return data
    if isinstance(kind, type) and issubclass(kind, str) and isinstance(data, str):
        return kind(data)
    if type(data) is kind:
        return data
    raise ValueError(f"{type(data).__name__} where {kind} belongs")


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
