"""Being a service: sockets that are passed in, and what the service manager is told."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from lora_server import systemd
from lora_server.errors import ConfigInvalid
from tests.daemon import settings_file

GET = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
# What a service manager does between fork and exec; the socket has to be descriptor 3.
START = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "http"}
os.execv(sys.executable, [sys.executable, "-m", "lora_server", "serve", "--config", sys.argv[2]])
"""


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, folder: Path) -> None:
        self.address = folder / "notify"
        self.heard: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.address))
        self._socket.settimeout(0)

    async def hears(self, line: str) -> str:
        """Wait for a line that begins so, after those that were waited for before."""
        async with asyncio.timeout(20):
            while True:
                while self.heard:
                    if (heard := self.heard.pop(0)).startswith(line):
                        return heard
                message = await asyncio.get_running_loop().sock_recv(self._socket, 4096)
                self.heard += message.decode().split("\n")

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """Play the service manager of this process and its children."""
    made = Manager(tmp_path)
    monkeypatch.setenv("NOTIFY_SOCKET", str(made.address))
    yield made
    made.close()


@contextmanager
def listener() -> Iterator[socket.socket]:
    """Open the socket that survives services."""
    with socket.create_server(("127.0.0.1", 0)) as opened:
        yield opened


@asynccontextmanager
async def service(
    settings: Path, passed: socket.socket
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the server on a socket of ours."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", START, str(passed.fileno()), str(settings)),
        pass_fds=[passed.fileno()],
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _answered(passed: socket.socket) -> bytes:
    reader, writer = await asyncio.open_connection(*passed.getsockname())
    writer.write(GET)
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    return answer


async def test_a_restart_keeps_whoever_connects_meanwhile(tmp_path: Path, manager: Manager) -> None:
    """What connects to a passed socket while no service runs is answered by the next one."""
    settings = settings_file(tmp_path)
    with listener() as passed:
        async with service(settings, passed) as first:
            await manager.hears("READY=1")
            before = await _answered(passed)
            first.send_signal(signal.SIGTERM)
            assert await first.wait() == 0
        waiting = asyncio.create_task(_answered(passed))
        async with service(settings, passed):
            after = await waiting

    assert before.startswith(b"HTTP/1.1 200")
    assert after.startswith(b"HTTP/1.1 200")


async def test_who_had_connected_is_answered_before_the_listener_goes(
    tmp_path: Path, manager: Manager
) -> None:
    """A request that comes right after SIGTERM, on a connection from before it, is served."""
    with listener() as passed:
        async with service(settings_file(tmp_path), passed) as process:
            await manager.hears("READY=1")
            reader, writer = await asyncio.open_connection(*passed.getsockname())
            process.send_signal(signal.SIGTERM)
            await manager.hears("STOPPING=1")
            writer.write(b"GET /api/v1/admin/lora HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = await reader.read()
            writer.close()

    assert answer.startswith(b"HTTP/1.1 401")  # and not the 503 of a server that goes down
    assert b"Connection: close" in answer


async def test_the_manager_is_kept_informed(
    tmp_path: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readiness, a heartbeat, a line for people, and the wish for time while uploads end."""
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    with listener() as passed:
        async with service(settings_file(tmp_path), passed) as process:
            await manager.hears("READY=1")
            status = await manager.hears("STATUS=")
            await manager.hears("WATCHDOG=1")
            await manager.hears("WATCHDOG=1")
            process.send_signal(signal.SIGTERM)
            await manager.hears("STOPPING=1")
            await manager.hears("STATUS=Going down: ")
            await manager.hears("EXTEND_TIMEOUT_USEC=")

    assert status.startswith("STATUS=Serving: no uploads in flight, ")


def test_a_child_takes_no_socket_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inherited variables that name another process pass nothing."""
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "1")

    assert systemd.listening_sockets() == {}


def test_what_does_not_listen_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit that passes something else, such as a FIFO, is told so."""
    reading, writing = os.pipe()
    monkeypatch.setattr(systemd, "_FIRST_FD", reading)
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    try:
        with pytest.raises(ConfigInvalid, match="LISTEN_FDS"):
            systemd.listening_sockets()
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("address", ["", "no/path", "/no/such/socket", "@no-such-socket"])
def test_nobody_to_tell_is_no_error(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of a service, or when the manager is gone, nothing is told and nothing fails."""
    monkeypatch.setenv("NOTIFY_SOCKET", address)

    assert not systemd.notify(READY=1)


async def test_a_status_stays_on_its_line(manager: Manager) -> None:
    """A line break in a value starts no assignment of its own."""
    systemd.notify(STATUS="no space left\nMAINPID=1")

    assert await manager.hears("") == "STATUS=no space left MAINPID=1"
