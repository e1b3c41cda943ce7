"""A zip archive of stored members that every reader must see the same way, or none at all.

Local headers, data and descriptors of the members fill the archive from its first byte to the
central directory, and repeat what the directory says, so no reader can be led elsewhere.
"""

import struct
from dataclasses import dataclass

from isal import isal_zlib

from lora_server.errors import FileRefused
from lora_server.formats.excerpt import excerpt
from lora_server.formats.refusals import CORRUPT, ZIP_AMBIGUOUS
from lora_server.formats.source import Read, chunks, exactly
from lora_server.formats.zip_directory import HAS_DESCRIPTOR, Entry, find_directory, read_entries
from lora_server.formats.zip_extra import PADDING, SATURATED, ZIP64, fields, wide

_LOCAL = struct.Struct("<4s5H3L2H")
_DESCRIPTOR = struct.Struct("<4s3L")
_DESCRIPTOR64 = struct.Struct("<4sL2Q")


@dataclass(frozen=True, slots=True)
class Member:
    """One member of the archive: uncompressed bytes at a place in the file."""

    name: str
    begin: int  # offset of its data in the file
    size: int  # bytes
    crc: int  # declared CRC-32; `check_crc` compares it


def read_members(read: Read, size: int) -> tuple[Member, ...]:
    """Return the members in file order, their CRCs unchecked; refuse any second reading."""
    directory = find_directory(read, size)
    entries = sorted(read_entries(read, directory), key=lambda entry: entry.header)
    _check_unique(entries)
    members: list[Member] = []
    at = 0
    for entry in entries:
        if entry.header != at:
            reason = f"bytes hidden or shared before zip member {excerpt(entry.name)}"
            raise FileRefused(ZIP_AMBIGUOUS, reason)
        member, at = _member(read, entry, directory.begin)
        members.append(member)
    if at != directory.begin:
        raise FileRefused(ZIP_AMBIGUOUS, "bytes hidden between the zip members and the directory")
    return tuple(members)


def check_crc(read: Read, member: Member) -> None:
    """Refuse the file unless the member's bytes have the CRC-32 that it declares."""
    crc = 0
    for chunk in chunks(read, member.begin, member.size):
        crc = isal_zlib.crc32(chunk, crc)  # a third of the time of zlib's
    if crc != member.crc:
        raise FileRefused(CORRUPT, f"zip member {excerpt(member.name)} has a wrong checksum")


def _check_unique(entries: list[Entry]) -> None:
    seen: set[str] = set()
    for entry in entries:
        if entry.name.casefold() in seen:
            raise FileRefused(ZIP_AMBIGUOUS, f"two zip members are named {excerpt(entry.name)}")
        seen.add(entry.name.casefold())


def _member(read: Read, entry: Entry, limit: int) -> tuple[Member, int]:
    """Return the member and where its last byte ends, at most `limit`."""
    head = exactly(read, entry.header, _LOCAL.size)
    magic, _, flags, method, _, _, crc, packed, size, name_bytes, extra_bytes = _LOCAL.unpack(head)
    if magic != b"PK\3\4":
        raise FileRefused(ZIP_AMBIGUOUS, f"zip member {excerpt(entry.name)} has no local header")
    tail = exactly(read, entry.header + _LOCAL.size, name_bytes + extra_bytes)
    if (tail[:name_bytes], flags, method) != (entry.raw_name, entry.flags, 0):
        raise _disagreement(entry)
    extra = fields(tail[name_bytes:], frozenset({ZIP64, PADDING}))
    _check_local(entry, crc, (size, packed), extra.get(ZIP64))
    begin = entry.header + _LOCAL.size + len(tail)
    end = begin + entry.size
    if flags & HAS_DESCRIPTOR:
        end += _check_descriptor(read, entry, end, wide_sizes=ZIP64 in extra)
    if end > limit:
        raise FileRefused(ZIP_AMBIGUOUS, f"zip member {excerpt(entry.name)} runs past its end")
    return Member(entry.name, begin, entry.size, entry.crc), end


def _check_local(entry: Entry, crc: int, sizes: tuple[int, int], zip64: bytes | None) -> None:
    """Compare a local header's checksum and sizes with the directory's.

    Where a descriptor follows the data they may be zero, as miniz writes them.
    """
    numbers = [(crc, entry.crc)]
    if zip64 is None or entry.flags & HAS_DESCRIPTOR:
        numbers += [(size, entry.size) for size in sizes]
    elif sizes != (SATURATED, SATURATED):
        raise _disagreement(entry)
    if zip64 is not None:
        numbers += _zip64_numbers(entry, zip64)
    for local, central in numbers:
        if local != central and (local or not entry.flags & HAS_DESCRIPTOR):
            raise _disagreement(entry)


def _zip64_numbers(entry: Entry, zip64: bytes) -> list[tuple[int, int]]:
    """Pair the zip64 numbers of a local header with the directory's.

    miniz, which is torch's writer, puts the offset in as well once it is past 4 GiB.
    """
    sizes, offset = (entry.size,) * 2, (entry.header,)
    layouts = (offset, sizes, sizes + offset) if entry.flags & HAS_DESCRIPTOR else (sizes,)
    wanted = next((layout for layout in layouts if len(zip64) == 8 * len(layout)), None)
    if wanted is None:
        raise _disagreement(entry)
    return list(zip(wide(zip64, len(wanted)), wanted, strict=True))


def _check_descriptor(read: Read, entry: Entry, at: int, *, wide_sizes: bool) -> int:
    """Compare the descriptor at `at` with the directory, and return its length."""
    layout = _DESCRIPTOR64 if wide_sizes else _DESCRIPTOR
    found = layout.unpack(exactly(read, at, layout.size))
    if found != (b"PK\7\x08", entry.crc, entry.size, entry.size):
        raise _disagreement(entry)
    return layout.size


def _disagreement(entry: Entry) -> FileRefused:
    reason = f"the headers of zip member {excerpt(entry.name)} disagree about it"
    return FileRefused(ZIP_AMBIGUOUS, reason)
