"""The files and what is known of them, changed together.

Every change is the same three steps under the lock of the entity type: the intent is written
to the catalogue, the file is renamed, the catalogue notes where it stands now. A crash between
two steps leaves an intent; `recover` looks where the file is and finishes or undoes the move.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, TypeVar

import structlog

from lora_server import names
from lora_server.catalog import Catalog
from lora_server.errors import LoraNotFound, LoraServerError, MovedMeanwhile, NameTaken
from lora_server.records import Filename, Location, Override, Place, StoredLora
from lora_server.staging import StagedFile
from lora_server.store import Store

T = TypeVar("T")

log = structlog.get_logger(__name__)


class Library:
    """One store and its catalogue."""

    def __init__(
        self, store: Store, catalog: Catalog, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.store = store
        self.catalog = catalog
        self.clock = clock
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def now(self) -> int:
        """The time in whole seconds since the epoch."""
        return int(self.clock())

    @asynccontextmanager
    async def locked(self, entity_types: Collection[str]) -> AsyncIterator[None]:
        """Hold the locks of entity types; in one order, so that nobody waits in a circle."""
        async with AsyncExitStack() as stack:
            for entity_type in sorted(set(entity_types)):
                await stack.enter_async_context(self._locks[entity_type])
            yield

    async def publish(
        self, staged: StagedFile, lora: StoredLora, entity_type: str, *, versioned: bool
    ) -> StoredLora:
        """Give a sealed file the first free version of `lora.home_name`; durable on return.

        Raises:
            NameTaken: the name is in use and `versioned` is false.
            StorageFull, StorageUnusable, CatalogUnusable: nothing was published.

        """
        return await _uninterrupted(self._publish(staged, lora, entity_type, versioned=versioned))

    async def move_to_bin(self, location: Location, deleted_by: str) -> StoredLora:
        """Move a live file to the bin, under a version of its name when that is taken there.

        Raises:
            LoraNotFound: no such live file.

        """
        async with self.locked([location.entity_type]):
            lora = await self._known(location)
            target = await self._free(Place.BIN, location.entity_type, location.name)
            done = {
                "deleted_at": self.now,
                "deleted_by": deleted_by,
                "home_name": location.name,
            }
            try:
                return await _uninterrupted(self._move(lora, target, **done))
            except MovedMeanwhile as error:
                raise LoraNotFound from error

    async def restore(self, location: Location) -> StoredLora:
        """Move a file from the bin back to its place, under a version when that is taken.

        Raises:
            LoraNotFound: no such file in the bin.
            MovedMeanwhile: it was there a moment ago.

        """
        async with self.locked([location.entity_type]):
            lora = await self._known(location)
            target = await self._free(Place.MODELS, location.entity_type, lora.home_name)
            done = {"deleted_at": None, "deleted_by": None}
            return await _uninterrupted(self._move(lora, target, **done))

    async def move(self, location: Location, entity_type: str) -> StoredLora:
        """Move a live file to another entity type, under a version when its name is taken.

        Raises:
            LoraNotFound: no such live file.
            MovedMeanwhile: it was there a moment ago.

        """
        async with self.locked([location.entity_type, entity_type]):
            lora = await self._known(location)
            if entity_type == location.entity_type:
                return lora
            target = await self._free(Place.MODELS, entity_type, location.name)
            return await _uninterrupted(self._move(lora, target, home_name=target.name))

    async def purge(self, location: Location) -> StoredLora:
        """Remove a file from the bin for good; returns what was known of it.

        Raises:
            LoraNotFound: no such file in the bin.

        """
        async with self.locked([location.entity_type]):
            lora = await self._known(location)
            await _uninterrupted(self._purge(lora))
            return lora

    async def set_override(self, lora: StoredLora, override: Override) -> StoredLora:
        """Note what an admin says of a LoRA, beside what was detected.

        Raises:
            LoraNotFound: it is gone meanwhile.

        """
        await self.catalog.set_override(lora.id, override)
        return await self._known(lora.location)

    async def purge_expired(self, retention_s: float) -> list[StoredLora]:
        """Purge what has been in the bin longer than `retention_s`; returns what that was."""
        purged = []
        for location in await self.catalog.expired(self.now - int(retention_s)):
            with suppress(LoraNotFound):  # restored or purged since it was listed
                purged.append(await self.purge(location))
        return purged

    async def recover(self) -> None:
        """Finish or undo what a crash interrupted; to be called before anything else."""
        for lora, target in await self.catalog.unfinished():
            await self._recover(lora, target)
        if swept := await self.store.sweep_staging():
            log.info("staging.swept", files=swept)

    async def _recover(self, lora: StoredLora, target: Location) -> None:
        facts = await self.store.facts(target)
        # A rename keeps the inode: that tells our file from one that an outsider put there.
        if facts and (facts.inode, facts.size) == (lora.facts.inode, lora.facts.size):
            await self.catalog.finish_move(lora.id, target, **self._arrived(lora, target))
            log.info("move.finished", partial_path=target.partial_path, place=target.place)
        elif lora.location.place is Place.STAGING:
            await self.catalog.forget(lora.id)
            log.info("upload.undone", filename=lora.filename)
        else:
            await self.catalog.withdraw_move(lora.id)
            log.info("move.undone", partial_path=lora.location.partial_path)

    def _arrived(self, lora: StoredLora, target: Location) -> dict[str, Any]:
        """Return what a finished move changes besides the place."""
        if target.place is Place.BIN:
            return {"deleted_at": lora.deleted_at or self.now}
        return {"deleted_at": None, "deleted_by": None}

    async def _publish(
        self, staged: StagedFile, lora: StoredLora, entity_type: str, *, versioned: bool
    ) -> StoredLora:
        async with self.locked([entity_type]):
            while True:
                target = await self._free(Place.MODELS, entity_type, lora.home_name)
                if not versioned and target.name != lora.home_name:
                    raise NameTaken(f"{entity_type}/{lora.home_name}")
                try:
                    return await self._claim(staged, replace(lora, home_name=target.name), target)
                except FileExistsError:
                    log.info("name.taken_by_outsider", partial_path=target.partial_path)

    async def _claim(self, staged: StagedFile, lora: StoredLora, target: Location) -> StoredLora:
        row_id = await self.catalog.begin_upload(lora, target)
        try:
            facts = await self.store.publish(staged, target)
        except (LoraServerError, OSError):
            await self.catalog.forget(row_id)
            raise
        try:
            # fchmod and rename leave mtime alone, so the row's facts still hold.
            return await self.catalog.finish_move(row_id, target, mtime_ns=facts.mtime_ns)
        except LoraServerError:
            await self.store.unpublish(staged, target)
            raise

    async def _move(self, lora: StoredLora, target: Location, **changes: Any) -> StoredLora:
        await self.catalog.begin_move(lora.id, target)
        try:
            await self.store.rename(lora.location, target)
        except (LoraServerError, OSError) as error:
            await self.catalog.withdraw_move(lora.id)
            if isinstance(error, FileNotFoundError | FileExistsError):
                raise MovedMeanwhile(lora.location.partial_path) from error
            raise
        try:
            return await self.catalog.finish_move(lora.id, target, **changes)
        except LoraServerError:
            await self.store.rename(target, lora.location)
            raise

    async def _purge(self, lora: StoredLora) -> None:
        await self.store.remove(lora.location)
        await self.catalog.forget(lora.id)

    async def _known(self, location: Location) -> StoredLora:
        lora = await self.catalog.find(location)
        if lora is None:
            raise LoraNotFound
        return lora

    async def _free(self, place: Place, entity_type: str, name: str) -> Location:
        taken = await self.store.taken(place, entity_type)
        return Location(place, entity_type, names.first_free(Filename(name), taken))


async def _uninterrupted(steps: Coroutine[Any, Any, T]) -> T:
    """Run steps that belong together to their end, even when the caller is cancelled."""
    task = asyncio.ensure_future(steps)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # the caller is past caring, and asyncio would complain
        raise
