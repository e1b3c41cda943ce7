"""A client that does not wait can read its refusal all the same, within bounds."""

import asyncio
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests

from tests.server import Server, form
from tests.wire import (
    connected,
    head,
)

TEN_MIB = 10 * 1024 * 1024


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def server(shared: Server) -> Server:
    """Use one server for the whole module."""
    return shared


BAD = {"Authorization": "Bearer nonsense"}


def _curl(url: str, file: Path) -> tuple[int, str]:
    """Upload with curl, not waiting for a 100; returns status and body."""
    command = ["curl", "--silent", "--show-error", "--header", "Expect:", "--form", f"file=@{file}"]
    command += [
        "--header",
        f"Authorization: {BAD['Authorization']}",
        "--write-out",
        "\n%{http_code}",
    ]
    done = subprocess.run([*command, url], capture_output=True, text=True, timeout=30, check=True)
    answer, _, status = done.stdout.rpartition("\n")
    return int(status), answer


def _requests(url: str, file: Path) -> tuple[int, str]:
    with file.open("rb") as content:
        answer = requests.post(url, files={"file": content}, headers=BAD, timeout=30)
    return answer.status_code, answer.text


def _httpx(url: str, file: Path) -> tuple[int, str]:
    with file.open("rb") as content:
        answer = httpx.post(url, files={"file": content}, headers=BAD, timeout=30)
    return answer.status_code, answer.text


@pytest.mark.parametrize("client", [_curl, _requests, _httpx])
async def test_a_client_that_does_not_wait_reads_its_answer(
    server: Server, tmp_path: Path, client: Any
) -> None:
    """Ten mebibytes sent in vain do not keep the refusal from being read in full."""
    file = tmp_path / "large.safetensors"
    file.write_bytes(bytes(TEN_MIB))
    status, answer = await asyncio.to_thread(client, f"{server.api}/lora/upload", file)

    assert status == 401
    assert answer.endswith('that is valid."}')


async def test_aiohttp_reads_its_answer(server: Server) -> None:
    """The framework's own client reads a refusal too."""
    data = form(BytesIO(bytes(TEN_MIB)))
    async with server.session.post(f"{server.api}/lora/upload", data=data, headers=BAD) as response:
        assert response.status == 401
        assert "detail" in await response.json()


@pytest.mark.parametrize("headers", [{"Content-Length": "40000"}, {"Transfer-Encoding": "chunked"}])
async def test_a_slow_client_reads_its_answer(server: Server, headers: dict[str, str]) -> None:
    """A client that is still sending when the answer comes reads it in full."""
    piece = b"3e8\r\n" + b"x" * 1000 + b"\r\n"
    async with connected(server) as connection:
        await connection.send(head(server, headers | BAD))
        await connection.send(*[piece] * 10, pause=0.02)
        answer = await connection.answer()

    assert answer.status == 401
    assert answer.json["detail"]


async def test_a_client_that_goes_on_is_cut_off(server: Server) -> None:
    """Whoever sends more than 16 MiB after the answer, or for over 2 s, is disconnected."""
    loop = asyncio.get_running_loop()
    async with connected(server) as fast, connected(server) as slow:
        await fast.send(head(server, BAD | {"Content-Length": str(10**8)}))
        await slow.send(head(server, BAD | {"Content-Length": str(10**8)}), b"x")
        began = loop.time()
        with pytest.raises(ConnectionError):
            await fast.send(*[bytes(TEN_MIB)] * 10)
        fast_s = loop.time() - began
        await slow.answer()

        assert fast_s < 2
        assert await slow.closed(within=3)
