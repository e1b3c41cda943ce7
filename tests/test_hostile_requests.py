"""Known attacks on HTTP servers and form parsers, by their numbers; none may hurt the server."""

import asyncio
import os
import sys

import pytest

from tests.hostile import FORM, LENGTH, answered, post, statuses, survives
from tests.server import ADMIN, Server
from tests.wire import (
    chunked,
    connected,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def server(shared: Server) -> Server:
    """Use one server for the whole module."""
    return shared


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(
            post(f"{LENGTH}\r\nTransfer-Encoding: chunked", chunked([FORM])),
            id="GHSA-pjjw-CL-and-TE",
        ),
        pytest.param(post(f"{LENGTH}\r\n{LENGTH}"), id="two-CL"),
        pytest.param(post(f"Content-Length: {len(FORM)}, {len(FORM)}"), id="CL-list"),
        pytest.param(post(f"Content-Length: +{len(FORM)}"), id="CVE-2023-47627-signed-CL"),
        pytest.param(post(f"Content-Length: -{len(FORM)}"), id="negative-CL"),
        pytest.param(post(f"Content-Length: 0x{len(FORM):x}"), id="hex-CL"),
        pytest.param(post("Content-Length: 1_0"), id="underscore-CL"),
        pytest.param(post("Content-Length: \xb2"), id="CVE-2025-69224-digits"),
        pytest.param(post("Content-Length: " + "9" * 400), id="huge-CL"),
        pytest.param(post(f"Content-Length : {len(FORM)}"), id="space-before-colon"),
        pytest.param(post(f"{LENGTH}\r\n folded: yes"), id="folded-line"),
        pytest.param(post(f"{LENGTH}\r\nX: a\rb"), id="CVE-2023-37276-CR-in-value"),
        pytest.param(post(f"{LENGTH}\r\nX: a\nTransfer-Encoding: chunked"), id="LF-in-value"),
        pytest.param(post(f"{LENGTH}\r\nX: a\x00b"), id="NUL-in-value"),
        pytest.param(post(f"{LENGTH}\r\nX(: a"), id="bad-header-name"),
        pytest.param(post(f"{LENGTH}\r\nHost: y"), id="CVE-2026-34525-two-hosts"),
        pytest.param(post(f"{LENGTH}\r\nContent-Type: text/plain"), id="two-content-types"),
        pytest.param(post("Transfer-Encoding: chunked, identity", chunked([FORM])), id="TE-list"),
        pytest.param(post("Transfer-Encoding: xchunked", chunked([FORM])), id="unknown-TE"),
        pytest.param(
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", chunked([FORM])),
            id="two-TE",
        ),
        pytest.param(
            post("Transfer-Encoding: chunked", b"+5\r\nhello\r\n0\r\n\r\n"),
            id="signed-chunk",
        ),
        pytest.param(
            post("Transfer-Encoding: chunked", b"5_0\r\nhello\r\n0\r\n\r\n"), id="odd-chunk"
        ),
        pytest.param(
            post("Transfer-Encoding: chunked", b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
            id="CVE-2024-52304-LF-in-extension",
        ),
        pytest.param(
            post("Transfer-Encoding: chunked", b"3\r\nhello\r\n0\r\n\r\n"),
            id="10596-chunk-longer",
        ),
        pytest.param(post("Transfer-Encoding: chunked", b"f" * 17 + b"\r\nx"), id="huge-chunk"),
        pytest.param(
            post(LENGTH + "\r\n" + "\r\n".join(f"X{n}: y" for n in range(200))),
            id="CVE-2026-22815-headers",
        ),
        pytest.param(post(f"{LENGTH}\r\nX: " + "y" * 10_000), id="long-header"),
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
    received = await answered(server, request_)

    assert [status // 100 for status in statuses(received)] in ([4], [])
    assert b"Traceback" not in received
    assert b"aiohttp" not in received
    assert await survives(server)


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
    received = await answered(server, lines.encode())

    assert all(status < 500 for status in statuses(received))
    assert b"root:" not in received
    assert b"Traceback" not in received


_AUTH = f"Authorization: {ADMIN['Authorization']}"


async def test_pipelined_requests_are_answered_in_turn(server: Server) -> None:
    """CVE-2026-54273: a thousand requests in one go are answered one after the other."""
    request = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    async with connected(server) as connection:
        await connection.send(request * 1000)
        for _ in range(1000):
            assert (await connection.answer()).status == 200


async def test_a_request_in_fragments_is_bounded(server: Server) -> None:
    """CVE-2026-54277: a request line sent bit by bit is refused at the same length."""
    received = await answered(server, b"GET /", *[b"a" * 4000] * 5)

    assert statuses(received) in ([400], [])
    assert await survives(server)


@pytest.mark.parametrize("length", [1000, 60], ids=["unfinished", "finished"])
async def test_the_body_of_a_refused_upload_is_no_request(server: Server, length: int) -> None:
    """What was announced as a body is never read as a request, whether it all came or not."""
    smuggled = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n".ljust(60)
    refused = post(f"Content-Encoding: gzip\r\nContent-Length: {length}", b"")
    received = await answered(server, refused, smuggled)

    assert statuses(received) == [415]


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
