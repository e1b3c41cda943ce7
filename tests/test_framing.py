"""The framing of a body reads the same whatever pieces it comes in."""

from collections.abc import Iterable

import pytest
from aiohttp import StreamReader

from lora_server.errors import LoraServerError, MalformedUpload
from lora_server.ingest import UploadForm
from lora_server.web.parts import FormParser
from lora_server.web.uploads import Limits, MultipartUpload
from tests.wire import (
    BOUNDARY,
    body,
    file_part,
    part,
)

CONTENT = b"tensors \r\n--BOUND \r\n--BOUNDAR--\r\r\n\r--BOUNDARY\r\n-\n"
STYLES = part("entity_type", "styles")
CLOSING = f"--{BOUNDARY}--".encode()

Result = tuple[str, bytes, UploadForm] | type[LoraServerError]


class _Pieces(StreamReader):
    """A body whose pieces are read one at a time."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)

    async def readany(self) -> bytes:
        return next(self._pieces, b"")


async def _received(pieces: Iterable[bytes]) -> Result:
    """Return what an upload makes of a body that comes in these pieces."""
    limits = Limits(10_000, idle_timeout_s=5, min_rate=0)
    incoming = MultipartUpload(
        _Pieces(pieces), BOUNDARY, limits, ("styles",), written=lambda _: None
    )
    try:
        name = await incoming.open()
        content = b"".join([b"".join(block) async for block in incoming.blocks()])
        return name, content, await incoming.finish()
    except LoraServerError as error:
        return type(error)


@pytest.mark.parametrize(
    "whole",
    [
        pytest.param(
            body(STYLES, file_part(content=CONTENT), part("use_safe_filename", "no")), id="good"
        ),
        pytest.param(b"\r\n" + body(file_part(content=CONTENT)), id="line-break-before"),
        pytest.param(body(file_part(content=CONTENT))[:-2], id="no-line-break-after"),
    ],
)
async def test_no_split_changes_a_body(whole: bytes) -> None:
    """Cut in two at every byte, a good body is read as in one piece."""
    name, content, form = await _checked([whole])

    assert (name, content) == ("ink.safetensors", CONTENT)
    for at in range(1, len(whole)):
        assert await _checked([whole[:at], whole[at:]]) == (name, content, form), at


async def _checked(pieces: Iterable[bytes]) -> tuple[str, bytes, UploadForm]:
    result = await _received(pieces)
    assert isinstance(result, tuple), result
    return result


@pytest.mark.parametrize(
    "whole",
    [
        pytest.param(b"x\r\n" + body(file_part()), id="preamble"),
        pytest.param(body(file_part()) + b"\r\n", id="epilogue"),
        pytest.param(body(file_part()) + body(file_part()), id="second-form"),
        pytest.param(body(file_part())[:-2] + b"\r", id="half-line-break"),
        pytest.param(file_part(), id="no-end"),
        pytest.param(body(file_part()).replace(b"\r\n", b"\n"), id="lf"),
        pytest.param(body(file_part("X: y\nZ: 1")), id="bare-lf"),
        pytest.param(file_part() + b"--BOUNDARY\r\n --BOUNDARY--\r\n", id="folded-end"),
        pytest.param(
            file_part() + b"--BOUNDARY\r\n--BOUNDARY--: x\r\n\r\n" + CLOSING, id="end-header"
        ),
    ],
)
async def test_no_split_lets_a_bad_body_in(whole: bytes) -> None:
    """Cut in two at every byte, a malformed body is refused as it is in one piece."""
    assert await _received([whole]) is MalformedUpload
    for at in range(1, len(whole)):
        assert await _received([whole[:at], whole[at:]]) is MalformedUpload, at


def test_the_shortest_boundary_works() -> None:
    """A boundary of one character is read like any other."""
    parser = FormParser("b")
    whole = b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\nx\r\n--b--'
    events = [event for byte in whole for event in parser.parse(bytes([byte]))]
    parser.close()

    assert events[1:] == [b"x", None]


def test_what_follows_the_end_is_refused_as_it_comes() -> None:
    """An epilogue is not gathered until the body ends: its first bytes are one too many."""
    parser = FormParser(BOUNDARY)
    list(parser.parse(body(file_part())))
    with pytest.raises(MalformedUpload):
        list(parser.parse(b"x"))
