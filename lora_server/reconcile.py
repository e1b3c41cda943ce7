"""What people do to the tree by hand, noticed and entered into the catalogue.

The file tree is the truth about which files exist. At start everything is compared; while the
server runs, the kernel says which paths changed and only those are. New and changed files are
hashed in the background, once they have come to rest, and listed then.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import structlog
from watchfiles import awatch

from lora_server import names
from lora_server.errors import LoraServerError
from lora_server.library import Library
from lora_server.records import (
    FileFacts,
    Location,
    Override,
    Place,
    Source,
    StoredLora,
)

log = structlog.get_logger(__name__)

REST_S = 2.0  # a file that changed less long ago may still be written to
FULL_COMPARISON_S = 3600.0  # in case the kernel's queue of events ran over


class Reconciler:
    """Keeps the catalogue of one library true to its tree."""

    def __init__(self, library: Library, *, rest_s: float = REST_S) -> None:
        self._library = library
        self._rest_s = rest_s
        self._unread: asyncio.Queue[Location] = asyncio.Queue()
        self._stopping = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Reconciler"]:
        """Compare everything now, then go on noticing until the end of the block."""
        await self.compare_all()
        async with asyncio.TaskGroup() as tasks:
            workers = [
                tasks.create_task(work)
                for work in (self._watch(), self._read(), self._compare_now_and_then())
            ]
            try:
                yield self
            finally:
                self._stopping.set()
                for worker in workers:
                    worker.cancel()

    async def idle(self) -> None:
        """Wait until every file noticed so far is listed."""
        await self._unread.join()

    async def compare_all(self) -> None:
        """Compare both trees with the whole catalogue; hashing is left to the background."""
        library = self._library
        async with library.locked(library.store.layout.entity_types):
            on_disk = {
                **await library.store.scan(Place.MODELS),
                **await library.store.scan(Place.BIN),
            }
            await self._settle_differences(on_disk, await library.catalog.known_files())

    async def compare(self, locations: Iterable[Location]) -> None:
        """Compare some files with the catalogue; hashing is left to the background."""
        library = self._library
        wanted = set(locations)
        async with library.locked({location.entity_type for location in wanted}):
            on_disk = {
                location: facts
                for location in wanted
                if (facts := await library.store.facts(location))
            }
            known = {
                location: (lora.id, lora.facts)
                for location in wanted
                if (lora := await library.catalog.find(location))
            }
            await self._settle_differences(on_disk, known)

    async def _settle_differences(
        self, on_disk: Mapping[Location, FileFacts], known: Mapping[Location, tuple[int, FileFacts]]
    ) -> None:
        fresh = set(on_disk.keys() - known.keys())
        # A file that kept its inode, size and time was moved by hand, and what is known holds.
        arrivals = {on_disk[location]: location for location in fresh}
        for location in known.keys() - on_disk.keys():
            row_id, facts = known[location]
            if target := arrivals.pop(facts, None):
                await self._moved(row_id, location, target)
                fresh.discard(target)
            else:
                await self._library.catalog.forget(row_id)
                log.info("file.gone", place=location.place, partial_path=location.partial_path)
        both = on_disk.keys() & known.keys()
        changed = {location for location in both if on_disk[location] != known[location][1]}
        for location in fresh | changed:
            self._unread.put_nowait(location)

    async def _moved(self, row_id: int, source: Location, target: Location) -> None:
        in_bin = target.place is Place.BIN
        deleted_at = self._library.now if in_bin else None
        home = {} if in_bin else {"home_name": target.name}
        await self._library.catalog.finish_move(
            row_id, target, deleted_at=deleted_at, deleted_by=None, **home
        )
        log.info("file.moved", source=source.partial_path, target=target.partial_path)

    async def _watch(self) -> None:
        layout = self._library.store.layout
        roots = (layout.models, layout.bin)
        async for changes in awatch(*roots, stop_event=self._stopping, debounce=400):
            locations = {self._location(Path(path)) for _, path in changes}
            with _logged("watch"):
                await self.compare(location for location in locations if location)

    async def _compare_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(FULL_COMPARISON_S)
            with _logged("comparison"):
                await self.compare_all()

    async def _read(self) -> None:
        while True:
            location = await self._unread.get()
            try:
                with _logged("reading"):
                    await self._enter(location)
            finally:
                self._unread.task_done()

    async def _enter(self, location: Location) -> None:
        """List one file, or put it back in the queue while it is still being written to."""
        facts = await self._library.store.facts(location)
        if facts is None:
            return
        if self._library.clock() - facts.mtime_ns / 1e9 < self._rest_s:
            await asyncio.sleep(self._rest_s / 8)
            self._unread.put_nowait(location)
            return
        digested = await self._library.store.digest(location)
        async with self._library.locked([location.entity_type]):
            if digested and await self._library.store.facts(location) == digested[1]:
                await self._list(location, *digested)
                return
        self._unread.put_nowait(location)

    async def _list(self, location: Location, sha256: str, facts: FileFacts) -> None:
        catalog = self._library.catalog
        if known := await catalog.find(location):
            await catalog.set_content(known.id, sha256, facts)
            log.info("file.changed", partial_path=location.partial_path, sha256=sha256)
        else:
            await catalog.add_found(_found(location, sha256, facts, self._library.now))
            log.info("file.found", partial_path=location.partial_path, sha256=sha256)

    def _location(self, path: Path) -> Location | None:
        layout = self._library.store.layout
        for place in (Place.MODELS, Place.BIN):
            if path.is_relative_to(layout.root(place)):
                parts = path.relative_to(layout.root(place)).parts
                known = len(parts) == 2 and parts[0] in layout.entity_types  # noqa: PLR2004
                return Location(place, *parts) if known and names.is_plain(parts[1]) else None
        return None


def _found(location: Location, sha256: str, facts: FileFacts, now: int) -> StoredLora:
    return StoredLora(
        id=0,
        location=location,
        home_name=location.name,
        filename=location.name,
        facts=facts,
        sha256=sha256,
        uploaded_sha256=sha256,
        uploaded_size=facts.size,
        uploaded_by=None,
        source=Source.FOUND,
        uploaded_at=facts.mtime_ns // 10**9,
        inspection=None,
        verdict=None,
        override=Override(),
        deleted_at=now if location.place is Place.BIN else None,
        deleted_by=None,
    )


@contextmanager
def _logged(doing: str) -> Iterator[None]:
    """Log what failed and go on: the next event, or the next full comparison, tries again."""
    try:
        yield
    except LoraServerError as error:
        log.warning("reconcile.failed", doing=doing, why=str(error.__cause__ or error))
