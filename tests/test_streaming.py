"""An upload while it flows: bounded in memory, bounded in time, and held back by a slow disk."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lora_server import store
from lora_server.staging import StagedFile
from tests.daemon import Daemon, serving
from tests.loras import lora, lora_header
from tests.server import Server, make_config, running
from tests.wire import (
    Answer,
    Listening,
    body,
    connected,
    file_part,
    head,
    left_nothing,
    until,
    upload,
)

MIB = 1024 * 1024
OPENING = file_part(content=b"").removesuffix(b"\r\n")
CLOSING = b"\r\n" + body()


async def _stream(server: Listening, size: int) -> Answer:
    """Upload a LoRA of `size` bytes without holding it in memory."""
    length = len(OPENING) + size + len(CLOSING)
    async with connected(server) as connection:
        await connection.send(head(server, {"Content-Length": str(length)}), OPENING)
        await connection.send(lora_header(size), *[bytes(MIB)] * ((size - 256) // MIB))
        await connection.send(bytes((size - 256) % MIB), CLOSING)
        return await connection.answer(within=60)


async def _growth(daemon: Daemon, size: int) -> int:
    """Return by how many bytes the server's memory grows, at most, while it takes `size`."""
    before = await asyncio.to_thread(daemon.memory, "VmRSS")
    await asyncio.to_thread(daemon.forget_peak)
    answer = await _stream(daemon, size)
    assert answer.status == 200
    return await asyncio.to_thread(daemon.memory, "VmHWM") - before


async def test_memory_is_flat(tmp_path: Path) -> None:
    """A file of 300 MB takes less than 40 MB of memory, and no more than one of 50 MB."""
    async with serving(tmp_path) as daemon:
        await _stream(daemon, 5 * MIB)  # what is loaded at the first upload stays loaded
        small = await _growth(daemon, 50 * MIB)
        large = await _growth(daemon, 300 * MIB)

    assert large < 40 * MIB
    assert large < small + 10 * MIB


class _HeldFile(StagedFile):
    """A file on a disk that stands still until it is released."""

    released = threading.Event()

    def _append(self, block: list[bytes]) -> None:
        self.released.wait(20)
        super()._append(block)


async def test_a_slow_disk_holds_the_client_back(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the disk stands still, only what fits into buffers is taken from a fast client."""
    monkeypatch.setattr(store, "StagedFile", _HeldFile)
    content = body(file_part(content=lora(64 * MIB)))
    sent = 0
    async with connected(server) as connection:
        length = {"Content-Length": str(len(content))}
        await connection.send(head(server, length))
        try:
            async with asyncio.timeout(1):
                for at in range(0, len(content), MIB):
                    await connection.send(content[at : at + MIB])
                    sent = at + MIB
        except TimeoutError:
            pass
        finally:
            _HeldFile.released.set()
        await connection.send(content[sent + MIB :])
        answer = await connection.answer(within=30)

    assert sent < 24 * MIB  # two blocks, the parser's buffer, and what the kernel keeps
    assert answer.status == 200


IMPATIENT = {"upload_idle_timeout": 0.3, "min_upload_rate": 100_000}


@pytest.fixture
async def impatient(tmp_path: Path) -> AsyncIterator[Server]:
    """Run a server that soon loses patience."""
    async with running(make_config(tmp_path, server=IMPATIENT)) as running_server:
        yield running_server


@pytest.mark.parametrize(
    ("pieces", "why"),
    [
        pytest.param([b"--BOUN"], "No data came for 0.3 s", id="in-boundary"),
        pytest.param([OPENING], "No data came for 0.3 s", id="in-file"),
        pytest.param([file_part(content=lora(3 * MIB))], "No data came", id="before-closing"),
        pytest.param(
            [OPENING, lora(3 * MIB)[:2000], *[b"x" * 100] * 60],
            "less than 100000 bytes/s",
            id="drip",
        ),
        pytest.param(
            [OPENING, lora(3 * MIB), *[b"x" * 100] * 60], "less than", id="drip-after-a-fast-start"
        ),
    ],
)
async def test_a_body_that_dawdles_is_408(
    impatient: Server, pieces: Sequence[bytes], why: str
) -> None:
    """A body that stands still or falls under the rate is refused, however fast it began."""
    request = head(impatient, {"Content-Length": str(9 * MIB)})
    async with connected(impatient) as connection:
        sending = asyncio.create_task(connection.send(request, *pieces, pause=0.02))
        answer = await connection.answer(within=3)
        sending.cancel()

        assert answer.status == 408
        assert why in answer.json["detail"]
        assert await left_nothing(impatient)


async def test_a_json_body_that_stands_still_is_408(impatient: Server) -> None:
    """The bodies of other requests may not hold a connection for ever either."""
    headers = {"Content-Length": "50", "Content-Type": "application/json"}
    async with connected(impatient) as connection:
        request = head(impatient, headers, method="DELETE", path="/admin/lora")
        await connection.send(request, b'{"partial')
        answer = await connection.answer(within=3)

    assert answer.status == 408


WHOLE = body(file_part(content=lora(2 * MIB)))


@pytest.mark.parametrize("ending", ["reset", "close", "half-close"])
@pytest.mark.parametrize(
    "sent",
    [0, 5, 40, len(OPENING), len(OPENING) + 100, MIB, len(WHOLE) - 20, len(WHOLE) - 5],
)
async def test_a_client_that_vanishes_leaves_nothing(
    server: Server, sent: int, ending: str
) -> None:
    """Wherever a connection ends and however, no file, no row and no slot is left."""
    async with connected(server) as connection:
        await connection.send(head(server, {"Content-Length": str(len(WHOLE))}))
        await until(lambda: server.in_flight == 1)
        await connection.send(WHOLE[:sent])
        match ending:
            case "reset":
                _reset(connection.writer.transport)
            case "close":
                connection.writer.close()
            case _:
                connection.writer.write_eof()
        await until(lambda: server.in_flight == 0, within=3)

    assert await left_nothing(server)


def _reset(transport: asyncio.WriteTransport) -> None:
    raw: Any = transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    transport.abort()


async def test_a_vanished_client_is_no_error(
    server: Server, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """A client that goes away is told of in one line, without a traceback."""
    for method, path in (("POST", "/admin/lora/upload"), ("DELETE", "/admin/lora")):
        headers = {"Content-Length": "5000", "Content-Type": "application/json"}
        async with connected(server) as connection:
            kept = headers if method == "DELETE" else {"Content-Length": "5000"}
            await connection.send(head(server, kept, method=method, path=path), OPENING)
            await asyncio.sleep(0.1)
    await asyncio.sleep(0.1)

    told = capsys.readouterr().out + caplog.text
    assert told.count("UploadCut") == 2
    assert "Traceback" not in told
    assert "error" not in told.lower()


async def test_a_hundred_uploads_at_once(tmp_path: Path) -> None:
    """A hundred uploads of one name in flight together become a hundred whole files."""
    limits = {"max_concurrent_uploads": 100, "max_uploads_per_principal": 100}
    async with running(make_config(tmp_path, server=limits)) as server:
        contents = [lora(50_000, bytes([number])) for number in range(100)]
        answers = await asyncio.gather(
            *(upload(server, body(file_part(content=content))) for content in contents)
        )

        assert {answer.status for answer in answers} == {200}
        assert len({answer.json["partial_path"] for answer in answers}) == 100
        assert sorted(path.read_bytes() for path in server.files()) == sorted(contents)
