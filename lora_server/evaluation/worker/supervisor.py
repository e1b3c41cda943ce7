"""The worker as the front end sees it: a UNIX socket on which each connection is one task.

It starts one child for each task, passes on what the child says, and kills it when the client
goes away or time is up. A child's crash is the end of its task and of nothing else.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import structlog

from lora_server.evaluation.worker.channel import (
    DONE,
    EVENT,
    FAILED,
    MAX_TEXT_CHARS,
    PIECE,
    Channel,
    Message,
)
from lora_server.evaluation.worker.latest import Facts, Latest
from lora_server.evaluation.worker.process import MODULE, TaskProcess
from lora_server.judge import wire

log = structlog.get_logger(__name__)

HEARTBEAT_S = 1.0
REQUEST_S = 10.0  # how long a client may take to say what it wants
MAX_CONNECTIONS = 64
ACCEPT_AGAIN_S = 0.1
MAX_TIMEOUT_S = 24 * 3600.0
WATCH = "watch"  # the request for heartbeats instead of a task


@dataclass(slots=True)
class Supervisor:
    """Serves tasks on a listening socket; `facts` go out with every heartbeat."""

    workers: int
    facts: Facts
    module: str = MODULE
    _running: int = 0
    _turns: asyncio.Semaphore = field(init=False)
    _gpu_turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # one at a time has the GPU
    _connections: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._turns = asyncio.Semaphore(self.workers)

    @property
    def running(self) -> int:
        """How many children are at work."""
        return self._running

    async def serve(self, listener: socket.socket) -> None:
        """Take connections until cancelled; children that are left then are killed."""
        listener.settimeout(0)
        try:
            while True:
                try:
                    connection, _ = await asyncio.get_running_loop().sock_accept(listener)
                except OSError as error:  # no descriptor is left: soon one may be
                    log.warning("connection.refused", why=str(error))
                    await asyncio.sleep(ACCEPT_AGAIN_S)
                    continue
                if len(self._connections) >= MAX_CONNECTIONS:
                    connection.close()
                    continue
                task = asyncio.create_task(self._attend(Channel(connection)))
                self._connections.add(task)
                task.add_done_callback(self._connections.discard)
        finally:
            for task in self._connections:
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    async def _attend(self, channel: Channel) -> None:
        """Serve one connection to its end."""
        try:
            async with asyncio.timeout(REQUEST_S):
                request, fds = await channel.receive_request()
            with contextlib.ExitStack() as files:
                for fd in fds:
                    files.callback(os.close, fd)
                _check(request)
                await self._until_closed(channel, request, fds)
        except (OSError, EOFError, wire.Malformed) as error:
            log.info("connection.ended", why=str(error) or type(error).__name__)
        finally:
            channel.close()

    async def _until_closed(self, channel: Channel, request: Message, fds: list[int]) -> None:
        """Do what is asked for as long as somebody is there to hear of it."""
        asked = self._beat(channel) if request.get("task") == WATCH else None
        work = asyncio.create_task(asked or self._task(channel, request, fds))
        leaving = asyncio.create_task(channel.closed())
        try:
            await asyncio.wait({work, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            work.cancel()
            leaving.cancel()
            results = await asyncio.gather(work, leaving, return_exceptions=True)
        if isinstance(results[0], Exception):
            raise results[0]

    async def _beat(self, channel: Channel) -> None:
        """Tell that the worker lives, and what it knows of this host."""
        facts = Latest(self.facts)
        while True:
            beat = {"pid": os.getpid(), "running": self._running, "time": time.time()}
            await channel.send({EVENT: {**beat, **await facts.now()}})
            await asyncio.sleep(HEARTBEAT_S)

    async def _task(self, channel: Channel, request: Message, fds: list[int]) -> None:
        """Run a child for a task, and say at the end what became of it."""
        timeout_s = min(request["timeout_s"], MAX_TIMEOUT_S)
        turn = self._gpu_turn if request["gpu"] else self._turns
        try:
            if request["gpu"] and turn.locked():
                await channel.send({EVENT: {"status": "waiting_gpu"}})
            async with turn, asyncio.timeout(timeout_s):
                await channel.send({EVENT: {"status": "starting"}})
                async with self._child() as child:
                    ending = await _passed_on(child, channel, request, fds)
        except TimeoutError:
            ending = {FAILED: ["timed_out", f"It took longer than {timeout_s:g} s and was ended."]}
        await channel.send(ending)

    @contextlib.asynccontextmanager
    async def _child(self) -> AsyncIterator[TaskProcess]:
        self._running += 1
        try:
            async with TaskProcess.started(self.module) as child:
                yield child
        finally:
            self._running -= 1


def _check(request: Message) -> None:
    """Raise wire.Malformed for what asks for neither heartbeats nor a task."""
    match request:
        case {"task": str(task)} if task == WATCH:
            return
        case {
            "task": str(),
            "arguments": dict(),
            "timeout_s": int() | float(),
            "gpu": bool(),
        }:
            return
    raise wire.Malformed("a request asks for nothing that there is")


def _length(piece: object) -> int:
    if not isinstance(piece, str):
        raise wire.Malformed("a piece of a text is none")
    return len(piece)


async def _passed_on(
    child: TaskProcess, channel: Channel, request: Message, fds: list[int]
) -> Message:
    """Pass on what a child says; returns its last word, or what is to be said in its place."""
    room = MAX_TEXT_CHARS
    try:
        await child.channel.send({"task": request["task"], "arguments": request["arguments"]}, fds)
        await channel.send({EVENT: {"status": "running"}})
        while frame := await child.channel.receive():
            if DONE in frame or FAILED in frame:
                wire.frame(frame)  # which lone surrogates, say, do not allow
                return frame
            room -= _length(frame.get(PIECE, ""))
            if room < 0:
                return {FAILED: ["result_too_large", "The result is larger than is allowed."]}
            await channel.send(frame)
    except (OSError, ValueError):  # of the client's leaving, the caller hears by itself
        child.kill()
    return {FAILED: ["worker_crashed", f"The evaluating process {await child.ending()}."]}
