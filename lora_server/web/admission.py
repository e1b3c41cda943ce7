"""Decide on the head of an upload, before a byte of its body is read.

`admit` is the one place where that is decided. `Expect: 100-continue` is answered only after
it has agreed (`middlewares.admitted`), so that a client that waits never sends in vain.
"""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lora_server.errors import (
    MalformedUpload,
    StorageFull,
    TooManyUploads,
    UnsupportedUpload,
    UploadTooLarge,
)
from lora_server.web.parameters import parameters
from lora_server.web.uploads import FRAMING_BYTES

# RFC 2046, section 5.1.1: 1 to 70 of these characters, not ending in a space.
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")


@dataclass(frozen=True, slots=True)
class Head:
    """What the head of an upload request says."""

    content_type: str
    content_encoding: str
    content_length: int | None  # bytes of the whole body; None when it comes chunked

    def most_bytes(self, max_file_bytes: int) -> int:
        """Return how many bytes of disk the upload may take."""
        return max_file_bytes if self.content_length is None else self.content_length


@dataclass(frozen=True, slots=True)
class Room:
    """What there is room for, in bytes."""

    max_file_bytes: int
    free: int
    promised: int  # to uploads in flight, and not written yet
    reserve: int


def admit(head: Head, room: Room) -> str:
    """Return the boundary of an upload whose head is good.

    Raises:
        UnsupportedUpload: not multipart/form-data, or compressed.
        MalformedUpload: no sane boundary.
        UploadTooLarge: the announced length is over the cap.
        StorageFull: the disk has no room for it.

    """
    if head.content_encoding.strip().lower() not in ("", "identity"):
        raise UnsupportedUpload("Send the body as it is, without a Content-Encoding.")
    boundary = _boundary(head.content_type)
    length = head.most_bytes(room.max_file_bytes)
    if length > room.max_file_bytes + FRAMING_BYTES:
        raise UploadTooLarge(room.max_file_bytes)
    if room.free - room.promised - length < room.reserve:
        raise StorageFull
    return boundary


def _boundary(content_type: str) -> str:
    media_type, _, _ = content_type.partition(";")
    if media_type.strip().lower() != "multipart/form-data":
        raise UnsupportedUpload("Send the file as multipart/form-data, in the field 'file'.")
    try:
        boundaries = [value for name, value in parameters(content_type) if name == "boundary"]
    except ValueError as error:
        raise MalformedUpload("the Content-Type cannot be read") from error
    if len(boundaries) != 1:
        raise MalformedUpload("Content-Type must have exactly one boundary")
    boundary = boundaries[0].removeprefix('"').removesuffix('"')
    if not _BOUNDARY.fullmatch(boundary):
        raise MalformedUpload("the boundary must be 1 to 70 characters of RFC 2046")
    return boundary


class Slot:
    """What one upload was promised."""

    def __init__(self, slots: "UploadSlots", size: int) -> None:
        self._slots = slots
        self._left = size
        slots.promised += size

    def written(self, size: int) -> None:
        """Note that bytes are on disk, and so missing from its free space already."""
        size = min(size, self._left)
        self._left -= size
        self._slots.promised -= size

    def release(self) -> None:
        """Note that nothing more will be written."""
        self.written(self._left)


class UploadSlots:
    """How many uploads may be in flight, in all and for one principal."""

    def __init__(self, *, total: int, per_principal: int) -> None:
        self.promised = 0  # bytes of disk that the uploads in flight may still take
        self._total = total
        self._per_principal = per_principal
        self._taken: Counter[str] = Counter()

    @contextmanager
    def taken(self, subject: str, size: int) -> Iterator[Slot]:
        """Hold one slot for an upload of at most `size` bytes.

        Raises:
            TooManyUploads: none is free.

        """
        if self._taken[subject] >= self._per_principal:
            raise TooManyUploads(self._per_principal, of_principal=True)
        if self._taken.total() >= self._total:
            raise TooManyUploads(self._total, of_principal=False)
        self._taken[subject] += 1
        slot = Slot(self, size)
        try:
            yield slot
        finally:
            slot.release()
            self._taken[subject] -= 1
            self._taken += Counter()  # drops the subjects that count zero
