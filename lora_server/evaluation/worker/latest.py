"""Facts that may be slow to come, told as they were last known."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

Facts = Callable[[], Mapping[str, Any]]

PATIENCE_S = 0.5


class Latest:
    """Asks for facts in a thread, one at a time; a driver that hangs holds nobody up."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._known: Mapping[str, Any] = {}
        self._asking: asyncio.Task[Mapping[str, Any]] | None = None

    async def now(self) -> Mapping[str, Any]:
        """Return the facts, or what they were when they last came in time."""
        if self._asking is None:
            self._asking = asyncio.create_task(asyncio.to_thread(self._facts))
        done, _ = await asyncio.wait({self._asking}, timeout=PATIENCE_S)
        if done:
            self._known = self._asking.result()
            self._asking = None
        return self._known
