"""Files that wait to be read: each once, in order, those that are still written to set aside."""

import asyncio

from lora_server.records import Location


class Backlog:
    """A queue for one reader; what is noticed again while it waits is not read twice."""

    def __init__(self) -> None:
        self._ready: dict[Location, None] = {}  # a dict keeps the order
        self._resting: dict[Location, asyncio.TimerHandle] = {}
        self._filled = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def add(self, location: Location) -> None:
        """Let a file be read after those that wait already; one at rest stays at rest."""
        if location not in self._resting:
            self._ready[location] = None
            self._filled.set()
            self._idle.clear()

    def set_aside(self, location: Location, seconds: float) -> None:
        """Let a file that is still being written to rest before it is looked at again."""
        self._ready.pop(location, None)
        loop = asyncio.get_running_loop()
        self._resting[location] = loop.call_later(seconds, self._rested, location)

    async def next(self) -> Location:
        """Wait for a file to read; asking for the next one says that the last one is done."""
        if not self._ready and not self._resting:
            self._idle.set()
        while not self._ready:
            self._filled.clear()
            await self._filled.wait()
        location = next(iter(self._ready))
        del self._ready[location]
        return location

    async def idle(self) -> None:
        """Wait until everything noticed so far has been read."""
        await self._idle.wait()

    def close(self) -> None:
        """Forget what waits; the next start finds it again."""
        for timer in self._resting.values():
            timer.cancel()

    def _rested(self, location: Location) -> None:
        del self._resting[location]
        self.add(location)
