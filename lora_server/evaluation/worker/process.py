"""The process of one task, as its supervisor holds it."""

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from lora_server.evaluation.worker.channel import Channel
from lora_server.judge.process import ENVIRONMENT

MODULE = "lora_server.evaluation.worker.child"


class TaskProcess:
    """A child process and the channel to it; made by `started`."""

    def __init__(self, process: asyncio.subprocess.Process, channel: Channel) -> None:
        self._process = process
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
            child = cls(process, Channel(ours))
            try:
                yield child
            finally:
                child.kill()
                await process.wait()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def kill(self) -> None:
        """End the child now, whatever it does."""
        if self._process.returncode is None:
            self._process.kill()

    async def ending(self) -> str:
        """Wait for the child's end, and say in words how it ended."""
        status = await self._process.wait()
        if status < 0:
            return f"was ended by {signal.Signals(-status).name}"
        return f"ended with status {status}"
