"""A few long-lived children share the judging; whatever one of them does, the pool goes on."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Self

from lora_server.errors import FileRefused
from lora_server.judge import wire
from lora_server.judge.process import ChildProcess

CHILD_MODULE = "lora_server.judge.child"
PIECE_BYTES = 1024 * 1024  # of a child's output, at most
MIN_READ_BYTES_PER_S = 5_000_000  # a slow disk; every byte may be read once


class JudgePool:
    """`size` children, each replaced when it fails or has done `jobs_per_child` jobs.

    A job may take `timeout_s`, and what reading the file takes at MIN_READ_BYTES_PER_S.
    Enter it to start the children; leaving it kills them, and waits until they are gone.
    """

    def __init__(
        self,
        *,
        size: int = 2,
        jobs_per_child: int = 500,
        timeout_s: float = 60.0,
        module: str = CHILD_MODULE,
    ) -> None:
        self._size = size
        self._jobs_per_child = jobs_per_child
        self._timeout_s = timeout_s
        self._module = module
        # The child used last is lent first; None is the place of one that is to be started.
        self._places: asyncio.LifoQueue[ChildProcess | None] = asyncio.LifoQueue()
        self._children: set[ChildProcess] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as undone:
            undone.push_async_callback(self._close)
            for _ in range(self._size):
                self._places.put_nowait(await self._start())
            undone.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close()

    async def run(self, job: str, fd: int, **arguments: Any) -> dict[str, Any]:
        """Have a child do `job` on the open file `fd`, and return its answer.

        Raises FileRefused: the child's own, or `lora_unreadable` when it crashed, took too
        long or answered nonsense. Raises ChildProcessError when there is no child to ask or
        the pool is closed meanwhile: that says nothing about the file. The caller keeps `fd`
        open until this returns.
        """
        return await self._answered(job, fd, arguments)

    async def pipe(self, job: str, fd: int, **arguments: Any) -> AsyncGenerator[bytes, None]:
        """Have a child do `job` on `fd`, and yield what it writes to its output.

        Raises what `run` does, at the latest after the last piece: until then, what was
        yielded may be half of a whole.
        """
        reader, writer = os.pipe()
        asking = asyncio.create_task(self._answered(job, fd, arguments, writer))
        # The child closes its end before it answers, so the stream ends when ours goes too.
        asking.add_done_callback(lambda _: os.close(writer))
        try:
            async with _stream_of(reader) as stream:
                while piece := await stream.read(PIECE_BYTES):
                    yield piece
            await asking
        finally:
            asking.cancel()
            await asyncio.wait({asking})

    async def _answered(
        self, job: str, fd: int, arguments: Mapping[str, Any], *outputs: int
    ) -> dict[str, Any]:
        request = {"job": job, "arguments": arguments}
        timeout_s = self._timeout_s + os.fstat(fd).st_size / MIN_READ_BYTES_PER_S
        try:
            async with self._lent() as child, asyncio.timeout(timeout_s):
                answer = await child.ask(fd, request, *outputs)
        except (TimeoutError, ConnectionError, EOFError, wire.Malformed) as error:
            self._refuse_when_closed()
            raise FileRefused("lora_unreadable", _cause(error)) from error
        match answer:
            case {wire.REFUSED: [str(code), str(reason)]}:
                raise FileRefused(code, reason)
        return answer

    @asynccontextmanager
    async def _lent(self) -> AsyncIterator[ChildProcess]:
        """Lend a child that is ready; where that ends badly, it is not lent again."""
        lent = await self._places.get()
        returned = None
        try:
            if lent is None or not self._may_serve(lent):
                lent = await self._replacement(lent)
            yield lent
            returned = lent
        finally:
            if lent is not None and returned is None:
                lent.discard()
            self._places.put_nowait(returned)

    def _may_serve(self, child: ChildProcess) -> bool:
        return child.jobs_done < self._jobs_per_child and child.is_idle()

    async def _replacement(self, child: ChildProcess | None) -> ChildProcess:
        if child is not None:
            child.discard()
        return await self._start()

    async def _start(self) -> ChildProcess:
        self._refuse_when_closed()
        # A fork waits for the exec. The kernel ends a child with the thread that forked it, and
        # those of the loop's own pool live as long as the loop.
        child = await asyncio.to_thread(ChildProcess, self._module)
        self._children = {other for other in self._children if not other.has_ended()} | {child}
        with ExitStack() as undone:
            undone.callback(child.discard)
            await child.ready()
            undone.pop_all()
        return child

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise ChildProcessError("the judge pool is closed")

    async def _close(self) -> None:
        self._closed = True
        for child in self._children:
            child.kill()
        for child in self._children:
            await child.gone()
        for place in [self._places.get_nowait() for _ in range(self._places.qsize())]:
            if place is not None:
                place.discard()
            self._places.put_nowait(None)


@asynccontextmanager
async def _stream_of(reader: int) -> AsyncIterator[asyncio.StreamReader]:
    """Read a pipe on the event loop; closes it."""
    loop = asyncio.get_running_loop()
    stream = asyncio.StreamReader(limit=PIECE_BYTES)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(reader, "rb", buffering=0)
    )
    try:
        yield stream
    finally:
        transport.close()


def _cause(error: Exception) -> str:
    match error:
        case TimeoutError():
            cause = "it took too long"
        case wire.Malformed():
            cause = "its answer made no sense"
        case _:
            cause = "it ended"
    return f"the process that read the file was given up: {cause}"
