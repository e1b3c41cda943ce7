"""What people do to the tree by hand, noticed and entered into the catalogue.

The file tree is the truth about which files exist. At start everything is compared; while the
server runs, the kernel says which paths changed and only those are. New and changed files are
hashed in the background, once they have come to rest, and listed then.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import structlog

from lora_server import names
from lora_server.backlog import Backlog
from lora_server.door import Door
from lora_server.errors import LoraServerError
from lora_server.library import Library
from lora_server.moves import Move
from lora_server.records import (
    FileFacts,
    Judgement,
    Location,
    Override,
    Place,
    Source,
    StoredLora,
)
from lora_server.watching import changes

log = structlog.get_logger(__name__)

REST_S = 2.0  # a file that changed less long ago may still be written to
FULL_COMPARISON_S = 3600.0  # in case the kernel's queue of events ran over
WATCH_AGAIN_S = 60.0  # after the kernel refused to watch, also compare this often
MANY = 100  # so many changes at once are cheaper to find by comparing everything

Known = Mapping[Location, StoredLora]


class Reconciler:
    """Keeps the catalogue of one library true to its tree."""

    def __init__(self, library: Library, door: Door, *, rest_s: float = REST_S) -> None:
        self._library = library
        self._door = door
        self._rest_s = rest_s
        self._backlog = Backlog()
        self._unrested: dict[Location, FileFacts] = {}  # as they were when they were set aside
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
                self._backlog.close()
                for worker in workers:
                    worker.cancel()

    async def idle(self) -> None:
        """Wait until every file noticed so far is listed."""
        await self._backlog.idle()

    async def compare_all(self) -> None:
        """Compare both trees with the whole catalogue; hashing is left to the background."""
        library = self._library
        async with library.locked(library.store.layout.entity_types):
            on_disk = {
                **await library.store.scan(Place.MODELS),
                **await library.store.scan(Place.BIN),
            }
            await self._settle_differences(on_disk, await library.catalog.known_files())

    async def compare(self, locations: Collection[Location]) -> None:
        """Compare some files with the catalogue; hashing is left to the background."""
        library = self._library
        async with library.locked({location.entity_type for location in locations}):
            on_disk = {
                location: facts
                for location in locations
                if (facts := await library.store.facts(location))
            }
            known = {
                location: lora
                for location in locations
                if (lora := await library.catalog.find(location))
            }
            await self._settle_differences(on_disk, known)

    async def _settle_differences(
        self, on_disk: Mapping[Location, FileFacts], known: Known
    ) -> None:
        fresh = on_disk.keys() - known.keys()
        changed = {at for at in on_disk.keys() & known.keys() if on_disk[at] != known[at].facts}
        # A file that kept its inode, size and time was moved by hand, and what is known holds;
        # it may have been moved over another.
        arrivals = {on_disk[location]: location for location in fresh | changed}
        gone = []
        for location in known.keys() - on_disk.keys():
            lora = known[location]
            if target := arrivals.pop(lora.facts, None):
                await self._moved(Move(lora, target))
                fresh, changed = fresh - {target}, changed - {target}
            else:
                gone.append(lora)
        if gone:
            await self._library.catalog.forget(*(lora.id for lora in gone))
            paths = [lora.location.partial_path for lora in gone[:MANY]]
            log.info("files.gone", files=len(gone), partial_paths=paths)
        for location in fresh | changed:
            self._backlog.add(location)

    async def _moved(self, move: Move) -> None:
        changes = move.arrival(self._library.now)
        await self._library.catalog.finish_move(move.lora.id, move.target, **changes)
        source, target = move.lora.location, move.target
        log.info("file.moved", source=source.partial_path, target=target.partial_path)

    async def _watch(self) -> None:
        """Watch the trees; where the kernel refuses to, compare them now and then instead."""
        while True:
            with _logged("watch", RuntimeError):  # watchfiles' own errors are of this kind
                await self._follow()
            await asyncio.sleep(WATCH_AGAIN_S)
            with _logged("comparison"):
                await self.compare_all()

    async def _follow(self) -> None:
        async for changed in changes(self._library.store.layout, self._stopping):
            with _logged("comparison"):
                if changed is None or len(changed) > MANY:
                    await self.compare_all()
                else:
                    await self.compare(changed)

    async def _compare_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(FULL_COMPARISON_S)
            with _logged("comparison"):
                await self.compare_all()

    async def _read(self) -> None:
        while True:
            location = await self._backlog.next()
            with _logged("reading"):
                await self._enter(location)

    async def _enter(self, location: Location) -> None:
        """List one file, or set it aside while it is still being written to."""
        facts = await self._library.store.facts(location)
        if facts is None:
            self._unrested.pop(location, None)
            return
        if not self._at_rest(location, facts):
            self._unrested[location] = facts
            self._backlog.set_aside(location, self._rest_s)
            return
        read = await self._read_through(location)
        async with self._library.locked([location.entity_type]):
            if read and await self._library.store.facts(location) == read.facts:
                await self._list(location, read)
                return
        self._backlog.add(location)

    async def _read_through(self, location: Location) -> "_Read | None":
        store = self._library.store
        if (digested := await store.digest(location)) is None:
            return None
        async with store.opened_for_reading(location) as fd:
            judgement = await self._door.judge_found(fd, names.extension(location.name))
        return _Read(*digested, judgement)

    def _at_rest(self, location: Location, facts: FileFacts) -> bool:
        """Tell whether a file is old enough, or was seen to stay as it is.

        Its own time alone cannot tell: copying tools set it, also to times to come.
        """
        unchanged = self._unrested.pop(location, None) == facts
        return unchanged or self._library.clock() - facts.mtime_ns / 1e9 >= self._rest_s

    async def _list(self, location: Location, read: "_Read") -> None:
        catalog = self._library.catalog
        known = await catalog.find(location)
        if known is None:
            await catalog.add_found(_found(location, read, self._library.now))
            log.info("file.found", partial_path=location.partial_path, sha256=read.sha256)
        elif known.sha256 == read.sha256:
            await catalog.set_facts(known.id, read.facts)
            await catalog.set_judgements({known.id: read.judgement})
        else:
            await catalog.set_content(known.id, read.sha256, read.facts, read.judgement)
            log.info("file.changed", partial_path=location.partial_path, sha256=read.sha256)


@dataclass(frozen=True, slots=True)
class _Read:
    """What reading a file through told."""

    sha256: str
    facts: FileFacts
    judgement: Judgement


def _found(location: Location, read: _Read, now: int) -> StoredLora:
    return StoredLora(
        id=0,
        location=location,
        home_name=location.name,
        filename=location.name,
        facts=read.facts,
        sha256=read.sha256,
        uploaded_sha256=read.sha256,
        uploaded_size=read.facts.size,
        uploaded_by=None,
        source=Source.FOUND,
        uploaded_at=read.facts.mtime_ns // 10**9,
        judgement=read.judgement,
        tensors_sha256=None,
        override=Override(),
        deleted_at=now if location.place is Place.BIN else None,
        deleted_by=None,
    )


@contextmanager
def _logged(doing: str, *also: type[Exception]) -> Iterator[None]:
    """Log what failed and go on: the next event, or the next full comparison, tries again."""
    expected: tuple[type[Exception], ...] = (LoraServerError, OSError, *also)
    try:
        yield
    except expected as error:
        log.warning("reconcile.failed", doing=doing, why=str(error.__cause__ or error))
