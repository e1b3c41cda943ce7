"""Steps that belong together, taken to their end whatever happens to the caller."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def uninterrupted(steps: Coroutine[Any, Any, T]) -> T:
    """Run steps to their end, however often the caller is cancelled meanwhile.

    A cancelled caller waits too: what it holds, such as a lock, covers the steps to their end.
    """
    task = asyncio.ensure_future(steps)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # the caller is past caring, and asyncio would complain
    raise cancelled
