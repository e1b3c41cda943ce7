"""The identity of the weights: SHA-256 of the tensor section, taken in the background.

Tools that edit metadata change a file's SHA-256 and never this one, so it tells the same
weights under another header. It is kohya's `sshs_model_hash`, and AutoV3 is its beginning.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from lora_server.errors import LoraServerError
from lora_server.library import Library
from lora_server.uninterrupted import meanwhile

log = structlog.get_logger(__name__)

POLL_S = 1.0  # how soon after the answer to an upload its weights are hashed


class Fingerprinter:
    """Hashes the tensors of whatever the catalogue lists without that."""

    def __init__(self, library: Library, *, poll_s: float = POLL_S) -> None:
        self._library = library
        self._poll_s = poll_s

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Go on until the end of the block."""
        async with meanwhile(self._run()):
            yield

    async def _run(self) -> None:
        while True:
            try:
                await self.catch_up()
            except (LoraServerError, OSError) as error:
                log.warning("fingerprints.failed", why=str(error.__cause__ or error))
            await asyncio.sleep(self._poll_s)

    async def catch_up(self) -> None:
        """Hash all that is listed now; what changed meanwhile is left for the next round."""
        catalog, store = self._library.catalog, self._library.store
        last_id = 0
        while lora := await catalog.next_unread_tensors(last_id):
            last_id = lora.id
            begin = lora.judgement.data_begin if lora.judgement else 0
            read = await store.digest(lora.location, begin)
            if read and read[1] == lora.facts:
                await catalog.set_tensors(lora.id, read[0])
