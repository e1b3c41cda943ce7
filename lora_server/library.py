"""The files and what is known of them, changed together.

Every change is the same three steps under the lock of the entity type: the intent is written
to the catalogue, the file is renamed, the catalogue notes where it stands now. A crash between
two steps leaves an intent; `recover` looks where the file is and finishes or undoes the move.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace

import structlog

from lora_server import names
from lora_server.catalog import Catalog
from lora_server.errors import LoraNotFound, LoraServerError, MovedMeanwhile, NameTaken
from lora_server.moves import Move
from lora_server.records import Filename, Location, Override, Place, StoredLora
from lora_server.staging import StagedFile
from lora_server.store import Store
from lora_server.uninterrupted import uninterrupted

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
        return await uninterrupted(self._publish(staged, lora, entity_type, versioned=versioned))

    async def move_to_bin(self, location: Location, deleted_by: str) -> StoredLora:
        """Move a live file to the bin, under a version of its name when that is taken there.

        Raises:
            LoraNotFound: no such live file.

        """
        async with self.locked([location.entity_type]):
            lora = await self._known(location)
            wanted = replace(location, place=Place.BIN)
            try:
                return await uninterrupted(self._move(lora, wanted, deleted_by=deleted_by))
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
            wanted = Location(Place.MODELS, location.entity_type, lora.home_name)
            return await uninterrupted(self._move(lora, wanted))

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
            wanted = replace(location, entity_type=entity_type)
            return await uninterrupted(self._move(lora, wanted))

    async def purge(self, location: Location) -> StoredLora:
        """Remove a file from the bin for good; returns what was known of it.

        Raises:
            LoraNotFound: no such file in the bin.
            MovedMeanwhile: it was there a moment ago, or another file has taken its place.

        """
        async with self.locked([location.entity_type]):
            lora = await self._known(location)
            await uninterrupted(self._purge(lora))
            return lora

    async def set_override(self, lora: StoredLora, override: Override) -> StoredLora:
        """Note what an admin says of a LoRA, beside what was detected.

        Raises:
            LoraNotFound: it is gone meanwhile.

        """
        if (changed := await self.catalog.set_override(lora.id, override)) is None:
            raise LoraNotFound
        return changed

    async def purge_expired(self, retention_s: float) -> list[StoredLora]:
        """Purge what has been in the bin longer than `retention_s`; returns what that was."""
        purged = []
        for location in await self.catalog.expired(self.now - int(retention_s)):
            with suppress(LoraNotFound, MovedMeanwhile):  # by another hand since it was listed
                purged.append(await self.purge(location))
        return purged

    async def recover(self) -> None:
        """Finish or undo what a crash interrupted; to be called before anything else."""
        for move in await self.catalog.unfinished():
            await self._recover(move)
        if swept := await self.store.sweep_staging():
            log.info("staging.swept", files=swept)

    async def _recover(self, move: Move) -> None:
        lora, target = move.lora, move.target
        # A rename keeps inode, size and time: they tell our file from one of an outsider.
        if await self.store.facts(target) == lora.facts:
            await self.catalog.finish_move(lora.id, target, **move.arrival(self.now))
            log.info("move.finished", partial_path=target.partial_path, place=target.place)
        elif lora.location.place is Place.STAGING:
            await self.catalog.forget(lora.id)
            log.info("upload.undone", filename=lora.filename)
        else:
            await self.catalog.withdraw_move(lora.id)
            log.info("move.undone", partial_path=lora.location.partial_path)

    async def _publish(
        self, staged: StagedFile, lora: StoredLora, entity_type: str, *, versioned: bool
    ) -> StoredLora:
        wanted = Location(Place.MODELS, entity_type, lora.home_name)
        async with self.locked([entity_type]):
            while True:
                target = await self._free(wanted)
                if not versioned and target != wanted:
                    raise NameTaken(wanted.partial_path)
                try:
                    return await self._claim(staged, replace(lora, home_name=target.name), target)
                except FileExistsError:
                    log.info("name.taken_by_outsider", partial_path=target.partial_path)

    async def _claim(self, staged: StagedFile, lora: StoredLora, target: Location) -> StoredLora:
        row_id = await self.catalog.begin_upload(lora, target)
        try:
            await self.store.publish(staged, target)
        except (LoraServerError, OSError):
            await self.catalog.forget(row_id)
            raise
        try:
            return await self.catalog.finish_move(row_id, target)
        except LoraServerError:
            await self.store.unpublish(staged, target)
            with suppress(LoraServerError):  # it failed just now; `recover` would do this too
                await self.catalog.forget(row_id)
            raise

    async def _move(
        self, lora: StoredLora, wanted: Location, *, deleted_by: str | None = None
    ) -> StoredLora:
        """Move a file to the first free version of a name, also when outsiders take names."""
        while True:
            target = await self._free(wanted)
            try:
                return await self._carry(Move(lora, target, deleted_by))
            except FileExistsError:
                log.info("name.taken_by_outsider", partial_path=target.partial_path)
            except FileNotFoundError as error:
                raise MovedMeanwhile(lora.location.partial_path) from error

    async def _carry(self, move: Move) -> StoredLora:
        lora, target = move.lora, move.target
        await self.catalog.begin_move(lora.id, target, deleted_by=move.deleted_by)
        try:
            await self.store.rename(lora.location, target)
        except (LoraServerError, OSError):
            await self.catalog.withdraw_move(lora.id)
            raise
        try:
            return await self.catalog.finish_move(lora.id, target, **move.arrival(self.now))
        except LoraServerError:
            await self.store.rename(target, lora.location)
            with suppress(LoraServerError):  # it failed just now; `recover` would do this too
                await self.catalog.withdraw_move(lora.id)
            raise

    async def _purge(self, lora: StoredLora) -> None:
        facts = await self.store.facts(lora.location)
        if facts is None or facts.inode != lora.facts.inode:  # not the file that was meant
            raise MovedMeanwhile(lora.location.partial_path)
        try:
            await self.store.remove(lora.location)
        except FileNotFoundError as error:
            raise MovedMeanwhile(lora.location.partial_path) from error
        except LoraServerError:
            if await self.store.facts(lora.location) is None:  # gone, if perhaps not for good
                await self.catalog.forget(lora.id)
            raise
        await self.catalog.forget(lora.id)

    async def _known(self, location: Location) -> StoredLora:
        lora = await self.catalog.find(location)
        if lora is None:
            raise LoraNotFound
        return lora

    async def _free(self, wanted: Location) -> Location:
        taken = await self.store.taken(wanted.place, wanted.entity_type)
        return replace(wanted, name=names.first_free(Filename(wanted.name), taken))
