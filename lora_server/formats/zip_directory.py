"""The end of a zip archive: its end records and its central directory, read one way only."""

import stat
import struct
from dataclasses import dataclass

from lora_server.errors import FileRefused
from lora_server.formats.excerpt import excerpt
from lora_server.formats.refusals import CORRUPT, TOO_COMPLEX, ZIP_AMBIGUOUS
from lora_server.formats.source import Read, exactly
from lora_server.formats.zip_extra import SATURATED, ZIP64, fields, widened

MAX_MEMBERS = 100_000
MAX_DIRECTORY_BYTES = 64 * 1024 * 1024

HAS_DESCRIPTOR = 0x8
IS_UTF8 = 0x800

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_END64_REST = 44  # bytes of a zip64 end record after its own length field
_ENTRY = struct.Struct("<4s6H3L5H2L")
_DOS_FOLDER = 0x10
_MAX_COMMENT_BYTES = 0xFFFF  # how far before the end lenient readers search for the end record


@dataclass(frozen=True, slots=True)
class Directory:
    """Where the central directory lies and how many entries it declares."""

    begin: int
    nbytes: int
    count: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One member as the central directory declares it."""

    raw_name: bytes
    name: str
    flags: int
    crc: int
    size: int
    header: int  # offset of the local header


def read_entries(read: Read, directory: Directory) -> list[Entry]:
    """Return the entries in directory order; they fill it to the byte."""
    raw = exactly(read, directory.begin, directory.nbytes)
    entries: list[Entry] = []
    at = 0
    for _ in range(directory.count):
        entry, at = _entry(raw, at)
        entries.append(entry)
    if at != len(raw):
        raise FileRefused(ZIP_AMBIGUOUS, "the zip directory holds more than the entries it counts")
    return entries


def find_directory(read: Read, size: int) -> Directory:
    """Locate the central directory from end records that lie directly behind it."""
    if size < _END.size:
        raise FileRefused(CORRUPT, "the zip archive is cut short")
    end_at = size - _END.size
    end = _END.unpack(exactly(read, end_at, _END.size))
    if end[0] != b"PK\5\6" or end[7]:
        raise _no_end(read, size)
    locator_at = end_at - _LOCATOR.size
    has_locator = locator_at >= 0 and read(locator_at, 4) == b"PK\6\7"
    behind, numbers = _zip64_end(read, locator_at, end) if has_locator else (end_at, end[1:7])
    return _directory(behind, numbers)


def _no_end(read: Read, size: int) -> FileRefused:
    searched = min(size, _END.size + _MAX_COMMENT_BYTES)
    if b"PK\5\6" in read(size - searched, searched):
        return FileRefused(ZIP_AMBIGUOUS, "bytes follow the end record of the zip archive")
    return FileRefused(CORRUPT, "the zip archive is cut short: its end record is missing")


def _directory(behind: int, numbers: tuple[int, ...]) -> Directory:
    disk, first_disk, here, count, nbytes, begin = numbers
    if disk or first_disk or here != count:
        raise FileRefused(ZIP_AMBIGUOUS, "the zip archive claims to span several disks")
    if begin + nbytes != behind:
        raise FileRefused(ZIP_AMBIGUOUS, "the zip directory does not end where its end begins")
    if count > MAX_MEMBERS or nbytes > MAX_DIRECTORY_BYTES:
        reason = f"more than {MAX_MEMBERS} zip members or {MAX_DIRECTORY_BYTES} directory bytes"
        raise FileRefused(TOO_COMPLEX, reason)
    return Directory(begin=begin, nbytes=nbytes, count=count)


def _zip64_end(read: Read, locator_at: int, end: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """Return where the zip64 end record begins and its numbers, which the short record repeats."""
    record_at = locator_at - _END64.size
    locator = _LOCATOR.unpack(exactly(read, locator_at, _LOCATOR.size))
    if record_at < 0 or locator[1:] != (0, record_at, 1):
        raise FileRefused(ZIP_AMBIGUOUS, "the zip64 locator does not point right before itself")
    record = _END64.unpack(exactly(read, record_at, _END64.size))
    if record[:2] != (b"PK\6\6", _END64_REST):
        raise FileRefused(ZIP_AMBIGUOUS, "the zip64 end record is not in its place")
    widths = (0xFFFF,) * 4 + (SATURATED,) * 2
    for short, number, top in zip(end[1:7], record[4:], widths, strict=True):
        if short not in {number, top}:
            raise FileRefused(ZIP_AMBIGUOUS, "the two zip end records disagree")
    return record_at, record[4:]


def _entry(raw: bytes, at: int) -> tuple[Entry, int]:
    head = raw[at : at + _ENTRY.size]
    if len(head) != _ENTRY.size or head[:4] != b"PK\1\2":
        raise FileRefused(ZIP_AMBIGUOUS, "the zip directory holds fewer entries than it counts")
    (_, _, _, flags, method, _, _, crc, packed, size, *rest) = _ENTRY.unpack(head)
    (name_bytes, extra_bytes, comment_bytes, disk, _, attributes, header) = rest
    at += _ENTRY.size
    raw_name, extra = raw[at : at + name_bytes], raw[at + name_bytes :][:extra_bytes]
    if len(raw_name) + len(extra) != name_bytes + extra_bytes:
        raise FileRefused(CORRUPT, "the zip directory is cut short")
    name = _name(raw_name, flags)
    if comment_bytes or disk:
        raise FileRefused(ZIP_AMBIGUOUS, f"zip member {excerpt(name)} has a comment or a disk")
    _check_plain(name, flags, method, attributes)
    numbers = widened((size, packed, header), fields(extra, frozenset({ZIP64})))
    if numbers[0] != numbers[1]:
        raise FileRefused(CORRUPT, f"zip member {excerpt(name)} is stored in another size")
    entry = Entry(raw_name, name, flags, crc, size=numbers[0], header=numbers[2])
    return entry, at + name_bytes + extra_bytes


def _name(raw: bytes, flags: int) -> str:
    try:
        name = raw.decode("utf-8" if flags & IS_UTF8 else "ascii")
    except UnicodeDecodeError:
        reason = f"the encoding of zip member name {excerpt(raw)} is not the declared one"
        raise FileRefused(ZIP_AMBIGUOUS, reason) from None
    if not name.isprintable():
        raise FileRefused(ZIP_AMBIGUOUS, f"zip member name {excerpt(name)} is not printable")
    return name


def _check_plain(name: str, flags: int, method: int, attributes: int) -> None:
    kind = stat.S_IFMT(attributes >> 16)
    if kind not in {0, stat.S_IFREG} or attributes & _DOS_FOLDER:
        raise FileRefused(ZIP_AMBIGUOUS, f"zip member {excerpt(name)} is no regular file")
    if flags & ~(HAS_DESCRIPTOR | IS_UTF8):
        reason = f"zip member {excerpt(name)} has flags 0x{flags:x}: encrypted, patched or masked"
        raise FileRefused(ZIP_AMBIGUOUS, reason)
    if method:
        reason = f"zip member {excerpt(name)} is compressed, which torch.save never does"
        raise FileRefused(ZIP_AMBIGUOUS, reason)
