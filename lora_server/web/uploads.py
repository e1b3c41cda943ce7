"""A multipart/form-data body becomes a file name, bounded blocks and checked fields.

Only what RFC 7578 needs is taken: no preamble, no epilogue, no `filename*`, no transfer
codings. Everything that is counted has a name below.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from aiohttp import StreamReader, web
from multipart import (
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
    StrictParserError,
)

from lora_server.errors import (
    FieldInvalid,
    MalformedUpload,
    UploadCut,
    UploadStalled,
    UploadTooLarge,
)
from lora_server.ingest import UploadForm
from lora_server.web.forms import upload_form

BLOCK_BYTES = 1024 * 1024
BLOCK_CHUNKS = 512  # a flood of tiny chunks fills a block too, well under IOV_MAX
MAX_FIELD_BYTES = 64 * 1024
MAX_PARTS = 16
MAX_PART_HEADERS = 8
MAX_PART_HEADER_BYTES = 16 * 1024  # all header lines of a part together
FRAMING_BYTES = 2 * 1024 * 1024  # what the body may hold besides the file

FIELDS = frozenset({"entity_type", "use_safe_filename", "sha256"})
_IDENTITY_CODINGS = frozenset({"7bit", "8bit", "binary"})
_PARAMETER = re.compile(r';\s*([^=;\s]+)\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^;"]*)')

Event: TypeAlias = MultipartSegment | bytes | None


@dataclass(frozen=True, slots=True)
class Limits:
    """What a body may cost: bytes, seconds, bytes per second."""

    max_file_bytes: int
    idle_timeout_s: float
    min_rate: int


class MultipartUpload:
    """One upload that is still arriving (`ingest.Incoming`).

    Every method raises UploadStalled, UploadCut, UploadTooLarge or MalformedUpload for a body
    that goes wrong, and FieldInvalid for a part that does.
    """

    def __init__(
        self, content: StreamReader, boundary: str, limits: Limits, entity_types: tuple[str, ...]
    ) -> None:
        self._body = _Body(content, limits)
        self._limits = limits
        self._entity_types = entity_types
        self._fields: dict[str, str] = {}
        self._file_seen = False
        self._closing = f"--{boundary}--".encode()
        self._between_parts = False
        self._events: Iterator[Event] = iter(())
        self._parser = PushMultipartParser(
            boundary,
            max_header_size=MAX_PART_HEADER_BYTES,
            max_header_count=MAX_PART_HEADERS,
            max_segment_count=MAX_PARTS,
            strict=True,
        )

    async def open(self) -> str:
        """Return the client's file name, as soon as the file part begins."""
        while (segment := await self._next_segment()) is not None:
            if segment.name == "file":
                self._file_seen = True
                return _filename(segment)
            await self._take_field(segment)
        raise FieldInvalid(("body", "file"), "Field required", "missing")

    async def blocks(self) -> AsyncIterator[list[bytes]]:
        """Yield the file in blocks of about BLOCK_BYTES, each a list of chunks."""
        block: list[bytes] = []
        gathered = total = 0
        while isinstance(event := await self._event(), bytes):
            block.append(event)
            gathered += len(event)
            total += len(event)
            if total > self._limits.max_file_bytes:
                raise UploadTooLarge(self._limits.max_file_bytes)
            if gathered >= BLOCK_BYTES or len(block) >= BLOCK_CHUNKS:
                yield block
                block, gathered = [], 0
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
        if isinstance(event, MultipartSegment):
            _check_part(segment=event)
            return event
        return None

    async def _event(self) -> Event:
        """Return the next event of the parser; None at the end of a part, and of the body."""
        try:
            while True:
                for event in self._events:
                    self._between_parts = event is None
                    return event
                chunk = await self._body.chunk()
                if not chunk:
                    self._check_end()
                    return None
                self._events = self._parse(chunk)
        except ParserLimitReached as error:
            raise MalformedUpload("too many parts, or part headers that are too long") from error
        except MultipartError as error:
            raise MalformedUpload(str(error).lower()) from error

    def _parse(self, chunk: bytes) -> Iterator[Event]:
        try:
            yield from self._parser.parse(chunk)
        except StrictParserError:
            # The line break after the closing boundary may come in a chunk of its own, which
            # the strict parser takes for an epilogue; `_check_end` looks at how the body ends.
            if not (self._between_parts and chunk in (b"\r\n", b"\r", b"\n")):
                raise

    def _check_end(self) -> None:
        if self._parser.error is None:
            for _ in self._parser.parse(b""):  # raises unless the body is complete
                pass
        if self._body.tail.removesuffix(b"\r\n").endswith(self._closing):
            return
        raise MalformedUpload("the body goes on after its closing boundary")


class _Body:
    """The bytes of a request, with every bound on how much and how slowly they come."""

    def __init__(self, content: StreamReader, limits: Limits) -> None:
        self.tail = b""  # the last bytes seen: enough for the longest closing boundary
        self._content = content
        self._limits = limits
        self._received = 0
        self._waited_s = 0.0

    async def chunk(self) -> bytes:
        """Return the next bytes, empty at the end of the body."""
        chunk = await self._arriving()
        self._received += len(chunk)
        if self._received > self._limits.max_file_bytes + FRAMING_BYTES:
            raise UploadTooLarge(self._limits.max_file_bytes)
        self.tail = (self.tail + chunk[-128:])[-128:]
        return chunk

    async def _arriving(self) -> bytes:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._limits.idle_timeout_s):
                chunk = await self._content.readany()
        except TimeoutError as error:
            raise UploadStalled(f"No data came for {self._limits.idle_timeout_s:g} s") from error
        except (ConnectionError, web.RequestPayloadError) as error:
            raise UploadCut("The connection was lost.") from error
        # Only time spent waiting for the client counts: a slow disk is not its fault.
        self._waited_s += loop.time() - began
        self._check_rate()
        return chunk

    def _check_rate(self) -> None:
        if self._waited_s < self._limits.idle_timeout_s:
            return  # too early to judge
        if self._received / self._waited_s < self._limits.min_rate:
            raise UploadStalled(f"The data came at less than {self._limits.min_rate} bytes/s")


def _filename(segment: MultipartSegment) -> str:
    if segment.filename is None:
        message = "Value error, Expected a file: the part has no filename"
        raise FieldInvalid(("body", "file"), message, "value_error")
    return str(segment.filename)


def _check_part(segment: MultipartSegment) -> None:
    """Refuse what RFC 7578 forbids, and what two readers could read differently."""
    headers = segment.headerlist
    if sum(len(name) + len(value) for name, value in headers) > MAX_PART_HEADER_BYTES:
        raise MalformedUpload("part headers that are too long")
    if len({name for name, _ in headers}) != len(headers):
        raise MalformedUpload("a part repeats a header")
    parameters = _PARAMETER.findall(segment.header("Content-Disposition", ""))
    if any("*" in name for name in parameters):
        raise MalformedUpload("a part uses filename*; send filename= in UTF-8")
    if len({name.lower() for name in parameters}) != len(parameters):
        raise MalformedUpload("a part repeats a parameter of Content-Disposition")
    coding = segment.header("Content-Transfer-Encoding", "binary").lower()
    if coding not in _IDENTITY_CODINGS or segment.header("Content-Encoding"):
        raise MalformedUpload("a part has a transfer coding; send the bytes as they are")
