"""The body of an upload: what is taken, what is refused, and that a refusal leaves nothing."""

import base64
import hashlib
from collections.abc import Iterable

import pytest
from aiohttp import StreamReader

from lora_server.errors import LoraServerError, MalformedUpload
from lora_server.ingest import UploadForm
from lora_server.web.parts import FormParser
from lora_server.web.uploads import Limits, MultipartUpload
from tests.server import Server
from tests.wire import (
    BOUNDARY,
    body,
    chunked,
    connected,
    file_part,
    head,
    left_nothing,
    part,
    upload,
)

CONTENT = b"weights \r\n--BOUND \r\n--BOUNDAR--\r\r\n\r--BOUNDARY\r\n-\n"
STYLES = part("entity_type", "styles")
CLOSING = f"--{BOUNDARY}--".encode()
HUGE = "x" * (64 * 1024 + 1)


@pytest.mark.parametrize(
    ("parts", "partial_path"),
    [
        pytest.param([STYLES, file_part()], "styles/ink.pt", id="field-first"),
        pytest.param([file_part(), STYLES], "styles/ink.pt", id="field-last"),
        pytest.param([file_part()], "no_type_provided/ink.pt", id="no-type"),
        pytest.param([part("entity_type", ""), file_part()], "no_type_provided/ink.pt", id="empty"),
        pytest.param(
            [part("a", "b"), file_part(), part("a", "c"), STYLES], "styles/ink.pt", id="?"
        ),
        pytest.param(
            [
                part("extra", b"\x00\xff", disposition='form-data; name="x"; filename="x"'),
                file_part(),
            ],
            "no_type_provided/ink.pt",
            id="unknown-file",
        ),
        pytest.param(
            [part(f"f{n}", "") for n in range(15)] + [file_part()],
            "no_type_provided/ink.pt",
            id="16",
        ),
        pytest.param([part("note", HUGE[1:]), file_part()], "no_type_provided/ink.pt", id="64KiB"),
        pytest.param(
            [part("sha256", ""), file_part()], "no_type_provided/ink.pt", id="empty-digest"
        ),
    ],
)
async def test_parts_come_in_any_order(
    server: Server, parts: list[bytes], partial_path: str
) -> None:
    """The file may stand anywhere among the fields, and unknown parts are ignored."""
    answer = await upload(server, body(*parts))

    assert (answer.status, answer.json["partial_path"]) == (200, partial_path)
    assert [path.read_bytes() for path in server.files()] == [b"weights"]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        pytest.param(body(), 422, id="no-parts"),
        pytest.param(body(STYLES), 422, id="no-file"),
        pytest.param(body(file_part(), file_part()), 422, id="two-files"),
        pytest.param(body(part("file", "weights")), 422, id="file-without-name"),
        pytest.param(body(file_part(filename="")), 422, id="no-file-chosen"),
        pytest.param(body(file_part(b"")), 422, id="empty-file"),
        pytest.param(body(STYLES, STYLES, file_part()), 422, id="field-twice"),
        pytest.param(body(STYLES, file_part(), STYLES), 422, id="field-twice-around"),
        pytest.param(body(part("entity_type", "hats"), file_part()), 422, id="unknown-type"),
        pytest.param(body(file_part(), part("entity_type", "hats")), 422, id="unknown-type-last"),
        pytest.param(body(part("entity_type", b"\xff"), file_part()), 422, id="not-utf8"),
        pytest.param(body(part("note", HUGE), file_part()), 422, id="long-field"),
        pytest.param(body(*[part(f"f{n}", "") for n in range(16)], file_part()), 422, id="17"),
        pytest.param(body(file_part(), *[part("f", "")] * 16), 422, id="17-file-first"),
        pytest.param(body(file_part(b"w", "a.pt", "X: " + "y" * 16384)), 422, id="long-header"),
        pytest.param(
            body(file_part(b"w", "a.pt", *(f"X{n}: " + "y" * 4096 for n in range(4)))),
            422,
            id="long-headers",
        ),
        pytest.param(
            body(file_part(b"w", "a.pt", *(f"X{n}: y" for n in range(8)))), 422, id="9-headers"
        ),
        pytest.param(body(file_part(b"w", "a.pt", "X: y", "x: z")), 422, id="header-twice"),
        pytest.param(body(file_part(b"w", "a.pt", " folded")), 422, id="folded-header"),
        pytest.param(body(file_part(b"w", "a.pt", "X: y\nZ: 1")), 422, id="bare-lf-in-header"),
        pytest.param(body(file_part(b"w", "a.pt", "no colon")), 422, id="no-colon"),
        pytest.param(body(file_part(b"w", "a.pt", "Content-Length: 2")), 422, id="length-short"),
        pytest.param(body(file_part(b"w", "a.pt", "Content-Length: 0")), 422, id="length-long"),
        pytest.param(body(file_part(b"w", "a.pt", "Content-Length: +1")), 422, id="length-signed"),
        pytest.param(
            body(file_part(b"w", "a.pt", "Content-Length: -1")), 422, id="length-negative"
        ),
        pytest.param(body(file_part(b"w", "a.pt", "Content-Length: 1_0")), 422, id="length-odd"),
        pytest.param(
            body(file_part(base64.b64encode(b"w"), "a.pt", "Content-Transfer-Encoding: base64")),
            422,
            id="base64",
        ),
        pytest.param(body(file_part(b"w", "a.pt", "Content-Encoding: gzip")), 422, id="gzip-part"),
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


@pytest.mark.parametrize(
    ("disposition", "status"),
    [
        pytest.param('form-data; name="file"; filename=ink.pt', 200, id="unquoted"),
        pytest.param('form-data; name=file; filename="ink.pt";', 200, id="trailing-semicolon"),
        pytest.param('form-data;name="file";filename="ink.pt"', 200, id="no-spaces"),
        pytest.param("form-data; name=\"file\"; filename*=UTF-8''ink.pt", 422, id="extended"),
        pytest.param('form-data; name="file"; filename="a.pt"; filename*=x', 422, id="both"),
        pytest.param('form-data; name="file"; filename*0="ink.pt"', 422, id="continuation"),
        pytest.param('form-data; name="file"; filename="a.pt"; filename="b.pt"', 422, id="twice"),
        pytest.param('form-data; name="file"; filename="a.pt"; FileName="b.pt"', 422, id="case"),
        pytest.param('form-data; name="file"; name="x"; filename="a.pt"', 422, id="two-names"),
        pytest.param('form-data; name="file"; filename="a\\"; filename="b.pt"', 422, id="escape"),
        pytest.param('form-data; name="file"; filename=a(1).pt', 422, id="needs-quotes"),
        pytest.param('form-data; name="file"; filename="a.pt" junk', 422, id="junk"),
        pytest.param('form-data; name="file"; filename="a.pt', 422, id="unclosed"),
        pytest.param('form-data; filename="a.pt"', 422, id="no-name"),
        pytest.param('attachment; name="file"; filename="a.pt"', 422, id="not-form-data"),
        pytest.param('form-data; name="file"; filename="a\x00.pt"', 422, id="nul"),
        pytest.param('form-data; name="file"; filename="a\x1b[31m.pt"', 422, id="escape-code"),
    ],
)
async def test_a_disposition_has_one_meaning(server: Server, disposition: str, status: int) -> None:
    """What two readers could read differently is refused."""
    answer = await upload(server, body(part("file", "weights", disposition=disposition)))

    assert answer.status == status
    assert status == 200 or await left_nothing(server)


@pytest.mark.parametrize(
    ("filename", "stored", "told"),
    [
        pytest.param("../../etc/ink.pt", "ink.pt", "ink.pt", id="path"),
        pytest.param("C:\\dir\\ink.pt", "ink.pt", "ink.pt", id="windows-path"),
        pytest.param("/ink.pt", "ink.pt", "ink.pt", id="absolute"),
        pytest.param("...ink.pt", "ink.pt", "...ink.pt", id="leading-dots"),
        pytest.param("a%22b.pt", "ab.pt", 'a"b.pt', id="browser-quote"),
        pytest.param('a\\"b.pt', "ab.pt", 'a"b.pt', id="curl-quote"),
        pytest.param("a%0D%0Ab.pt", "ab.pt", "a\r\nb.pt", id="browser-newline"),
        pytest.param("a;b=c.pt", "a;b=c.pt", "a;b=c.pt", id="semicolon"),
        pytest.param("墨 ínk.PT", "墨 ínk.pt", "墨 ínk.PT", id="unicode"),
        pytest.param("i\u0301nk.pt", "ínk.pt", "i\u0301nk.pt", id="decomposed"),
        pytest.param("\u202etp.kni.pt", "tp.kni.pt", "\u202etp.kni.pt", id="bidi"),
    ],
)
async def test_a_name_is_no_path(server: Server, filename: str, stored: str, told: str) -> None:
    """A client's name becomes one safe component; the answer tells both."""
    answer = await upload(server, body(file_part(filename=filename)))

    assert answer.status == 200
    assert answer.json["partial_path"] == f"no_type_provided/{stored}"
    assert answer.json["filename"] == told
    assert [path.name for path in server.files()] == [stored]


async def test_a_long_name_is_cut(server: Server) -> None:
    """A name of 300 bytes is stored under one that the filesystem takes, and keeps its ending."""
    answer = await upload(server, body(file_part(filename="é" * 150 + ".safetensors")))

    assert answer.status == 200
    assert len(server.files()[0].name.encode()) <= 255
    assert server.files()[0].suffix == ".safetensors"


@pytest.mark.parametrize("name", ["ink", "ink.txt", "ink.pt.exe", "/", "..", ".pt/"])
async def test_another_ending_is_415(server: Server, name: str) -> None:
    """Only weights are taken, and that is said before the file is read."""
    answer = await upload(server, file_part(filename=name))

    assert answer.status == 415
    assert await left_nothing(server)


@pytest.mark.parametrize(
    ("value", "versioned"),
    [(word, True) for word in ("1", "true", "True", "TRUE", "t", "y", "yes", "on", "ON")]
    + [(word, False) for word in ("0", "false", "False", "f", "n", "no", "off", "OFF")],
)
async def test_use_safe_filename_is_a_boolean_of_pydantic(
    server: Server,
    value: str,
    versioned: bool,  # noqa: FBT001 - a column of the table
) -> None:
    """The words that FastAPI takes for true and false are taken, whatever their case."""
    form = [part("use_safe_filename", value), file_part()]
    await upload(server, body(*form))
    answer = await upload(server, body(*form))

    assert answer.status == (200 if versioned else 409)
    assert len(server.files()) == (2 if versioned else 1)


@pytest.mark.parametrize("value", ["", "2", "maybe", "null", "true ", "ja"])
async def test_another_word_is_fastapis_422(server: Server, value: str) -> None:
    """Anything else is refused in FastAPI's shape and words."""
    answer = await upload(server, body(file_part(), part("use_safe_filename", value)))

    assert answer.status == 422
    (complaint,) = answer.json["detail"]
    assert complaint["loc"] == ["body", "use_safe_filename"]
    assert complaint["type"] == "bool_parsing"
    assert "valid boolean" in complaint["msg"]
    assert await left_nothing(server)


async def test_a_missing_file_is_fastapis_422(server: Server) -> None:
    """A form without a file is refused as FastAPI does it."""
    answer = await upload(server, body(STYLES))

    expected = {"loc": ["body", "file"], "msg": "Field required", "type": "missing"}
    assert answer.json == {"detail": [expected]}


async def test_faces_are_for_admins(server: Server) -> None:
    """The public upload refuses `faces`, saying what it takes; the admin's takes it."""
    content = body(part("entity_type", "faces"), file_part())
    async with connected(server) as connection:
        length = {"Content-Length": str(len(content))}
        await connection.send(head(server, length, path="/lora/upload"), content)
        refused = await connection.answer()

    assert refused.status == 422
    assert refused.json["detail"][0]["loc"] == ["body", "entity_type"]
    assert "'styles'" in refused.json["detail"][0]["msg"]
    assert "faces" not in refused.json["detail"][0]["msg"]
    assert await left_nothing(server)
    assert (await upload(server, content)).status == 200


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\r" * 300_000, id="cr"),
        pytest.param(b"\r\n" * 300_000, id="crlf"),
        pytest.param(b"\r\n--BOUNDAR" * 50_000, id="near-boundaries"),
        pytest.param(b" --BOUNDARY\r\n" * 50_000, id="boundaries-within-lines"),
        pytest.param(b"-" * 300_000, id="dashes"),
        pytest.param(b"--BOUNDARY--", id="closing-without-line"),
        pytest.param(body(file_part(b"inner")).replace(b"BOUNDARY", b"INNER"), id="nested"),
    ],
)
async def test_look_alikes_are_content(server: Server, content: bytes) -> None:
    """Bytes that look like framing but are not come through unchanged."""
    # A line of its own would be a boundary, so the content never starts with one.
    answer = await upload(server, body(file_part(b"." + content)))

    assert answer.status == 200
    assert answer.json["sha256"] == hashlib.sha256(b"." + content).hexdigest()


async def test_a_body_may_trickle_in(server: Server) -> None:
    """A body in chunks of one byte each, each a packet of its own, is the same body."""
    content = body(STYLES, file_part(CONTENT))
    async with connected(server) as connection:
        await connection.send(head(server, {"Transfer-Encoding": "chunked"}))
        whole = chunked(bytes([byte]) for byte in content)
        await connection.send(*(whole[at : at + 6] for at in range(0, len(whole), 6)))
        answer = await connection.answer()

    assert answer.status == 200
    assert (server.models / "styles" / "ink.pt").read_bytes() == CONTENT


async def test_a_declared_length_of_a_part_may_hold(server: Server) -> None:
    """A part's own Content-Length is no reason to refuse it when it is true."""
    answer = await upload(server, body(file_part(b"12345", "a.pt", "Content-Length: 5")))

    assert answer.status == 200


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
    incoming = MultipartUpload(_Pieces(pieces), BOUNDARY, limits, ("styles",))
    try:
        name = await incoming.open()
        content = b"".join([b"".join(block) async for block in incoming.blocks()])
        return name, content, await incoming.finish()
    except LoraServerError as error:
        return type(error)


@pytest.mark.parametrize(
    "whole",
    [
        pytest.param(body(STYLES, file_part(CONTENT), part("use_safe_filename", "no")), id="good"),
        pytest.param(b"\r\n" + body(file_part(CONTENT)), id="line-break-before"),
        pytest.param(body(file_part(CONTENT))[:-2], id="no-line-break-after"),
    ],
)
async def test_no_split_changes_a_body(whole: bytes) -> None:
    """Cut in two at every byte, a good body is read as in one piece."""
    name, content, form = await _checked([whole])

    assert (name, content) == ("ink.pt", CONTENT)
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
        pytest.param(body(file_part(b"w", "a.pt", "X: y\nZ: 1")), id="bare-lf"),
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
