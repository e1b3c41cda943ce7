"""Zip archives as torch's writer lays them out, with a knob for every field that can lie."""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

ALIGNMENT = 64


@dataclass(frozen=True)
class Part:
    """One member; what is None is written as torch writes it."""

    name: str
    data: bytes
    flags: int = 0x808
    method: int = 0
    crc: int | None = None  # in the directory and the descriptor
    attributes: int = 0
    comment: bytes = b""
    disk: int = 0
    packed_size: int | None = None  # in the directory
    size: int | None = None  # in the directory
    header: int | None = None  # in the directory
    extra: bytes = b""  # in the directory
    local_name: str | None = None
    local_flags: int | None = None
    local_method: int | None = None
    local_crc: int = 0
    local_sizes: tuple[int, int] = (0, 0)
    local_extra: bytes | None = None
    local_magic: bytes = b"PK\3\4"
    descriptor: bytes | None = None
    gap: bytes = b""  # behind the member

    @property
    def real_crc(self) -> int:
        """The checksum that the archive declares."""
        return zlib.crc32(self.data) if self.crc is None else self.crc


@dataclass(frozen=True)
class End:
    """The records behind the members; what is None is written as torch writes it."""

    comment: bytes = b""
    comment_bytes: int | None = None
    tail: bytes = b""
    before: bytes = b""  # between the last member and the directory
    inside: bytes = b""  # counted as part of the directory, behind its entries
    padding: bytes = b""  # between the directory and its end records
    count: int | None = None
    short_count: int | None = None
    disk: int = 0
    zip64: bool = True
    locator_offset: int | None = None
    record_size: int = 44
    begin: int | None = None


def archive(parts: Sequence[Part], end: End | None = None) -> bytes:
    """Return the archive of the parts, in order, and its end records."""
    end = end or End()
    out = bytearray()
    directory = b""
    for part in parts:
        directory += _central(part, len(out))
        out += _local(part, len(out))
    out += end.before
    directory += end.inside
    begin = len(out)
    out += directory + end.padding
    return bytes(out) + _end(end, begin, len(out), len(directory), len(parts)) + end.tail


def padding(at: int, name: str) -> bytes:
    """Return the extra field that moves a member's data to torch's alignment."""
    begin = at + 30 + len(name.encode()) + 4
    nbytes = -begin % ALIGNMENT
    return b"FB" + struct.pack("<H", nbytes) + b"Z" * nbytes


def _local(part: Part, at: int) -> bytes:
    name = (part.name if part.local_name is None else part.local_name).encode()
    extra = padding(at, part.name) if part.local_extra is None else part.local_extra
    flags = part.flags if part.local_flags is None else part.local_flags
    method = part.method if part.local_method is None else part.local_method
    packed, size = part.local_sizes
    head = struct.pack(
        "<4s5H3L2H", part.local_magic, 0, flags, method, 0, 0, part.local_crc, packed, size,
        len(name), len(extra),
    )  # fmt: skip
    return head + name + extra + part.data + _descriptor(part) + part.gap


def _descriptor(part: Part) -> bytes:
    if part.descriptor is not None or not part.flags & 0x8:
        return part.descriptor or b""
    return struct.pack("<4s3L", b"PK\7\x08", part.real_crc, len(part.data), len(part.data))


def _central(part: Part, at: int) -> bytes:
    name = part.name.encode()
    size = len(part.data) if part.size is None else part.size
    packed = len(part.data) if part.packed_size is None else part.packed_size
    header = at if part.header is None else part.header
    head = struct.pack(
        "<4s6H3L5H2L", b"PK\1\2", 0, 0, part.flags, part.method, 0, 0, part.real_crc, packed, size,
        len(name), len(part.extra), len(part.comment), part.disk, 0, part.attributes, header,
    )  # fmt: skip
    return head + name + part.extra + part.comment


def _end(end: End, begin: int, behind: int, nbytes: int, real_count: int) -> bytes:
    count = real_count if end.count is None else end.count
    short = count if end.short_count is None else end.short_count
    begin = begin if end.begin is None else end.begin
    wide = b""
    if end.zip64:
        record = ("<4sQ2H2L4Q", b"PK\6\6", end.record_size, 0x031E, 45, end.disk, 0)
        wide = struct.pack(*record, count, count, nbytes, begin)
        offset = behind if end.locator_offset is None else end.locator_offset
        wide += struct.pack("<4sLQL", b"PK\6\7", 0, offset, 1)
    comment_bytes = len(end.comment) if end.comment_bytes is None else end.comment_bytes
    numbers = (end.disk, 0, short, short, nbytes, begin, comment_bytes)
    return wide + struct.pack("<4s4H2LH", b"PK\5\6", *numbers) + end.comment
