"""The front end's side of the worker: ask for a task, and watch whether the worker lives."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import structlog

from lora_server.evaluation.worker import saying
from lora_server.evaluation.worker.channel import DONE, EVENT, FAILED, PIECE, Channel
from lora_server.evaluation.worker.supervisor import HEARTBEAT_S, WATCH
from lora_server.evaluation.worker.tasks import Answer
from lora_server.judge import wire
from lora_server.uninterrupted import meanwhile

log = structlog.get_logger(__name__)

GRACE_S = 15.0  # that the worker gets to notice itself that time is up
SILENCE_S = 10 * HEARTBEAT_S  # after which a worker counts as gone
RECONNECT_S = 0.5

OnEvent = Callable[[Mapping[str, Any]], None]


class TaskFailed(Exception):
    """The worker could not do it: `code` is stable, `message` says why in a sentence."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class WorkerAway(Exception):
    """Nobody answers at the worker's socket, or stopped answering; a retry may help."""


@contextmanager
def believing() -> Iterator[None]:
    """Take what makes no sense for a fault of the task that said it.

    Raises:
        TaskFailed: in place of a ValueError in the block.

    """
    try:
        yield
    except ValueError as error:
        log.warning("task.makes_no_sense", why=str(error)[:500])
        raise TaskFailed("worker_crashed", "The evaluating process made no sense.") from error


class Worker:
    """The worker behind a UNIX socket; it may come and go."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.facts: Mapping[str, Any] = {}  # as of the last heartbeat
        self._heard: float | None = None
        self._there = asyncio.Event()

    @property
    def silence_s(self) -> float | None:
        """Seconds since the last heartbeat; None when there never was one."""
        return None if self._heard is None else time.monotonic() - self._heard

    @property
    def alive(self) -> bool:
        """Tell whether the worker was heard of lately, and has not gone since."""
        return self._there.is_set()

    async def there(self, within_s: float) -> None:
        """Wait until the worker is heard of.

        Raises:
            WorkerAway: it was not, within that time.

        """
        try:
            async with asyncio.timeout(within_s):
                await self._there.wait()
        except TimeoutError as error:
            raise WorkerAway(f"{self.path}: nobody was there for {within_s:g} s") from error

    async def ask(  # noqa: PLR0913 - what a request is made of
        self,
        task: str,
        fds: Sequence[int],
        arguments: Mapping[str, Any],
        *,
        timeout_s: float,
        gpu: bool = False,
        on_event: OnEvent,
    ) -> Answer:
        """Have a task done on open files.

        With `gpu`, it waits until it has the GPU for itself. A cancellation ends the task. The
        caller keeps the descriptors open until this returns.

        Raises:
            TaskFailed: the worker said that it cannot be done, or its process ended.
            WorkerAway: there is no worker, or it went away.

        """
        request = {"task": task, "arguments": arguments, "timeout_s": timeout_s, "gpu": gpu}
        try:
            async with asyncio.timeout(timeout_s + GRACE_S), self._connected() as channel:
                await channel.send(request, fds)
                return await _answer(channel, on_event)
        except (OSError, wire.Malformed) as error:  # a TimeoutError is an OSError too
            raise WorkerAway(f"{self.path}: {error}") from error

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Listen to heartbeats until the end of the block."""
        async with meanwhile(self._watch()):
            yield

    async def _watch(self) -> None:
        while True:
            try:
                async with self._connected() as channel:
                    await channel.send({"task": WATCH})
                    await self._listen(channel)
            except (OSError, wire.Malformed) as error:
                log.debug("worker.away", why=str(error))
            finally:
                self._there.clear()
            await asyncio.sleep(RECONNECT_S)

    async def _listen(self, channel: Channel) -> None:
        while True:
            async with asyncio.timeout(SILENCE_S):
                frame = await channel.receive()
            if frame is None:
                return
            self.facts = frame.get(EVENT, {})
            self._heard = time.monotonic()
            self._there.set()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Channel]:
        channel = Channel(socket.socket(socket.AF_UNIX))
        try:
            await channel.connect(str(self.path))
            yield channel
        finally:
            channel.close()


async def _answer(channel: Channel, on_event: OnEvent) -> Answer:
    text = list[str]()
    while frame := await channel.receive():
        if DONE in frame:
            return Answer(frame[DONE], "".join(text))
        with believing():
            if PIECE in frame:
                text.append(saying.piece(frame[PIECE]))
                continue
            if FAILED in frame:
                failure = saying.failure(frame[FAILED])
                raise TaskFailed(failure.code, failure.message)
            news = saying.news(frame.get(EVENT))
        on_event(news)
    raise WorkerAway("the worker closed the connection")
