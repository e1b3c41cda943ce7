"""Bodies that are not exactly one well-formed upload, and that they leave nothing."""

import base64

import pytest

from tests.server import Server
from tests.wire import (
    BOUNDARY,
    WEIGHTS,
    body,
    file_part,
    left_nothing,
    part,
    upload,
)

STYLES = part("entity_type", "styles")
CLOSING = f"--{BOUNDARY}--".encode()
HUGE = "x" * (64 * 1024 + 1)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def server(shared: Server) -> Server:
    """Use one server for the whole module."""
    return shared


@pytest.mark.parametrize(
    ("content", "status"),
    [
        pytest.param(body(), 422, id="no-parts"),
        pytest.param(body(STYLES), 422, id="no-file"),
        pytest.param(body(file_part(), file_part()), 422, id="two-files"),
        pytest.param(body(part("file", WEIGHTS)), 422, id="file-without-name"),
        pytest.param(body(file_part(filename="")), 422, id="no-file-chosen"),
        pytest.param(body(file_part(content=b"")), 422, id="empty-file"),
        pytest.param(body(STYLES, STYLES, file_part()), 422, id="field-twice"),
        pytest.param(body(STYLES, file_part(), STYLES), 422, id="field-twice-around"),
        pytest.param(body(part("entity_type", "hats"), file_part()), 422, id="unknown-type"),
        pytest.param(body(file_part(), part("entity_type", "hats")), 422, id="unknown-type-last"),
        pytest.param(body(part("entity_type", b"\xff"), file_part()), 422, id="not-utf8"),
        pytest.param(body(part("note", HUGE), file_part()), 422, id="long-field"),
        pytest.param(body(*[part(f"f{n}", "") for n in range(16)], file_part()), 422, id="17"),
        pytest.param(body(file_part(), *[part("f", "")] * 16), 422, id="17-file-first"),
        pytest.param(body(file_part("X: " + "y" * 16384)), 422, id="long-header"),
        pytest.param(
            body(file_part(*(f"X{n}: " + "y" * 4096 for n in range(4)))),
            422,
            id="long-headers",
        ),
        pytest.param(body(file_part(*(f"X{n}: y" for n in range(8)))), 422, id="9-headers"),
        pytest.param(body(file_part("X: y", "x: z")), 422, id="header-twice"),
        pytest.param(body(file_part(" folded")), 422, id="folded-header"),
        pytest.param(body(file_part("X: y\nZ: 1")), 422, id="bare-lf-in-header"),
        pytest.param(body(file_part("no colon")), 422, id="no-colon"),
        pytest.param(
            body(file_part(f"Content-Length: {len(WEIGHTS) + 1}")), 422, id="length-short"
        ),
        pytest.param(body(file_part("Content-Length: 0")), 422, id="length-long"),
        pytest.param(body(file_part("Content-Length: +1")), 422, id="length-signed"),
        pytest.param(body(file_part("Content-Length: -1")), 422, id="length-negative"),
        pytest.param(body(file_part("Content-Length: 1_0")), 422, id="length-odd"),
        pytest.param(
            body(file_part("Content-Transfer-Encoding: base64", content=base64.b64encode(WEIGHTS))),
            422,
            id="base64",
        ),
        pytest.param(body(file_part("Content-Encoding: gzip")), 422, id="gzip-part"),
        pytest.param(b"", 422, id="empty-body"),
        pytest.param(b"preamble\r\n" + body(file_part()), 422, id="preamble"),
        pytest.param(b"\n" * 100_000 + body(file_part()), 422, id="preamble-flood"),
        pytest.param(body(file_part()) + b"epilogue", 422, id="epilogue"),
        pytest.param(body(file_part()) + b"\r\n", 422, id="epilogue-line"),
        pytest.param(body(file_part()) + body(file_part()), 422, id="second-form-after-end"),
        pytest.param(body(file_part())[:-2] + b"junk" + CLOSING, 422, id="two-endings"),
        pytest.param(file_part(), 422, id="no-closing-boundary"),
        pytest.param(file_part() + f"--{BOUNDARY}".encode(), 422, id="half-closing-boundary"),
        pytest.param(file_part() + f"--{BOUNDARY}-\r\n".encode(), 422, id="one-dash"),
        pytest.param(
            file_part() + f"--{BOUNDARY}\r\n ".encode() + CLOSING + b"\r\n", 422, id="folded-end"
        ),
        pytest.param(file_part() + f"--{BOUNDARY}\r\n".encode() + CLOSING, 422, id="end-as-header"),
        pytest.param(file_part()[:-4], 422, id="cut-in-the-file"),
        pytest.param(file_part()[:40], 422, id="cut-in-the-head"),
        pytest.param(body(file_part()).replace(b"\r\n", b"\n"), 422, id="lf-only"),
        pytest.param(body(file_part()).replace(b"\r\n", b"\r"), 422, id="cr-only"),
        pytest.param(b"--OTHER" + body(file_part()), 422, id="other-boundary"),
    ],
)
async def test_a_bad_body_leaves_nothing(server: Server, content: bytes, status: int) -> None:
    """Every body that is not exactly one complete form with one file is refused without trace."""
    answer = await upload(server, content)

    assert answer.status == status
    assert isinstance(answer.json["detail"], list)
    assert await left_nothing(server)


async def test_an_undecodable_header_is_not_quoted(server: Server) -> None:
    """The parser's error carries the whole header line; the answer says only what is wrong."""
    header = b'Content-Disposition: form-data; name="file"; filename="\xffsecret.safetensors"'
    answer = await upload(
        server, b"\r\n".join([f"--{BOUNDARY}".encode(), header, b"", b"x", CLOSING])
    )
    assert answer.status == 422
    message = "The multipart body is malformed: segment header failed to decode."
    assert answer.json["detail"][0]["msg"] == message
