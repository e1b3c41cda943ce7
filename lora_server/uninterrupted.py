"""Steps that belong together, taken to their end whatever happens to the caller."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import structlog

T = TypeVar("T")

log = structlog.get_logger(__name__)


async def uninterrupted(steps: Coroutine[Any, Any, T], *, result_wins: bool = False) -> T:
    """Run steps to their end, however often the caller is cancelled meanwhile.

    A cancelled caller waits too: what it holds, such as a lock, covers the steps to their end.
    With `result_wins` it then gets a result that there is, and the cancellation is dropped: for
    what cannot be taken back and has to be told.
    """
    task = asyncio.ensure_future(steps)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None or (result_wins and not task.cancelled() and not task.exception()):
        return task.result()
    if not task.cancelled():
        task.exception()  # the caller is past caring, and asyncio would complain
    raise cancelled


@asynccontextmanager
async def meanwhile(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run work beside the block; at its end, wait until it has let go of what it holds."""
    task = asyncio.create_task(work)
    task.add_done_callback(_tell_of_fault)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def _tell_of_fault(task: asyncio.Task[None]) -> None:
    """Log what ended work that was to go on: nobody waits for its result."""
    if not task.cancelled() and (error := task.exception()):
        log.error("background.ended", exc_info=error)
