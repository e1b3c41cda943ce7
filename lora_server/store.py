"""The files: staged, published, moved, removed and looked at; nothing is ever overwritten.

Each coroutine runs its system calls in the store's own threads. Callers hold the lock of the
entity type (`lora_server.library`) while they choose a name and claim it; the claim itself
refuses to overwrite, so that outsiders who write into the tree are safe too.
"""

import asyncio
import io
import os
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from typing import TypeVar

from lora_server import looking, names
from lora_server.config import StorageConfig
from lora_server.errors import LoraServerError, StorageUnusable
from lora_server.filesystem import (
    disk_errors,
    make_folder,
    opened_file,
    opened_folder,
    rename_exclusive,
    sync,
)
from lora_server.layout import Layout
from lora_server.ownership import owned, try_moves
from lora_server.records import FileFacts, Location, Place
from lora_server.staging import StagedFile
from lora_server.uninterrupted import uninterrupted

T = TypeVar("T")

DISK_THREADS = 8  # enough to keep a disk busy; uploads take turns beyond that
_CLAIM = (FileExistsError, FileNotFoundError)  # other hands are free to take a name or a file


class Store:
    """The three trees of one configuration; made by `opened`."""

    def __init__(self, layout: Layout, *, file_mode: int, dir_mode: int) -> None:
        self.layout = layout
        self._file_mode = file_mode
        self._dir_mode = dir_mode
        self._threads = ThreadPoolExecutor(DISK_THREADS, thread_name_prefix="disk")
        self._sync_failed = False  # and nothing was published since

    @classmethod
    @asynccontextmanager
    async def opened(cls, config: StorageConfig) -> AsyncIterator["Store"]:
        """Own the trees: make the folders, try the moves, hold the lock.

        Raises:
            ConfigInvalid: the folders cannot be used together, or another daemon owns them.

        """
        store = cls(Layout.of(config), file_mode=config.file_mode, dir_mode=config.dir_mode)
        ownership = ExitStack()
        try:
            owning = owned(store.layout, config.dir_mode)
            await uninterrupted(store.run(ownership.enter_context, owning))
            yield store
        finally:
            await uninterrupted(asyncio.to_thread(store._close, ownership))

    async def run(
        self, call: Callable[..., T], *args: object, expected: Collection[type[OSError]] = ()
    ) -> T:
        """Run blocking disk work in the store's threads.

        Raises:
            StorageFull, StorageUnusable: the disk said no, other than as `expected`.

        """
        with self._noting_failed_syncs(), disk_errors(*expected):
            return await asyncio.get_running_loop().run_in_executor(self._threads, call, *args)

    @asynccontextmanager
    async def stage(self) -> AsyncIterator[StagedFile]:
        """Open a file that does not exist yet: commit it, or leaving removes it."""
        path = self.layout.staging / f"{secrets.token_hex(16)}.part"
        opening = asyncio.ensure_future(self.run(StagedFile, path, self._threads))
        try:
            with self._noting_failed_syncs():  # of the file itself
                yield await asyncio.shield(opening)
        finally:
            await uninterrupted(_discard(opening))

    async def publish(self, staged: StagedFile, target: Location) -> None:
        """Give a sealed file its mode and its name; durable when this returns.

        Raises:
            FileExistsError: an outsider took the name.

        """
        await self.run(self._publish, staged, target, expected=_CLAIM)
        staged.committed()
        self._sync_failed = False

    async def unpublish(self, staged: StagedFile, target: Location) -> None:
        """Take a file that `publish` named back into staging, where leaving removes it."""
        await self.run(self._rename, target, staged.location)
        staged.committed(now=False)

    async def rename(self, source: Location, target: Location) -> None:
        """Move a file between folders in one atomic step; durable when this returns.

        Raises:
            FileExistsError: the target's name is taken.
            FileNotFoundError: the source is gone.

        """
        await self.run(self._rename, source, target, expected=_CLAIM)

    async def remove(self, location: Location) -> None:
        """Remove a file for good; durable when this returns.

        Raises:
            FileNotFoundError: it is gone already.

        """
        await self.run(self._remove, location, expected=_CLAIM)

    async def taken(self, place: Place, entity_type: str) -> frozenset[str]:
        """Return the keys of all names in a folder, also of those that are no LoRA."""
        return await self.run(self._taken, place, entity_type)

    async def facts(self, location: Location) -> FileFacts | None:
        """Stat a file; None when no regular file stands there."""
        return await self.run(looking.facts, self.layout.path(location))

    async def scan(self, place: Place) -> dict[Location, FileFacts]:
        """Return all files of a tree that can be LoRAs: right folder, plain name, regular."""
        return await self.run(looking.scan, self.layout, place)

    async def digest(self, location: Location, begin: int = 0) -> tuple[str, FileFacts] | None:
        """Hash a file from byte `begin`; None when it is gone or changed while it was read."""
        return await self.run(looking.digest, self.layout.path(location), begin)

    @asynccontextmanager
    async def opened_for_reading(self, location: Location) -> AsyncIterator[int]:
        """Lend the descriptor of a file; a symbolic link in its place is refused.

        Raises:
            FileNotFoundError: it is gone.

        """
        path = self.layout.path(location)
        opening = asyncio.ensure_future(self.run(opened_file, path, expected=_CLAIM))
        try:
            yield (await asyncio.shield(opening)).fileno()
        finally:
            await uninterrupted(self._close_file(opening))

    async def sweep_staging(self) -> int:
        """Remove what an earlier run left in staging; returns how many files that were."""
        return await self.run(self._sweep_staging)

    async def free_bytes(self) -> int:
        """Return how many bytes staging can still take for this user."""
        return await self.run(self._free_bytes)

    async def check(self) -> None:
        """Make, move and remove a file for real.

        Raises:
            StorageFull, StorageUnusable: that failed, or something could not be made durable
                and no file has been published since. A probe that is synced would prove little:
                a disk that lost one block keeps others.

        """
        if self._sync_failed:
            raise StorageUnusable("a sync failed, and no file was published since")
        await self.run(try_moves, self.layout.roots)

    @contextmanager
    def _noting_failed_syncs(self) -> Iterator[None]:
        try:
            yield
        except StorageUnusable as error:
            self._sync_failed |= error.sync_failed
            raise

    async def _close_file(self, opening: asyncio.Future[io.FileIO]) -> None:
        """Close the file even when the caller was gone before it was open."""
        with suppress(LoraServerError, OSError):  # it was never opened, and the caller knows
            await self.run((await opening).close)

    # Everything below blocks and runs in the store's threads.

    def _publish(self, staged: StagedFile, target: Location) -> None:
        os.fchmod(staged.fd, self._file_mode)
        sync(staged.fd)  # the mode must be as durable as the name
        try:
            self._rename(staged.location, target)
        except FileNotFoundError as error:
            raise StorageUnusable(f"{staged.path} was taken out of staging") from error

    def _rename(self, source: Location, target: Location) -> None:
        there = self.layout.folder(target.place, target.entity_type)
        here = self.layout.folder(source.place, source.entity_type)
        make_folder(there, self._dir_mode)
        with opened_folder(here) as source_fd, opened_folder(there) as target_fd:
            rename_exclusive(source_fd, source.name, target_fd, target.name)
            try:
                sync(target_fd)
                if source.place is not Place.STAGING:  # what is forgotten there is swept anyway
                    sync(source_fd)
            except OSError:
                rename_exclusive(target_fd, target.name, source_fd, source.name)
                raise

    def _remove(self, location: Location) -> None:
        folder = self.layout.folder(location.place, location.entity_type)
        with opened_folder(folder) as folder_fd:
            os.unlink(location.name, dir_fd=folder_fd)
            sync(folder_fd)

    def _taken(self, place: Place, entity_type: str) -> frozenset[str]:
        folder = self.layout.folder(place, entity_type)
        make_folder(folder, self._dir_mode)
        return frozenset(map(names.key, os.listdir(folder)))  # noqa: PTH208 - names only

    def _sweep_staging(self) -> int:
        leftovers = list(self.layout.staging.glob("*.part"))
        for path in leftovers:
            path.unlink(missing_ok=True)
        return len(leftovers)

    def _close(self, ownership: ExitStack) -> None:
        self._threads.shutdown()
        ownership.close()

    def _free_bytes(self) -> int:
        status = os.statvfs(self.layout.staging)
        return status.f_bavail * status.f_frsize


async def _discard(opening: asyncio.Future[StagedFile]) -> None:
    """Discard the file even when the caller was gone before it was open."""
    with suppress(LoraServerError):  # it was never made, and the caller knows
        await (await opening).discard()
