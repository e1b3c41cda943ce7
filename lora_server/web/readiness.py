"""Whether the storage and the catalogue can be used, found out for real but not too often."""

import asyncio
import time

from lora_server.errors import LoraServerError
from lora_server.library import Library

_FRESH_S = 2.0  # anyone may ask, so the disk is not asked each time


class Readiness:
    """Remembers the last check of one library."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._checking = asyncio.Lock()
        self._checked_at = float("-inf")
        self._ready = False

    async def ready(self) -> bool:
        """Tell whether both worked within the last seconds."""
        async with self._checking:
            if time.monotonic() - self._checked_at > _FRESH_S:
                self._ready = await self._check()
                self._checked_at = time.monotonic()
            return self._ready

    async def _check(self) -> bool:
        try:
            await self._library.store.check()
            await self._library.catalog.check()
        except (LoraServerError, OSError):
            return False
        return True
