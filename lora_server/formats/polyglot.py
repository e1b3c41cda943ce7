"""A file that is two things at once is refused: another reader would see the other one.

Tensor bytes are free, so a safetensors file can carry a whole zip archive that ends where the
file ends, or have the length of its header read as the first byte of a tar member's name.
"""

import re
import struct

from lora_server.errors import FileRefused

TAR_BLOCK_BYTES = 512
# An end record of a zip archive lies in the last 22 bytes before a comment of 65,535 at most.
ZIP_TAIL_BYTES = 65_535 + 22

_ZIP_END = struct.Struct("<4s4H2LH")
_ZIP64_LOCATOR_BYTES = 20
_TAR_SUM = slice(148, 156)
_OCTAL = re.compile(rb"[\s\0]*(?:0o)?([0-7_]+)")


def refuse_foreign_head(head: bytes) -> None:
    """Raise FileRefused `lora_polyglot` for a head that a tar, zip or program loader takes.

    A tar archive is recognised once `head` has 512 bytes.
    """
    if head.startswith(b"PK\x03\x04"):
        raise FileRefused("lora_polyglot", "the file begins as a zip archive does (PK 3 4)")
    if head.startswith(b"MZ"):
        raise FileRefused("lora_polyglot", "the file begins as a Windows program does (MZ)")
    if is_tar(head):
        raise FileRefused("lora_polyglot", "the first 512 bytes are also a valid tar header")


def is_tar(head: bytes) -> bool:
    """Tell whether `head` begins with a tar header whose checksum a lenient reader accepts."""
    block = head[:TAR_BLOCK_BYTES]
    if len(block) < TAR_BLOCK_BYTES or not block[0]:
        return False
    rest = block[: _TAR_SUM.start] + b" " * 8 + block[_TAR_SUM.stop :]
    # Old writers summed signed characters.
    signed = sum(rest) - 256 * sum(byte > 127 for byte in rest)  # noqa: PLR2004
    return _tar_sum(block[_TAR_SUM]) in {sum(rest), signed}


def refuse_zip_tail(tail: bytes, *, file_size: int) -> None:
    """Raise FileRefused `lora_polyglot` when a zip reader could find an archive.

    `tail` is the last `ZIP_TAIL_BYTES` of the file, or all of a shorter file.
    """
    tail_begin = file_size - len(tail)
    at = tail.find(b"PK\x05\x06")
    while at >= 0:
        if _ends_a_zip(tail, at, tail_begin + at):
            where = f"a zip archive ends inside the file, at byte {tail_begin + at}"
            raise FileRefused("lora_polyglot", where)
        at = tail.find(b"PK\x05\x06", at + 1)


def _tar_sum(field: bytes) -> int | None:
    if field[0] & 0x80:
        return int.from_bytes(field[1:])
    octal = _OCTAL.match(field)
    return int(octal[1].replace(b"_", b"") or b"0", 8) if octal else None


def _ends_a_zip(tail: bytes, at: int, offset: int) -> bool:
    """Ask only what every reader needs, so that the most lenient one is answered for.

    By chance alone, the bytes of weights pass for this in about one file of a million.
    """
    if len(tail) - at < _ZIP_END.size:
        return False
    if tail[max(at - _ZIP64_LOCATOR_BYTES, 0) : at].startswith(b"PK\x06\x07"):
        return True
    directory_bytes: int = _ZIP_END.unpack_from(tail, at)[5]
    return directory_bytes <= offset
