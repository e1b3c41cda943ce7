"""Uploading over HTTP: the contract, as a client sees it."""

import asyncio
import hashlib

import pytest

from tests.loras import lora
from tests.server import ADMIN, UPLOADER, Server, form

SMALL = lora()


async def test_an_upload_is_stored_under_its_name(server: Server) -> None:
    """The answer has the contract's fields, and the file is there, byte for byte."""
    async with server.session.post(
        f"{server.api}/lora/upload", data=form(SMALL, entity_type="styles"), headers=UPLOADER
    ) as response:
        answer = await response.json()

    assert response.status == 200
    assert answer["partial_path"] == "styles/ink.safetensors"
    assert answer["file_path"] == str(server.models / "styles" / "ink.safetensors")
    assert answer["file_size"] == len(SMALL)
    assert answer["filename"] == "ink.safetensors"
    assert answer["sha256"] == hashlib.sha256(SMALL).hexdigest()
    assert (server.models / "styles" / "ink.safetensors").read_bytes() == SMALL
    assert len(server.files()) == 1


async def test_a_taken_name_is_versioned(server: Server) -> None:
    """The same name again becomes _v2, then _v3."""
    paths = []
    for _ in range(3):
        async with server.session.post(
            f"{server.api}/admin/lora/upload", data=form(SMALL, entity_type="faces"), headers=ADMIN
        ) as response:
            paths.append((await response.json())["partial_path"])

    assert paths == [f"faces/ink{suffix}.safetensors" for suffix in ("", "_v2", "_v3")]


async def test_a_race_for_one_name_overwrites_nothing(server: Server) -> None:
    """Forty uploads of one name at once become forty versions, each with its own bytes."""
    contents = [lora(5000, bytes([number])) for number in range(40)]

    async def send(content: bytes) -> tuple[str, str]:
        async with server.session.post(
            f"{server.api}/admin/lora/upload",
            data=form(content, entity_type="clothes"),
            headers=UPLOADER | ADMIN,
        ) as response:
            while response.status == 429:
                pytest.fail("the limits are too tight for this test")
            answer = await response.json()
            return answer["partial_path"], answer["sha256"]

    results = []
    for start in range(0, 40, 10):
        results += await asyncio.gather(
            *(send(content) for content in contents[start : start + 10])
        )

    assert len({path for path, _ in results}) == 40
    for path, sha256 in results:
        assert hashlib.sha256((server.models / path).read_bytes()).hexdigest() == sha256
