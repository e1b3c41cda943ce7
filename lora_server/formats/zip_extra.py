"""Extra fields of zip headers: zip64 sizes and the padding that aligns torch's storages."""

import struct

from lora_server.errors import FileRefused
from lora_server.formats.refusals import CORRUPT, ZIP_AMBIGUOUS

ZIP64 = 0x0001
PADDING = 0x4246  # "FB", by which torch.save moves a member's data to its alignment

SATURATED = 0xFFFFFFFF  # a 32-bit field that says: look in the zip64 extra

_FIELD = struct.Struct("<2H")


def fields(extra: bytes, allowed: frozenset[int]) -> dict[int, bytes]:
    """Return the extra's fields by id; it must parse exactly, with `allowed` ids once each."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(extra):
        if len(extra) - at < _FIELD.size:
            raise FileRefused(CORRUPT, "a zip extra field is cut short")
        tag, nbytes = _FIELD.unpack_from(extra, at)
        at += _FIELD.size + nbytes
        if at > len(extra):
            raise FileRefused(CORRUPT, "a zip extra field runs past its header")
        _check_field(tag, extra[at - nbytes : at], allowed, found)
        found[tag] = extra[at - nbytes : at]
    return found


def _check_field(tag: int, value: bytes, allowed: frozenset[int], found: dict[int, bytes]) -> None:
    if tag not in allowed or tag in found:
        reason = f"zip extra field 0x{tag:04x} is not one that torch.save writes there"
        raise FileRefused(ZIP_AMBIGUOUS, reason)
    if tag == PADDING and value.strip(b"Z"):
        raise FileRefused(ZIP_AMBIGUOUS, "alignment padding in a zip header holds other bytes")


def wide(value: bytes, count: int) -> tuple[int, ...]:
    """Return exactly `count` 64-bit numbers of a zip64 field."""
    if len(value) != 8 * count:
        raise FileRefused(ZIP_AMBIGUOUS, "a zip64 field does not hold just what it must")
    return struct.unpack(f"<{count}Q", value)


def widened(narrow: tuple[int, ...], extra: dict[int, bytes]) -> tuple[int, ...]:
    """Return a central entry's numbers with each saturated one taken from its zip64 field."""
    count = narrow.count(SATURATED)
    if (count > 0) != (ZIP64 in extra):
        raise FileRefused(ZIP_AMBIGUOUS, "a zip64 field is missing, or one is there for nothing")
    values = iter(wide(extra.get(ZIP64, b""), count))
    return tuple(next(values) if number == SATURATED else number for number in narrow)
