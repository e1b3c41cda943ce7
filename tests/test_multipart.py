"""The form of an upload: which parts, fields and content are taken."""

import hashlib

import pytest

from tests.loras import SMALLEST, lora
from tests.server import Server
from tests.wire import (
    WEIGHTS,
    body,
    chunked,
    connected,
    file_part,
    head,
    left_nothing,
    part,
    upload,
)

STYLES = part("entity_type", "styles")
HUGE = "x" * (64 * 1024 + 1)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def server(shared: Server) -> Server:
    """Use one server for the whole module."""
    return shared


@pytest.mark.parametrize(
    ("parts", "partial_path"),
    [
        pytest.param([STYLES, file_part()], "styles/ink.safetensors", id="field-first"),
        pytest.param([file_part(), STYLES], "styles/ink.safetensors", id="field-last"),
        pytest.param([file_part()], "no_type_provided/ink.safetensors", id="no-type"),
        pytest.param(
            [part("entity_type", ""), file_part()], "no_type_provided/ink.safetensors", id="empty"
        ),
        pytest.param(
            [part("a", "b"), file_part(), part("a", "c"), STYLES], "styles/ink.safetensors", id="?"
        ),
        pytest.param(
            [
                part("extra", b"\x00\xff", disposition='form-data; name="x"; filename="x"'),
                file_part(),
            ],
            "no_type_provided/ink.safetensors",
            id="unknown-file",
        ),
        pytest.param(
            [part(f"f{n}", "") for n in range(15)] + [file_part()],
            "no_type_provided/ink.safetensors",
            id="16",
        ),
        pytest.param(
            [part("note", HUGE[1:]), file_part()], "no_type_provided/ink.safetensors", id="64KiB"
        ),
        pytest.param(
            [part("sha256", ""), file_part()], "no_type_provided/ink.safetensors", id="empty-digest"
        ),
    ],
)
async def test_parts_come_in_any_order(
    server: Server, parts: list[bytes], partial_path: str
) -> None:
    """The file may stand anywhere among the fields, and unknown parts are ignored."""
    answer = await upload(server, body(*parts))

    assert (answer.status, answer.json["partial_path"]) == (200, partial_path)
    assert [path.read_bytes() for path in server.files()] == [WEIGHTS]


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
        pytest.param(body(file_part()).replace(b"BOUNDARY", b"INNER"), id="nested"),
    ],
)
async def test_look_alikes_are_content(server: Server, content: bytes) -> None:
    """Bytes that look like framing but are not come through unchanged."""
    # Behind a dot, since a line that starts with the boundary would be one.
    weights = lora(SMALLEST + len(content), b"." + content)
    answer = await upload(server, body(file_part(content=weights)))

    assert answer.status == 200
    assert answer.json["sha256"] == hashlib.sha256(weights).hexdigest()


async def test_a_body_may_trickle_in(server: Server) -> None:
    """A body in chunks of one byte each, each a packet of its own, is the same body."""
    content = body(STYLES, file_part())
    async with connected(server) as connection:
        await connection.send(head(server, {"Transfer-Encoding": "chunked"}))
        whole = chunked(bytes([byte]) for byte in content)
        await connection.send(*(whole[at : at + 6] for at in range(0, len(whole), 6)))
        answer = await connection.answer()

    assert answer.status == 200
    assert (server.models / "styles" / "ink.safetensors").read_bytes() == WEIGHTS


async def test_a_declared_length_of_a_part_may_hold(server: Server) -> None:
    """A part's own Content-Length is no reason to refuse it when it is true."""
    answer = await upload(server, body(file_part(f"Content-Length: {len(WEIGHTS)}")))

    assert answer.status == 200
