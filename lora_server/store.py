"""The files: staged, published, moved, removed and looked at; nothing is ever overwritten.

Each coroutine runs its system calls in the store's own threads. Callers hold the lock of the
entity type (`lora_server.library`) while they choose a name and claim it; the claim itself
refuses to overwrite, so that outsiders who write into the tree are safe too.
"""

import asyncio
import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from lora_server import names
from lora_server.config import StorageConfig
from lora_server.errors import ConfigInvalid
from lora_server.filesystem import (
    disk_errors,
    make_folder,
    opened_folder,
    rename_exclusive,
    sync_folder,
)
from lora_server.layout import Layout
from lora_server.records import FileFacts, Location, Place
from lora_server.staging import StagedFile

T = TypeVar("T")

DISK_THREADS = 8  # enough to keep a disk busy; uploads take turns beyond that
_HASH_BLOCK = 1024 * 1024
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Store:
    """The three trees of one configuration; made by `opened`."""

    def __init__(self, layout: Layout, *, file_mode: int, dir_mode: int) -> None:
        self.layout = layout
        self._file_mode = file_mode
        self._dir_mode = dir_mode
        self._threads = ThreadPoolExecutor(DISK_THREADS, thread_name_prefix="disk")

    @classmethod
    @asynccontextmanager
    async def opened(cls, config: StorageConfig) -> AsyncIterator["Store"]:
        """Own the trees: make the folders, try the moves, hold the lock.

        Raises:
            ConfigInvalid: the folders cannot be used together, or another daemon owns them.

        """
        store = cls(Layout.of(config), file_mode=config.file_mode, dir_mode=config.dir_mode)
        try:
            lock = await store.run(store._prepare)
            try:
                yield store
            finally:
                os.close(lock)
        finally:
            await asyncio.to_thread(store._threads.shutdown)

    async def run(self, call: Callable[..., T], *args: object) -> T:
        """Run blocking disk work in the store's threads.

        Raises:
            StorageFull, StorageUnusable: the disk said no.

        """
        with disk_errors():
            return await asyncio.get_running_loop().run_in_executor(self._threads, call, *args)

    @asynccontextmanager
    async def stage(self) -> AsyncIterator[StagedFile]:
        """Open a file that does not exist yet: commit it, or leaving removes it."""
        path = self.layout.staging / f"{secrets.token_hex(16)}.part"
        staged = await self.run(StagedFile, path, self._threads)
        try:
            yield staged
        finally:
            await asyncio.shield(staged.discard())  # also when cancelled twice

    async def publish(self, staged: StagedFile, target: Location) -> FileFacts:
        """Give a sealed file its mode and its name; durable when this returns.

        Raises:
            FileExistsError: an outsider took the name.

        """
        facts = await self.run(self._publish, staged, target)
        staged.committed()
        return facts

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
        await self.run(self._rename, source, target)

    async def remove(self, location: Location) -> None:
        """Remove a file for good; one that is gone already is no error."""
        await self.run(self._remove, location)

    async def taken(self, place: Place, entity_type: str) -> frozenset[str]:
        """Return the keys of all names in a folder, also of those that are no LoRA."""
        return await self.run(self._taken, place, entity_type)

    async def facts(self, location: Location) -> FileFacts | None:
        """Stat a file; None when no regular file stands there."""
        return await self.run(self._facts, location)

    async def scan(self, place: Place) -> dict[Location, FileFacts]:
        """Return all files of a tree that can be LoRAs: right folder, plain name, regular."""
        return await self.run(self._scan, place)

    async def digest(self, location: Location) -> tuple[str, FileFacts] | None:
        """Hash a file; None when it is gone or changed while it was read."""
        return await self.run(self._digest, location)

    async def sweep_staging(self) -> int:
        """Remove what an earlier run left in staging; returns how many files that were."""
        return await self.run(self._sweep_staging)

    async def free_bytes(self) -> int:
        """Return how many bytes staging can still take for this user."""
        return await self.run(self._free_bytes)

    async def check(self) -> None:
        """Write, move and remove a small file for real.

        Raises:
            StorageFull, StorageUnusable: that failed.

        """
        await self.run(self._try_moves)

    # Everything below blocks and runs in the store's threads.

    def _prepare(self) -> int:
        try:
            for place in (Place.MODELS, Place.BIN):
                for entity_type in self.layout.entity_types:
                    make_folder(self.layout.folder(place, entity_type), self._dir_mode)
            make_folder(self.layout.staging, 0o700)
            make_folder(self.layout.state, 0o750)
            self._try_moves()
            return _lock(self.layout.lock)
        except OSError as error:
            raise ConfigInvalid(
                "storage: models_dir, bin_dir and staging_dir must be writable folders of one "
                f"local filesystem, so that files move between them atomically ({error})"
            ) from error

    def _try_moves(self) -> None:
        probe = f".probe-{secrets.token_hex(8)}"
        places = [self.layout.staging, self.layout.models, self.layout.bin]
        (places[0] / probe).touch(exist_ok=False)
        here = places[0]
        try:
            for there in places[1:]:
                with opened_folder(here) as source, opened_folder(there) as target:
                    rename_exclusive(source, probe, target, probe)
                here = there
        finally:
            (here / probe).unlink()

    def _publish(self, staged: StagedFile, target: Location) -> FileFacts:
        os.fchmod(staged.fd, self._file_mode)
        os.fsync(staged.fd)  # the mode must be as durable as the name
        self._rename(staged.location, target)
        return _facts_of(os.fstat(staged.fd))

    def _rename(self, source: Location, target: Location) -> None:
        there = self.layout.folder(target.place, target.entity_type)
        here = self.layout.folder(source.place, source.entity_type)
        make_folder(there, self._dir_mode)
        with opened_folder(here) as source_fd, opened_folder(there) as target_fd:
            rename_exclusive(source_fd, source.name, target_fd, target.name)
            try:
                os.fsync(target_fd)
                if source.place is not Place.STAGING:  # what is forgotten there is swept anyway
                    os.fsync(source_fd)
            except OSError:
                rename_exclusive(target_fd, target.name, source_fd, source.name)
                raise

    def _remove(self, location: Location) -> None:
        path = self.layout.path(location)
        path.unlink(missing_ok=True)
        sync_folder(path.parent)

    def _taken(self, place: Place, entity_type: str) -> frozenset[str]:
        try:
            entries = os.listdir(self.layout.folder(place, entity_type))  # noqa: PTH208 - names only
        except FileNotFoundError:
            return frozenset()
        return frozenset(map(names.key, entries))

    def _facts(self, location: Location) -> FileFacts | None:
        try:
            status = os.lstat(self.layout.path(location))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return _facts_of(status) if stat.S_ISREG(status.st_mode) else None

    def _scan(self, place: Place) -> dict[Location, FileFacts]:
        found: dict[Location, FileFacts] = {}
        for entity_type in self.layout.entity_types:
            for entry in _entries(self.layout.folder(place, entity_type)):
                location = Location(place, entity_type, entry.name)
                if names.is_plain(entry.name) and (facts := _entry_facts(entry)):
                    found[location] = facts
        return found

    def _digest(self, location: Location) -> tuple[str, FileFacts] | None:
        try:
            fd = os.open(self.layout.path(location), _OPEN_FILE)
        except FileNotFoundError:
            return None
        with open(fd, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor, not a path
            before = _facts_of(os.fstat(fd))
            sha256 = hashlib.sha256()
            while block := file.read(_HASH_BLOCK):
                sha256.update(block)
            unchanged = _facts_of(os.fstat(fd)) == before == self._facts(location)
        return (sha256.hexdigest(), before) if unchanged else None

    def _sweep_staging(self) -> int:
        leftovers = list(self.layout.staging.glob("*.part"))
        for path in leftovers:
            path.unlink(missing_ok=True)
        return len(leftovers)

    def _free_bytes(self) -> int:
        status = os.statvfs(self.layout.staging)
        return status.f_bavail * status.f_frsize


def _facts_of(status: os.stat_result) -> FileFacts:
    return FileFacts(size=status.st_size, mtime_ns=status.st_mtime_ns, inode=status.st_ino)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except FileNotFoundError:
        return


def _entry_facts(entry: os.DirEntry[str]) -> FileFacts | None:
    try:
        if entry.is_file(follow_symlinks=False):
            return _facts_of(entry.stat(follow_symlinks=False))
    except FileNotFoundError:
        pass  # gone since the folder was listed
    return None


def _lock(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise ConfigInvalid(f"storage.state_dir: another lora-server holds {path}") from error
    return fd
