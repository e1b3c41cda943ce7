"""Going down without losing an upload.

aiohttp's own shutdown stops reading bodies at once, so what is in flight would starve. Here the
listener closes first, uploads in flight get `grace_s` to finish, the rest gets a 503, and only
then is the runner cleaned up.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from lora_server.errors import ShuttingDown

_ANSWER_S = 3.0  # what an interrupted upload has to clean up and send its 503


class Drain:
    """Whether the daemon is going down, and which uploads it waits for."""

    def __init__(self) -> None:
        self.draining = False
        self.leaving = False  # nothing is refused yet, but each connection ends with its answer
        self._uploads: set[asyncio.Timeout] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_flight(self) -> int:
        """Return how many uploads are being taken in."""
        return len(self._uploads)

    async def leave(self, seconds: float) -> None:
        """Go on serving for `seconds`, and have clients come back by connections of their own.

        For when another process will serve these: what had connected before the listener was
        given up is answered, and nobody sees an error.
        """
        self.leaving = True
        await asyncio.sleep(seconds)

    @asynccontextmanager
    async def upload(self) -> AsyncIterator[None]:
        """Count one upload while it is taken in.

        Raises:
            ShuttingDown: the daemon drains already, or the grace ended before the upload.

        """
        if self.draining:
            raise ShuttingDown
        try:
            async with asyncio.timeout(None) as deadline:
                with self._counted(deadline):
                    yield
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise ShuttingDown from error

    async def finish(self, grace_s: float) -> None:
        """Let uploads in flight end within `grace_s`, then interrupt what is left."""
        self.leaving = self.draining = True
        if await self._idle_within(grace_s):
            return
        for deadline in tuple(self._uploads):
            deadline.reschedule(asyncio.get_running_loop().time())
        await self._idle_within(_ANSWER_S)

    @contextmanager
    def _counted(self, deadline: asyncio.Timeout) -> Iterator[None]:
        self._uploads.add(deadline)
        self._idle.clear()
        try:
            yield
        finally:
            self._uploads.discard(deadline)
            if not self._uploads:
                self._idle.set()

    async def _idle_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True
