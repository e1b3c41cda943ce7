"""A multipart/form-data body becomes a file name, bounded blocks and checked fields.

Everything that is counted has a name below; `web.parts` knows the framing.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

from aiohttp import StreamReader, web
from multipart import MultipartSegment

from lora_server.errors import (
    FieldInvalid,
    MalformedUpload,
    UploadCut,
    UploadStalled,
    UploadTooLarge,
)
from lora_server.ingest import UploadForm
from lora_server.web.forms import upload_form
from lora_server.web.parts import Event, FormParser

BLOCK_BYTES = 1024 * 1024
BLOCK_CHUNKS = 512  # a flood of tiny chunks fills a block too, well under IOV_MAX
PROMPT_BLOCKS = 64  # come as they are, so that a header is judged once it is there
MAX_FIELD_BYTES = 64 * 1024
FRAMING_BYTES = 2 * 1024 * 1024  # what the body may hold besides the file

FIELDS = frozenset({"entity_type", "use_safe_filename", "sha256"})


@dataclass(frozen=True, slots=True)
class Limits:
    """What a body may cost: bytes, seconds, bytes per second."""

    max_file_bytes: int
    idle_timeout_s: float
    min_rate: int


class MultipartUpload:
    """One upload that is still arriving (`ingest.Incoming`).

    `written` is told how many more bytes of the file are on disk.

    Every method raises UploadStalled, UploadCut, UploadTooLarge or MalformedUpload for a body
    that goes wrong, and FieldInvalid for a part that does.
    """

    def __init__(
        self,
        content: StreamReader,
        boundary: str,
        limits: Limits,
        entity_types: tuple[str, ...],
        *,
        written: Callable[[int], None],
    ) -> None:
        self._body = _Body(content, limits)
        self._written = written
        self._limits = limits
        self._entity_types = entity_types
        self._fields: dict[str, str] = {}
        self._events: Iterator[Event] = iter(())
        self._parser = FormParser(boundary)

    async def open(self) -> str:
        """Return the client's file name, as soon as the file part begins."""
        while (segment := await self._next_segment()) is not None:
            if segment.name == "file":
                return _filename(segment)
            await self._take_field(segment)
        raise FieldInvalid(("body", "file"), "Field required", "missing")

    async def blocks(self) -> AsyncIterator[list[bytes]]:
        """Yield the file in blocks of about BLOCK_BYTES, each a list of chunks.

        The first PROMPT_BLOCKS are smaller, as the bytes come: a client that sends a bad header
        and then dawdles hears of the header. Who asks for a block has the one before the last
        on disk (`StagedFile.write`).
        """
        block: list[bytes] = []
        gathered = total = yielded = being_written = 0
        while isinstance(event := await self._event(), bytes):
            block.append(event)
            gathered += len(event)
            total += len(event)
            if total > self._limits.max_file_bytes:
                raise UploadTooLarge(self._limits.max_file_bytes)
            full = gathered >= BLOCK_BYTES or len(block) >= BLOCK_CHUNKS
            if full or yielded < PROMPT_BLOCKS:
                yield block
                self._written(being_written)
                block, being_written, gathered, yielded = [], gathered, 0, yielded + 1
        if block:
            yield block

    async def finish(self) -> UploadForm:
        """Return the form, once the body is complete: its closing boundary is the only proof."""
        while (segment := await self._next_segment()) is not None:
            if segment.name == "file":
                raise FieldInvalid(("body", "file"), "Exactly one file is taken", "too_many_files")
            await self._take_field(segment)
        return upload_form(self._fields, self._entity_types)

    async def _take_field(self, segment: MultipartSegment) -> None:
        value = await self._field_bytes()
        if segment.name not in FIELDS:
            return  # forms grow fields that this server does not know
        loc = ("body", segment.name)
        if segment.name in self._fields:
            raise FieldInvalid(loc, "The field is given twice", "duplicate_field")
        try:
            self._fields[segment.name] = value.decode()
        except UnicodeDecodeError as error:
            raise FieldInvalid(loc, "The field is not UTF-8", "string_unicode") from error
        upload_form(self._fields, self._entity_types)  # a wrong field is refused before the file

    async def _field_bytes(self) -> bytes:
        value = bytearray()
        while isinstance(event := await self._event(), bytes):
            value += event
            if len(value) > MAX_FIELD_BYTES:
                raise MalformedUpload(f"a field is longer than {MAX_FIELD_BYTES} bytes")
        return bytes(value)

    async def _next_segment(self) -> MultipartSegment | None:
        event = await self._event()
        return event if isinstance(event, MultipartSegment) else None

    async def _event(self) -> Event:
        """Return the next event of the parser; None at the end of a part, and of the body."""
        while True:
            for event in self._events:
                return event
            chunk = await self._body.chunk()
            if not chunk:
                self._parser.close()
                return None
            self._events = self._parser.parse(chunk)


class _Body:
    """The bytes of a request, with every bound on how much and how slowly they come."""

    def __init__(self, content: StreamReader, limits: Limits) -> None:
        self._content = content
        self._limits = limits
        self._received = 0
        self._lately = 0  # bytes, and
        self._lately_waited_s = 0.0  # seconds spent waiting for them, since the last judgement

    async def chunk(self) -> bytes:
        """Return the next bytes, empty at the end of the body."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        chunk = await self._arriving()
        self._received += len(chunk)
        if self._received > self._limits.max_file_bytes + FRAMING_BYTES:
            raise UploadTooLarge(self._limits.max_file_bytes)
        if chunk:
            # Only time spent waiting for the client counts: a slow disk is not its fault.
            self._check_rate(len(chunk), loop.time() - began)
        return chunk

    async def _arriving(self) -> bytes:
        try:
            async with asyncio.timeout(self._limits.idle_timeout_s) as idle:
                return await self._content.readany()
        except web.RequestPayloadError as error:
            raise UploadCut("The body's transfer coding is malformed.") from error
        except OSError as error:  # a TimeoutError is one, too
            if idle.expired():
                why = f"No data came for {self._limits.idle_timeout_s:g} s"
                raise UploadStalled(why) from error
            raise UploadCut("The connection was lost.") from error

    def _check_rate(self, received: int, waited_s: float) -> None:
        """Judge stretches of the idle timeout: a fast start is no licence to dawdle later."""
        self._lately += received
        self._lately_waited_s += waited_s
        if self._lately_waited_s < self._limits.idle_timeout_s:
            return
        if self._lately / self._lately_waited_s < self._limits.min_rate:
            raise UploadStalled(f"The data came at less than {self._limits.min_rate} bytes/s")
        self._lately, self._lately_waited_s = 0, 0.0


def _filename(segment: MultipartSegment) -> str:
    if segment.filename is None:
        message = "Value error, Expected a file: the part has no filename"
        raise FieldInvalid(("body", "file"), message, "value_error")
    if not segment.filename:  # what a browser sends where no file was chosen
        raise FieldInvalid(("body", "file"), "Field required", "missing")
    return segment.filename
