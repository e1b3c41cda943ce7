"""LoRAs over HTTP: looked up by content, and downloaded."""

import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from lora_server.records import Judgement, Verdict
from tests.calls import FILES, INK, JSON, LORA, call, listing, lora_bytes, stored
from tests.server import ADMIN, Server

GARBAGE = b"\x00" * 16


# --- look-up by content


async def test_look_up_by_content(server: Server) -> None:
    """Any token can ask whether bytes are here, and learns nothing else."""
    sha256 = (await stored(server))["sha256"]
    here = await call(server, "HEAD", f"{FILES}/sha256/{sha256.upper()}")
    absent = await call(server, "HEAD", f"{FILES}/sha256/{'0' * 64}")
    wrong = await call(server, "HEAD", f"{FILES}/sha256/{sha256[:-1]}")

    assert (here.status, absent.status, wrong.status) == (200, 404, 422)
    assert not any("ink" in value for value in here.headers.values())
    assert "Location" not in here.headers


# --- download


async def test_a_download_is_the_file(server: Server) -> None:
    """All bytes, as bytes, for whoever has the read scope."""
    await stored(server)
    answer = await call(server, "GET", INK, headers=ADMIN)

    assert (answer.status, answer.body) == (200, lora_bytes())
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Repr-Digest"] == digest_header(lora_bytes())


def digest_header(content: bytes) -> str:
    """Return a Repr-Digest (RFC 9530)."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


async def test_head_tells_what_get_would(server: Server) -> None:
    """HEAD has the headers of GET and no body."""
    await stored(server)
    head, get = await call(server, "HEAD", INK), await call(server, "GET", INK)
    same = ("Content-Length", "ETag", "Repr-Digest", "Content-Type", "Content-Disposition")

    assert (head.status, head.body) == (200, b"")
    assert {name: head.headers[name] for name in same} == {n: get.headers[n] for n in same}


@pytest.mark.parametrize(
    ("wanted", "part"),
    [
        pytest.param("bytes=0-9", slice(0, 10), id="first"),
        pytest.param("bytes=100-", slice(100, None), id="from the middle"),
        pytest.param("bytes=-5", slice(-5, None), id="last"),
        pytest.param("bytes=0-999999999", slice(0, None), id="more than there is"),
    ],
)
async def test_ranges(server: Server, wanted: str, part: slice) -> None:
    """A part comes as 206; its digest is still that of the whole."""
    await stored(server)
    answer = await call(server, "GET", INK, headers=ADMIN | {"Range": wanted})
    start, stop, _ = part.indices(len(lora_bytes()))

    assert (answer.status, answer.body) == (206, lora_bytes()[part])
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(lora_bytes())}"
    assert answer.headers["Repr-Digest"] == digest_header(lora_bytes())


async def test_a_range_behind_the_end(server: Server) -> None:
    """An unsatisfiable range is a 416 that tells the size."""
    await stored(server)
    answer = await call(server, "GET", INK, headers=ADMIN | {"Range": "bytes=999999-"})

    assert (answer.status, answer.body) == (416, b"")
    assert answer.headers["Content-Range"] == f"bytes */{len(lora_bytes())}"


async def test_conditional_requests(server: Server) -> None:
    """What the client has already is not sent again; what changed is."""
    await stored(server)
    now = (await call(server, "GET", INK)).headers
    statuses = {}
    for name, value in (
        ("If-None-Match", now["ETag"]),
        ("If-None-Match", '"other"'),
        ("If-Modified-Since", now["Last-Modified"]),
        ("If-Modified-Since", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("If-Match", '"other"'),
    ):
        answer = await call(server, "GET", INK, headers=ADMIN | {name: value})
        statuses[name, value == now.get("ETag") or value == now["Last-Modified"]] = answer.status
        assert (answer.body == lora_bytes()) is (answer.status == 200)

    assert statuses == {
        ("If-None-Match", True): 304,
        ("If-None-Match", False): 200,
        ("If-Modified-Since", True): 304,
        ("If-Modified-Since", False): 200,
        ("If-Match", False): 412,
    }


async def test_no_digest_of_a_file_changed_by_hand(server: Server) -> None:
    """A recorded digest that may no longer fit is not sent along."""
    await stored(server)
    (server.models / "styles" / "ink.safetensors").write_bytes(b"changed")
    answer = await call(server, "GET", INK)

    assert (answer.status, answer.body) == (200, b"changed")
    assert "Repr-Digest" not in answer.headers


async def test_no_digest_of_a_file_swapped_at_the_last_moment(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file put in the place of the one that was looked at is not sent in its name."""
    await stored(server)
    path = server.models / "styles" / "ink.safetensors"
    prepare = web.FileResponse.prepare

    async def swap_and_prepare(self: web.FileResponse, request: web.BaseRequest) -> Any:
        path.unlink()
        path.write_bytes(b"other")
        return await prepare(self, request)

    monkeypatch.setattr(web.FileResponse, "prepare", swap_and_prepare)
    answer = await call(server, "GET", INK)

    assert (answer.status, answer.body) == (404, b"")
    assert "Repr-Digest" not in answer.headers


async def test_a_file_removed_by_hand(server: Server) -> None:
    """A file that is gone from the tree is gone, before the catalogue knows."""
    await stored(server)
    (server.models / "styles" / "ink.safetensors").unlink()

    assert (await call(server, "GET", INK)).status == 404
    deletion = await call(server, "DELETE", LORA, partial_path="styles/ink.safetensors")
    assert deletion.status == 404


async def test_a_link_put_in_place_of_a_file(server: Server, tmp_path: Path) -> None:
    """A symbolic link is never followed out of the tree."""
    await stored(server)
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    path = server.models / "styles" / "ink.safetensors"
    path.unlink()
    path.symlink_to(secret)

    assert (await call(server, "GET", INK)).status == 404


@pytest.mark.parametrize(("suffix", "coding"), [(".gz", "gzip"), (".br", "br")])
async def test_a_neighbour_is_no_encoding_of_a_file(
    server: Server, suffix: str, coding: str
) -> None:
    """A file that happens to be called like a compressed one is never sent in its place."""
    await stored(server)
    (server.models / "styles" / f"ink.safetensors{suffix}").write_bytes(GARBAGE)
    answer = await call(server, "GET", INK, headers=ADMIN | {"Accept-Encoding": coding})

    assert answer.body == lora_bytes()
    assert "Content-Encoding" not in answer.headers


async def test_a_refused_file_is_listed_but_not_served(server: Server) -> None:
    """What was judged and refused stays where it is, and is not handed out."""
    await stored(server)
    lora = (await server.library.catalog.known_files()).popitem()[1]
    refused = Judgement(verdict=Verdict.REFUSED, summary={"code": "x"}, inspection=None)
    await server.library.catalog.set_judgements({lora.id: refused})

    assert (await call(server, "GET", INK)).status == 404
    assert await listing(server, "verdict=refused") == ["styles/ink.safetensors"]
    detail = await call(server, "GET", f"{LORA}/styles/ink.safetensors", headers=ADMIN | JSON)
    assert detail.json["verdict"] == "refused"
