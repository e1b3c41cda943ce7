"""Going down: uploads in flight are finished, and nothing new is begun."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lora_server.records import Location
from lora_server.staging import StagedFile
from lora_server.store import Store
from tests.daemon import Daemon, serving, settings_file, start
from tests.server import Server, make_config, running
from tests.wire import Connection, body, connected, file_part, head, until

FORM = body(file_part())
HALF = len(FORM) // 2


@asynccontextmanager
async def _half_sent(daemon: Daemon) -> AsyncIterator[Connection]:
    """Have an upload in flight of which the second half is still to be sent."""
    async with connected(daemon) as connection:
        await connection.send(head(daemon, {"Content-Length": str(len(FORM))}), FORM[:HALF])
        await until(lambda: bool(daemon.files()))
        yield connection


async def test_an_upload_in_flight_is_finished(tmp_path: Path) -> None:
    """After SIGTERM an upload goes on to its 200; everything else is turned away."""
    async with (
        serving(tmp_path) as daemon,
        _half_sent(daemon) as upload,
        connected(daemon) as idle,
        connected(daemon) as probe,
    ):
        await idle.send(head(daemon, method="GET", path="/admin/lora"))
        before = await idle.answer()
        daemon.signal(signal.SIGTERM)
        await daemon.logged("server.draining")
        await idle.send(head(daemon, method="GET", path="/admin/lora"))
        refused = await idle.answer()
        await probe.send(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        ready = await probe.answer()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", daemon.port), timeout=1)
        daemon.signal(signal.SIGTERM)
        await upload.send(FORM[HALF:])
        answer = await upload.answer()
        status = await daemon.ended()

    assert before.status == 200
    assert (refused.status, ready.status) == (503, 503)
    assert int(refused.headers["retry-after"]) > 0
    assert refused.headers["connection"] == "close"
    assert answer.status == 200
    assert [str(path) for path in daemon.files()] == [answer.json["file_path"]]
    assert status == 0


async def test_an_upload_that_outlasts_the_grace_is_refused(tmp_path: Path) -> None:
    """When the grace is over an upload gets a 503 with Retry-After, and leaves nothing."""
    async with serving(tmp_path, server={"shutdown_grace": 0.3}) as daemon:
        async with _half_sent(daemon) as upload:
            daemon.signal(signal.SIGTERM)
            answer = await upload.answer()
        status = await daemon.ended()

    assert answer.status == 503
    assert int(answer.headers["retry-after"]) > 0
    assert not daemon.files()
    assert status == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_idle_server_ends_at_once(tmp_path: Path, number: signal.Signals) -> None:
    """Without uploads, and whatever connections stand open, it is gone within a second or two."""
    async with serving(tmp_path) as daemon, connected(daemon) as idle, connected(daemon) as slow:
        await idle.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        await idle.answer()
        await slow.send(b"GET /livez HTTP/1.1\r\nHo")
        daemon.signal(number)

        assert await daemon.ended(within=2) == 0
        assert [line for line in daemon.lines if line.get("level") in {"warning", "error"}] == []


async def test_a_signal_right_after_the_start_is_heeded(tmp_path: Path) -> None:
    """Background work that has only begun does not keep the server from ending."""
    async with serving(tmp_path) as daemon:
        daemon.signal(signal.SIGTERM)

        assert await daemon.ended(within=3) == 0


async def test_a_killed_server_leaves_nothing_visible(tmp_path: Path) -> None:
    """What SIGKILL leaves in staging is never seen, and is swept at the next start."""
    async with serving(tmp_path) as daemon, _half_sent(daemon):
        daemon.signal(signal.SIGKILL)
        await daemon.ended()
    left = daemon.files()
    async with serving(tmp_path) as daemon, connected(daemon) as connection:
        await connection.send(head(daemon, method="GET", path="/admin/lora"))
        answer = await connection.answer()

    assert [path.parent for path in left] == [daemon.config.storage.staging_dir]
    assert answer.json == {"data": [], "count": 0}
    assert not daemon.files()


async def test_a_killed_server_leaves_no_worker(tmp_path: Path) -> None:
    """Its worker goes with it, and takes the folder of their socket along."""
    temporary = await asyncio.to_thread(_folder, tmp_path / "tmp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary))
        async with serving(tmp_path, evaluation={"enabled": True}) as daemon:
            await until(lambda: any(temporary.glob("lora-eval-*/worker.sock")))
            daemon.signal(signal.SIGKILL)
            await daemon.ended()

    await until(lambda: not any(temporary.iterdir()))


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


async def _failed_start(settings: Path) -> tuple[int, str]:
    process = await start(settings)
    async with asyncio.timeout(20):
        _, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, errors.decode()


def _replace(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


async def test_wrong_settings_stop_the_start(tmp_path: Path) -> None:
    """A wrong value ends the command with status 78 and the name of its key."""
    settings = await asyncio.to_thread(settings_file, tmp_path)
    await asyncio.to_thread(_replace, settings, "port = 0", "port = -1")
    status, errors = await _failed_start(settings)

    assert status == 78
    assert "server.port" in errors
    assert "Traceback" not in errors


async def test_a_taken_port_is_told_in_a_line(tmp_path: Path) -> None:
    """A port in use ends the command with one sentence, and a status that may be retried."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        settings = await asyncio.to_thread(settings_file, tmp_path, server={"port": port})
        status, errors = await _failed_start(settings)

    assert status == 1
    assert [line for line in errors.splitlines() if not line.startswith("{")] == [
        f"lora-server: cannot listen on 127.0.0.1 port {port}: Address already in use"
    ]


async def test_a_published_upload_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the grace ends while a file gets its name, the answer is what became of it: 200."""
    named = asyncio.Event()
    publish = Store.publish

    async def slow_publish(self: Store, staged: StagedFile, target: Location) -> None:
        await publish(self, staged, target)
        named.set()
        await asyncio.sleep(0.5)

    monkeypatch.setattr(Store, "publish", slow_publish)
    config = make_config(tmp_path, server={"shutdown_grace": 0.1})
    async with running(config) as server:
        sending = asyncio.create_task(_uploaded(server))
        await named.wait()

    assert await sending == 200
    assert len(server.files()) == 1


async def _uploaded(server: Server) -> int:
    async with connected(server) as connection:
        await connection.send(head(server, {"Content-Length": str(len(FORM))}), FORM)
        return (await connection.answer()).status
