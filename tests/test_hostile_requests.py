"""Known attacks on HTTP servers and form parsers, by their numbers; none may hurt the server."""

import asyncio
import os
import re
import sys

import pytest

from tests.server import ADMIN, Server
from tests.wire import (
    BOUNDARY,
    body,
    chunked,
    connected,
    file_part,
    head,
    left_nothing,
    part,
    until,
    upload,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

UPLOAD = "POST /api/v1/admin/lora/upload HTTP/1.1\r\nHost: x\r\n"
UPLOAD += f"Authorization: {ADMIN['Authorization']}\r\n"
UPLOAD += f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
FORM = body(file_part())


@pytest.fixture
def server(shared: Server) -> Server:
    """Use one server for the whole module."""
    return shared


async def _answered(server: Server, request: bytes, *more: bytes) -> bytes:
    """Send bytes, and return all that comes back within a moment."""
    async with connected(server) as connection:
        received = b""
        try:
            await connection.send(request, *more, pause=0.02)
            async with asyncio.timeout(0.5):
                while chunk := await connection.reader.read(65536):
                    received += chunk
        except (TimeoutError, ConnectionError):
            pass
        return received


def _statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", received)]


async def _survives(server: Server) -> bool:
    """Tell whether the server still takes an upload, and nothing was left by what came before."""
    clean = await left_nothing(server)
    return clean and (await upload(server, FORM)).status == 200


def _with(lines: str, content: bytes = FORM) -> bytes:
    return (UPLOAD + lines + "\r\n\r\n").encode("latin-1") + content


LENGTH = f"Content-Length: {len(FORM)}"


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(
            _with(f"{LENGTH}\r\nTransfer-Encoding: chunked", chunked([FORM])),
            id="GHSA-pjjw-CL-and-TE",
        ),
        pytest.param(_with(f"{LENGTH}\r\n{LENGTH}"), id="two-CL"),
        pytest.param(_with(f"Content-Length: {len(FORM)}, {len(FORM)}"), id="CL-list"),
        pytest.param(_with(f"Content-Length: +{len(FORM)}"), id="CVE-2023-47627-signed-CL"),
        pytest.param(_with(f"Content-Length: -{len(FORM)}"), id="negative-CL"),
        pytest.param(_with(f"Content-Length: 0x{len(FORM):x}"), id="hex-CL"),
        pytest.param(_with("Content-Length: 1_0"), id="underscore-CL"),
        pytest.param(_with("Content-Length: \xb2"), id="CVE-2025-69224-digits"),
        pytest.param(_with("Content-Length: " + "9" * 400), id="huge-CL"),
        pytest.param(_with(f"Content-Length : {len(FORM)}"), id="space-before-colon"),
        pytest.param(_with(f"{LENGTH}\r\n folded: yes"), id="folded-line"),
        pytest.param(_with(f"{LENGTH}\r\nX: a\rb"), id="CVE-2023-37276-CR-in-value"),
        pytest.param(_with(f"{LENGTH}\r\nX: a\nTransfer-Encoding: chunked"), id="LF-in-value"),
        pytest.param(_with(f"{LENGTH}\r\nX: a\x00b"), id="NUL-in-value"),
        pytest.param(_with(f"{LENGTH}\r\nX(: a"), id="bad-header-name"),
        pytest.param(_with(f"{LENGTH}\r\nHost: y"), id="CVE-2026-34525-two-hosts"),
        pytest.param(_with(f"{LENGTH}\r\nContent-Type: text/plain"), id="two-content-types"),
        pytest.param(_with("Transfer-Encoding: chunked, identity", chunked([FORM])), id="TE-list"),
        pytest.param(_with("Transfer-Encoding: xchunked", chunked([FORM])), id="unknown-TE"),
        pytest.param(
            _with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", chunked([FORM])),
            id="two-TE",
        ),
        pytest.param(
            _with("Transfer-Encoding: chunked", b"+5\r\nhello\r\n0\r\n\r\n"), id="signed-chunk"
        ),
        pytest.param(
            _with("Transfer-Encoding: chunked", b"5_0\r\nhello\r\n0\r\n\r\n"), id="odd-chunk"
        ),
        pytest.param(
            _with("Transfer-Encoding: chunked", b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
            id="CVE-2024-52304-LF-in-extension",
        ),
        pytest.param(
            _with("Transfer-Encoding: chunked", b"3\r\nhello\r\n0\r\n\r\n"), id="10596-chunk-longer"
        ),
        pytest.param(_with("Transfer-Encoding: chunked", b"f" * 17 + b"\r\nx"), id="huge-chunk"),
        pytest.param(
            _with(LENGTH + "\r\n" + "\r\n".join(f"X{n}: y" for n in range(200))),
            id="CVE-2026-22815-headers",
        ),
        pytest.param(_with(f"{LENGTH}\r\nX: " + "y" * 10_000), id="long-header"),
        pytest.param(b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", id="long-line"),
        pytest.param(b"GET /livez HTTP/1.1\r\n\r\n", id="no-host"),
        pytest.param(b"GET /livez HTTP/2.0\r\nHost: x\r\n\r\n", id="version"),
        pytest.param(b"G\x00T /livez HTTP/1.1\r\nHost: x\r\n\r\n", id="NUL-in-method"),
        pytest.param(b"GET /livez\r\n\r\n", id="http-0.9"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="tls"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="h2"),
    ],
)
async def test_what_can_be_read_in_two_ways_is_not_read(server: Server, request_: bytes) -> None:
    """Smuggling, floods and other protocols get one 4xx, an end, and nothing of theirs back."""
    received = await _answered(server, request_)

    assert [status // 100 for status in _statuses(received)] in ([4], [])
    assert b"Traceback" not in received
    assert b"aiohttp" not in received
    assert await _survives(server)


@pytest.mark.parametrize(
    "target",
    [
        "*",
        "http://evil/livez",
        "//evil//livez",
        "/%zz%00%ff",
        "/livez/../admin",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/docs/%2e%2e%2fservice.py",
        "/?" + "a=b&" * 1000,
        "/api/v1/lora/styles/..%2f..%2f..%2fetc%2fpasswd",
        "/api/v1/lora/%00/x.pt",
        "/api/v1/lora/sha256/zz",
        "/api/v1/admin/lora?limit=%ff",
        "/api/v1/admin/lora?skip=" + "9" * 30,
    ],
)
@pytest.mark.parametrize("method", ["GET", "OPTIONS", "CONNECT"])
async def test_odd_targets_are_answered(server: Server, method: str, target: str) -> None:
    """Whatever stands for a path, the answer is one of ours and never a 500."""
    lines = f"{method} {target} HTTP/1.1\r\nHost: x\r\n{_AUTH}\r\nConnection: close\r\n\r\n"
    received = await _answered(server, lines.encode())

    assert all(status < 500 for status in _statuses(received))
    assert b"root:" not in received
    assert b"Traceback" not in received


_AUTH = f"Authorization: {ADMIN['Authorization']}"


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
    assert await _survives(server)


async def test_a_trailer_is_no_request(server: Server) -> None:
    """CVE-2025-53643: what follows the last chunk is never taken for a request of its own."""
    smuggled = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    content = chunked([FORM])[:-2] + b"X: " + smuggled
    received = await _answered(server, head(server, {"Transfer-Encoding": "chunked"}) + content)

    assert len(_statuses(received)) <= 2
    assert b'"status":"ok"' not in received.split(b"HTTP/1.")[1]


@pytest.mark.timeout(20)
async def test_floods_of_small_things_are_bounded(server: Server) -> None:
    """CVE-2025-69229, -69228, #13652, #13742: tiny chunks, many parts, a long preamble."""
    tiny = chunked([b"x"] * 100_000)
    floods = [
        head(server, {"Transfer-Encoding": "chunked"}) + tiny,
        _with(f"Content-Length: {10**6}", b"\n" * 10**6),
        _with(f"Content-Length: {10**6}", (part("a", "") * 20_000)[: 10**6]),
        _with(f"Content-Length: {10**6}", (file_part() + part("a", "") * 20_000)[: 10**6]),
    ]
    answers = await asyncio.gather(*(_answered(server, flood) for flood in floods))

    assert [_statuses(answer)[:1] for answer in answers] == [[422]] * 4
    assert await _survives(server)


async def test_an_upload_of_tiny_chunks_is_taken(server: Server) -> None:
    """A body of one-byte chunks is slow to send, but an upload like any other."""
    async with connected(server) as connection:
        pieces = chunked(bytes([byte]) for byte in FORM)
        await connection.send(head(server, {"Transfer-Encoding": "chunked"}), pieces)
        answer = await connection.answer()

    assert answer.status == 200


async def test_pipelined_requests_are_answered_in_turn(server: Server) -> None:
    """CVE-2026-54273: a thousand requests in one go are answered one after the other."""
    request = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    async with connected(server) as connection:
        await connection.send(request * 1000)
        for _ in range(1000):
            assert (await connection.answer()).status == 200


async def test_a_request_in_fragments_is_bounded(server: Server) -> None:
    """CVE-2026-54277: a request line sent bit by bit is refused at the same length."""
    received = await _answered(server, b"GET /", *[b"a" * 4000] * 5)

    assert _statuses(received) in ([400], [])
    assert await _survives(server)


@pytest.mark.parametrize("length", [1000, 60], ids=["unfinished", "finished"])
async def test_the_body_of_a_refused_upload_is_no_request(server: Server, length: int) -> None:
    """What was announced as a body is never read as a request, whether it all came or not."""
    smuggled = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n".ljust(60)
    refused = _with(f"Content-Encoding: gzip\r\nContent-Length: {length}", b"")
    received = await _answered(server, refused, smuggled)

    assert _statuses(received) == [415]


async def test_assertions_are_needed() -> None:
    """CVE-2025-69227: under PYTHONOPTIMIZE the framework is unsafe, so the start is refused."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-O", "-m", "lora_server", "serve"),
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    errors = (await process.communicate())[1].decode()

    assert process.returncode == 78
    assert "PYTHONOPTIMIZE" in errors
