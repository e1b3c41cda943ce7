"""The process of one task, as its supervisor holds it."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from lora_server.evaluation.worker.channel import Channel
from lora_server.judge.process import ENVIRONMENT

MODULE = "lora_server.evaluation.worker.child"


class TaskProcess:
    """A child process and the channel to it; made by `started`."""

    def __init__(
        self, process: asyncio.subprocess.Process, pidfd: int | None, channel: Channel
    ) -> None:
        self._process = process
        self._pidfd = pidfd
        self.channel = channel

    @classmethod
    @asynccontextmanager
    async def started(cls, module: str = MODULE) -> AsyncIterator["TaskProcess"]:
        """Start a child, and see to it that none is left at the end of the block."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-s", "-m", module),
                    stdin=theirs.fileno(),
                    stdout=asyncio.subprocess.DEVNULL,
                    env=ENVIRONMENT,
                    cwd="/",
                    start_new_session=True,
                )
            with _held(process.pid) as pidfd:
                child = cls(process, pidfd, Channel(ours))
                try:
                    yield child
                finally:
                    child.kill()
                    await process.wait()

    def kill(self) -> None:
        """End the child now, whatever it does.

        Process.kill would first look whether the child has ended, and so take its status from
        the loop, which then reports 255 for whatever it was.
        """
        if self._pidfd is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def ending(self) -> str:
        """Wait for the child's end, and say in words how it ended."""
        status = await self._process.wait()
        if status < 0:
            return f"was ended by {signal.Signals(-status).name}"
        return f"ended with status {status}"


@contextmanager
def _held(pid: int) -> Iterator[int | None]:
    """Lend a descriptor of a process, which no later one of its number can be taken for.

    It is None where the process is gone already.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield pidfd
    finally:
        os.close(pidfd)
