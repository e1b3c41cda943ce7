"""LoRAs over HTTP: moved and deleted, and the JSON that asks for it."""

import json
from typing import Any

import pytest

from tests.calls import (
    BIN,
    FILES,
    INK,
    LORA,
    STAMP,
    call,
    deleted,
    listing,
    lora_bytes,
    raw_call,
    stored,
)
from tests.server import ADMIN, Server

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def server(shared: Server) -> Server:
    """Use one server for the whole module."""
    return shared


# --- move


async def test_a_move_takes_file_and_knowledge_along(server: Server) -> None:
    """The file stands under the new type, with what was set by hand, and nowhere else."""
    await stored(server)
    await call(server, "PATCH", f"{LORA}/styles/ink.safetensors", notes="n")
    answer = await call(
        server, "POST", f"{LORA}/move", partial_path="styles/ink.safetensors", entity_type="faces"
    )

    assert answer.json["partial_path"] == "faces/ink.safetensors"
    assert answer.json["overrides"]["notes"] == "n"
    assert server.files() == [server.models / "faces" / "ink.safetensors"]
    assert await listing(server) == ["faces/ink.safetensors"]


async def test_a_move_never_overwrites(server: Server) -> None:
    """A name that is taken there is versioned."""
    await stored(server, entity_type="styles", seed=1)
    await stored(server, entity_type="faces", seed=2)
    answer = await call(
        server, "POST", f"{LORA}/move", partial_path="styles/ink.safetensors", entity_type="faces"
    )

    assert answer.json["partial_path"] == "faces/ink_v2.safetensors"
    assert (server.models / "faces" / "ink.safetensors").read_bytes() == lora_bytes(2)
    assert (server.models / "faces" / "ink_v2.safetensors").read_bytes() == lora_bytes(1)


async def test_a_move_to_where_it_is(server: Server) -> None:
    """Moving a file to its own type changes nothing."""
    await stored(server)
    answer = await call(
        server, "POST", f"{LORA}/move", partial_path="styles/ink.safetensors", entity_type="styles"
    )

    assert answer.json["partial_path"] == "styles/ink.safetensors"


@pytest.mark.parametrize(
    ("partial_path", "entity_type", "status"),
    [
        pytest.param("styles/nope.safetensors", "faces", 404, id="no such file"),
        pytest.param("styles/ink.safetensors", "nope", 422, id="no such type"),
        pytest.param("styles/ink.safetensors", "../etc", 422, id="traversal in the type"),
        pytest.param("../ink.safetensors", "faces", 422, id="traversal"),
        pytest.param("styles/ink.safetensors", "no_type_provided", 200, id="no type"),
    ],
)
async def test_moves_that_cannot_be(
    server: Server, partial_path: str, entity_type: str, status: int
) -> None:
    """A type must be one of the configured ones, or none."""
    await stored(server)
    answer = await call(
        server, "POST", f"{LORA}/move", partial_path=partial_path, entity_type=entity_type
    )

    assert answer.status == status
    assert len(server.files()) == 1


# --- delete


async def test_a_deletion_moves_the_file_to_the_bin(server: Server) -> None:
    """The answer says where from, where to and when; the bytes are in the bin."""
    await stored(server)
    answer = await call(server, "DELETE", LORA, partial_path="styles/ink.safetensors")
    binned = server.bin / "styles" / "ink.safetensors"

    assert answer.status == 200
    assert STAMP.fullmatch(answer.json["timestamp"])
    assert {key: value for key, value in answer.json.items() if key != "timestamp"} == {
        "deleted": True,
        "full_path": str(server.models / "styles" / "ink.safetensors"),
        "bin_path": str(binned),
    }
    assert server.files() == [binned]
    assert binned.read_bytes() == lora_bytes()


async def test_what_was_deleted_is_gone_everywhere(server: Server) -> None:
    """Until it is restored, no address of the library knows it."""
    upload = await stored(server)
    bin_path = await deleted(server)
    addresses = [
        ("GET", f"{LORA}/styles/ink.safetensors"),
        ("GET", INK),
        ("HEAD", INK),
        ("HEAD", f"{FILES}/sha256/{upload['sha256']}"),
    ]
    gone = [(await call(server, *address)).status for address in addresses]
    again = await call(server, "DELETE", LORA, partial_path="styles/ink.safetensors")
    in_list = await listing(server)
    await call(server, "POST", f"{BIN}/restore", bin_path=bin_path)
    back = [(await call(server, *address)).status for address in addresses]

    assert (gone, again.status, in_list) == ([404] * 4, 404, [])
    assert back == [200] * 4


@pytest.mark.parametrize(
    "partial_path",
    [
        pytest.param("../etc/passwd", id="traversal"),
        pytest.param("styles/../faces/ink.safetensors", id="traversal inside"),
        pytest.param("styles/./ink.safetensors", id="dot"),
        pytest.param("/data/models/loras/styles/ink.safetensors", id="absolute"),
        pytest.param("nope/ink.safetensors", id="unknown type"),
        pytest.param("ink.safetensors", id="no type"),
        pytest.param("styles/", id="no name"),
        pytest.param("styles/.ink.safetensors", id="hidden"),
        pytest.param("styles/ink.txt", id="other extension"),
        pytest.param("styles/ink.safetensors\0", id="null byte"),
        pytest.param("styles\\ink.safetensors", id="backslash"),
        pytest.param("", id="empty"),
        pytest.param(f"styles/{'x' * 300}.safetensors", id="too long"),
    ],
)
async def test_paths_that_can_name_nothing(server: Server, partial_path: str) -> None:
    """Such a path is a 422 before any file is looked for."""
    await stored(server)
    answer = await call(server, "DELETE", LORA, partial_path=partial_path)

    assert answer.status == 422
    assert answer.complaints == [(["body", "partial_path"], "value_error")]
    assert len(server.files()) == 1


NOT_AN_OBJECT = "Input should be a valid dictionary or object to extract fields from"


@pytest.mark.parametrize(
    ("body", "loc", "kind"),
    [
        pytest.param(b"", ["body"], "missing", id="no body"),
        pytest.param(b"null", ["body"], "missing", id="null"),
        pytest.param(b"{", ["body", 1], "json_invalid", id="no JSON"),
        pytest.param(b"{} x", ["body", 3], "json_invalid", id="JSON and more"),
        pytest.param(b"{}", ["body", "partial_path"], "missing", id="no member"),
        pytest.param(b"[]", ["body"], "model_attributes_type", id="list"),
        pytest.param(b'"x"', ["body"], "model_attributes_type", id="string"),
        pytest.param(b'{"partial_path": 5}', ["body", "partial_path"], "string_type", id="number"),
        pytest.param(b'{"partial_path": null}', ["body", "partial_path"], "string_type", id="nil"),
        pytest.param(b"[" * 60_000, ["body", 0], "json_invalid", id="deep"),
        pytest.param(b'{"partial_path":' * 4000, ["body", 0], "json_invalid", id="deep objects"),
        pytest.param(b'{"partial_path": "\xff"}', ["body", 0], "json_invalid", id="no UTF-8"),
        pytest.param(
            b'{"partial_path": "styles/\\ud800.pt"}', ["body", 0], "json_invalid", id="surrogate"
        ),
        pytest.param(b"9" * 5000, ["body", 0], "json_invalid", id="endless number"),
    ],
)
async def test_bodies_that_are_not_what_is_asked(
    server: Server, body: bytes, loc: list[Any], kind: str
) -> None:
    """Each is FastAPI's complaint, at FastAPI's place."""
    answer = await raw_call(server, "DELETE", LORA, body)

    assert (answer.status, answer.complaints) == (422, [(loc, kind)])


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        pytest.param("application/json", 404, id="JSON"),
        pytest.param("application/json; charset=utf-8", 404, id="with a charset"),
        pytest.param("application/merge-patch+json", 404, id="a kind of JSON"),
        pytest.param("text/plain", 422, id="text"),
        pytest.param("application/x-www-form-urlencoded", 422, id="form"),
        pytest.param("application/octet-stream", 422, id="bytes"),
    ],
)
async def test_only_json_is_read_as_json(server: Server, content_type: str, status: int) -> None:
    """What says that it is something else is refused as FastAPI does."""
    body = json.dumps({"partial_path": "styles/ink.safetensors"}).encode()
    headers = ADMIN | {"Content-Type": content_type}
    answer = await call(server, "DELETE", LORA, headers=headers, data=body)

    assert answer.status == status
    if status == 422:
        assert answer.json["detail"] == [
            {"loc": ["body"], "msg": NOT_AN_OBJECT, "type": "model_attributes_type"}
        ]


async def test_json_bodies_are_bounded(server: Server) -> None:
    """64 KiB are read, one more is a 413."""
    path = b'{"partial_path": "styles/ink.safetensors"}'
    fits = await raw_call(server, "DELETE", LORA, path.ljust(64 * 1024))
    over = await raw_call(server, "DELETE", LORA, path.ljust(65 * 1024))

    assert (fits.status, over.status) == (404, 413)
    assert set(over.json) == {"detail"}
    assert "send less" in over.json["detail"]
