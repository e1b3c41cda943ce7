"""One child process, seen from the event loop: start it, ask it, end it."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import lora_server
from lora_server.judge import wire

START_TIMEOUT_S = 30.0

# The whole environment of a child: no credential, no setting, no second thread.
ENVIRONMENT: Mapping[str, str] = {
    "PYTHONPATH": str(Path(lora_server.__path__[0]).parent),
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUTF8": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # glibc keeps this much freed memory for the next job, which would else take it from the
    # kernel again page by page: a tenth of the cost of judging a small file.
    "MALLOC_TRIM_THRESHOLD_": str(16 * 1024 * 1024),
    "MALLOC_MMAP_THRESHOLD_": str(4 * 1024 * 1024),
}


class ChildProcess:
    """A child process that runs `module`; it may be asked once it is `ready`.

    Making one takes a few milliseconds. Raises OSError when it cannot be run.
    """

    def __init__(self, module: str) -> None:
        self._connection, theirs = socket.socketpair()
        self._connection.settimeout(0)  # never wait: the event loop does
        self.jobs_done = 0
        try:
            with theirs:
                self._process = _spawn(module, theirs)
        except OSError:
            self._connection.close()
            raise

    async def ready(self) -> None:
        """Wait for the child's first word; raises ChildProcessError when there is none."""
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._receive_frame()
        except (EOFError, ConnectionError, TimeoutError, wire.Malformed) as error:
            raise ChildProcessError("a judging process does not start") from error

    async def ask(self, fd: int, request: Mapping[str, Any], *outputs: int) -> dict[str, Any]:
        """Send `request` with the file `fd` and pipes to write to, and return the answer.

        Raises OSError or EOFError when the child is gone, wire.Malformed for what is no
        answer. After any of these, or a cancellation, the child can only be killed.
        """
        frame = wire.frame({**request, wire.NUMBER: self.jobs_done})
        # An idle child has read everything before, so that a small frame finds room at once.
        sent = socket.send_fds(self._connection, [frame], [fd, *outputs])
        await asyncio.get_running_loop().sock_sendall(self._connection, frame[sent:])
        answer: dict[str, Any] = {}
        total = 0
        while encoded := await self._receive_frame():
            total += len(encoded)
            if total > wire.MAX_ANSWER_BYTES:
                raise wire.Malformed(f"an answer is over {wire.MAX_ANSWER_BYTES} bytes")
            wire.merge(answer, wire.message(encoded))
            await asyncio.sleep(0)
        if answer.pop(wire.NUMBER, None) != self.jobs_done:
            raise wire.Malformed("an answer is not to the question asked")
        self.jobs_done += 1
        return answer

    def has_ended(self) -> bool:
        """Tell whether the process is gone."""
        return self._process.poll() is not None

    def is_idle(self) -> bool:
        """Tell whether the child lives and has nothing to say."""
        with suppress(BlockingIOError):
            self._connection.recv(1, socket.MSG_PEEK)
            return False
        return not self.has_ended()

    def kill(self) -> None:
        """End the child now, whatever it does; a call to `ask` then fails."""
        self._process.kill()

    def discard(self) -> None:
        """Kill the child and close its socket, once or twice; nobody may be asking it."""
        self.kill()
        self._connection.close()

    async def gone(self) -> None:
        """Wait until no process is left."""
        if self.has_ended():
            return
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        pidfd = os.pidfd_open(self._process.pid)
        loop.add_reader(pidfd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)
        self._process.wait()

    async def _receive_frame(self) -> bytes:
        length = wire.frame_length(await self._receive(wire.LENGTH.size))
        return await self._receive(length)

    async def _receive(self, size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            loop = asyncio.get_running_loop()
            received += (more := await loop.sock_recv(self._connection, size - len(received)))
            if not more:
                raise EOFError("the child closed its socket")
        return bytes(received)


def _spawn(module: str, connection: socket.socket) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603  # a command of our own, and no shell
        [sys.executable, "-P", "-s", "-m", module],
        stdin=connection.fileno(),
        stdout=subprocess.DEVNULL,
        env=ENVIRONMENT,
        cwd=os.sep,
        start_new_session=True,
    )
