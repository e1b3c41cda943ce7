"""The framing of multipart/form-data, taken strictly and alike whatever pieces it comes in.

Only what RFC 7578 needs is taken: no preamble, no epilogue, no `filename*`, no transfer
codings. The parser itself looks at one piece at a time and overlooks what shares a piece with
the opening or the closing boundary; that is watched here.
"""

import re
from collections.abc import Iterator
from typing import TypeAlias

from multipart import (
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
)

from lora_server.errors import MalformedUpload
from lora_server.web.parameters import parameters

MAX_PARTS = 16
MAX_PART_HEADERS = 8
MAX_PART_HEADER_BYTES = 16 * 1024  # all header lines of a part together

_LINE_BREAK = b"\r\n"
_IDENTITY_CODINGS = frozenset({"7bit", "8bit", "binary"})
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_TOKEN = re.compile(r"[a-zA-Z0-9-!#$%&'*+.^_`|~]*")

Event: TypeAlias = MultipartSegment | bytes | None


class FormParser:
    """Turns the pieces of a body into events: a part's head, its bytes, and None at its end.

    Every method raises MalformedUpload.
    """

    def __init__(self, boundary: str) -> None:
        self._opening = f"--{boundary}".encode()
        self._closing = f"\r\n--{boundary}--".encode()
        self._head: bytes | None = b""  # the body, until its opening boundary has been seen
        # The last bytes, since a closing boundary may straddle two pieces; a body begins a line.
        self._seam = _LINE_BREAK
        self._after: bytes | None = None  # what came after the closing boundary
        self._parser = PushMultipartParser(
            boundary,
            max_header_size=MAX_PART_HEADER_BYTES,
            max_header_count=MAX_PART_HEADERS,
            max_segment_count=MAX_PARTS,
            strict=True,
        )

    def parse(self, chunk: bytes) -> Iterator[Event]:
        """Yield the events of the next piece of the body."""
        framed = self._up_to_closing(self._from_opening(chunk))
        try:
            for event in self._parser.parse(framed) if framed else ():
                if isinstance(event, MultipartSegment):
                    _check_part(event)
                yield event
        except ParserLimitReached as error:
            raise MalformedUpload("too many parts, or part headers that are too long") from error
        except MultipartError as error:
            raise MalformedUpload(_why(error)) from error

    def close(self) -> None:
        """Check that the body was complete: its closing boundary is the only proof."""
        if self._after is None:
            raise MalformedUpload("it ends before its closing boundary")
        if self._after not in (b"", _LINE_BREAK):
            raise MalformedUpload("it goes on after its closing boundary")
        try:
            for _ in self._parser.parse(b""):  # raises unless the last part was ended
                pass
        except MultipartError as error:
            raise MalformedUpload(_why(error)) from error

    def _from_opening(self, chunk: bytes) -> bytes:
        if self._head is None:
            return chunk
        self._head += chunk
        if len(self._head) < len(_LINE_BREAK + self._opening):
            return b""  # less than the shortest opening, with the line break that RFC 2046 allows
        if not self._head.removeprefix(_LINE_BREAK).startswith(self._opening):
            raise MalformedUpload("it does not start with its boundary")
        opened, self._head = self._head, None
        return opened

    def _up_to_closing(self, chunk: bytes) -> bytes:
        if self._after is not None:
            self._follow(chunk)
            return b""
        window = self._seam + chunk
        at = window.find(self._closing)
        if at < 0:
            self._seam = window[1 - len(self._closing) :]
            return chunk
        end = at + len(self._closing) - len(self._seam)
        self._follow(chunk[end:])
        return chunk[:end]

    def _follow(self, rest: bytes) -> None:
        self._after = (self._after or b"") + rest
        if not _LINE_BREAK.startswith(self._after):
            raise MalformedUpload("it goes on after its closing boundary")


def _why(error: MultipartError) -> str:
    """Return the parser's own words; what else it carries quotes the body at any length."""
    return str(error.args[0]).lower()


def _check_part(segment: MultipartSegment) -> None:
    """Refuse what RFC 7578 forbids, and what two readers could read differently."""
    headers = segment.headerlist
    if sum(len(name) + len(value) for name, value in headers) > MAX_PART_HEADER_BYTES:
        raise MalformedUpload("part headers that are too long")
    if len({name for name, _ in headers}) != len(headers):
        raise MalformedUpload("a part repeats a header")
    if any(_CONTROL.search(value) for _, value in headers):
        raise MalformedUpload("a control character in a part's header")
    _check_disposition(segment.header("Content-Disposition", ""))
    coding = segment.header("Content-Transfer-Encoding", "binary").lower()
    if coding not in _IDENTITY_CODINGS or segment.header("Content-Encoding"):
        raise MalformedUpload("a part has a transfer coding; send the bytes as they are")


def _check_disposition(disposition: str) -> None:
    try:
        found = parameters(disposition)
    except ValueError as error:
        raise MalformedUpload("a Content-Disposition cannot be read") from error
    names = [name for name, _ in found]
    if any("*" in name for name in names):
        raise MalformedUpload("a part uses filename*; send filename= in UTF-8")
    if len(set(names)) != len(names):
        raise MalformedUpload("a part repeats a parameter of Content-Disposition")
    if not all(value.startswith('"') or _TOKEN.fullmatch(value) for _, value in found):
        raise MalformedUpload("a Content-Disposition has a value that needs quotes")
