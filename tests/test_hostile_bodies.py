"""Attacks that a body carries: broken chunks, smuggled trailers, floods of small things."""

import asyncio

import pytest

from tests.hostile import FORM, answered, post, statuses, survives
from tests.server import Server
from tests.wire import (
    chunked,
    connected,
    file_part,
    head,
    part,
    until,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def server(shared: Server) -> Server:
    """Use one server for the whole module."""
    return shared


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param(b"zz\r\nabc\r\n0\r\n\r\n", id="bad-size"),
        pytest.param(b"5\r\nhelloX\r\n0\r\n\r\n", id="10596-size-differs"),
        pytest.param(b"5;a\nb\r\nhello\r\n0\r\n\r\n", id="bad-extension"),
        pytest.param(b"0\r\nX: a\x00b\r\n\r\n", id="bad-trailer"),
        pytest.param(b"0\r\n" + b"X: y\r\n" * 50_000 + b"\r\n", id="CVE-2026-22815-trailers"),
    ],
)
async def test_a_chunk_gone_wrong_ends_the_upload(server: Server, rest: bytes) -> None:
    """A malformed chunk after good ones ends the upload at once; nothing waits for a timeout."""
    piece = file_part()[:-50]
    async with connected(server) as connection:
        await connection.send(head(server, {"Transfer-Encoding": "chunked"}))
        await connection.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        await until(lambda: bool(server.files()))
        try:
            await connection.send(rest)
            status = (await connection.answer(within=3)).status
        except (ConnectionError, asyncio.IncompleteReadError):
            status = 400
        await until(lambda: server.in_flight == 0, within=3)

    assert status // 100 == 4
    assert await survives(server)


async def test_a_trailer_is_no_request(server: Server) -> None:
    """CVE-2025-53643: what follows the last chunk is never taken for a request of its own."""
    smuggled = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    content = chunked([FORM])[:-2] + b"X: " + smuggled
    received = await answered(server, head(server, {"Transfer-Encoding": "chunked"}) + content)

    assert len(statuses(received)) <= 2
    assert b'"status":"ok"' not in received.split(b"HTTP/1.")[1]


@pytest.mark.timeout(20)
async def test_floods_of_small_things_are_bounded(server: Server) -> None:
    """CVE-2025-69229, -69228, #13652, #13742: tiny chunks, many parts, a long preamble."""
    tiny = chunked([b"x"] * 100_000)
    floods = [
        head(server, {"Transfer-Encoding": "chunked"}) + tiny,
        post(f"Content-Length: {10**6}", b"\n" * 10**6),
        post(f"Content-Length: {10**6}", (part("a", "") * 20_000)[: 10**6]),
        post(f"Content-Length: {10**6}", (file_part() + part("a", "") * 20_000)[: 10**6]),
    ]
    answers = await asyncio.gather(*(answered(server, flood) for flood in floods))

    assert [statuses(answer)[:1] for answer in answers] == [[422]] * 4
    assert await survives(server)


async def test_an_upload_of_tiny_chunks_is_taken(server: Server) -> None:
    """A body of one-byte chunks is slow to send, but an upload like any other."""
    async with connected(server) as connection:
        pieces = chunked(bytes([byte]) for byte in FORM)
        await connection.send(head(server, {"Transfer-Encoding": "chunked"}), pieces)
        answer = await connection.answer()

    assert answer.status == 200
