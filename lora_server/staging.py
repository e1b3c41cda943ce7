"""One upload on its way to disk: written, hashed, sealed, then committed or discarded."""

import asyncio
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

from lora_server.filesystem import disk_errors, facts_of, sync, write_all
from lora_server.records import FileFacts, Location, Place

log = structlog.get_logger(__name__)

IOV_MAX = 1024  # <limits.h>: the most chunks that one writev takes


class StagedFile:
    """A `.part` file under a random name; opening it blocks, so the store does that in a thread.

    One block is written and hashed in a thread while the caller gathers the next, so at most
    two blocks of an upload are in memory and a slow disk holds the client back.
    """

    def __init__(self, path: Path, threads: ThreadPoolExecutor) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self.fd = os.open(path, flags, 0o600)
        self.path = path
        self.size = 0  # bytes taken so far
        self._sha256 = hashlib.sha256()
        self._threads = threads
        self._writing: asyncio.Future[None] | None = None
        self._facts: FileFacts | None = None
        self._committed = False

    @property
    def sha256(self) -> str:
        """Return the digest of what `seal` made durable, in lower-case hex."""
        return self._sha256.hexdigest()

    @property
    def facts(self) -> FileFacts:
        """Return what `seal` left on disk; mode and name do not change it any more."""
        if self._facts is None:
            raise RuntimeError("facts are asked for before the file is sealed")
        return self._facts

    async def write(self, block: list[bytes]) -> None:
        """Take a block of at most IOV_MAX chunks, as soon as the one before it is on disk.

        Raises:
            StorageFull, StorageUnusable: an earlier block could not be written.

        """
        await self.settle()
        self.size += sum(map(len, block))
        self._start(self._append, block)

    async def settle(self) -> None:
        """Wait until everything taken so far can be read back from the descriptor."""
        if self._writing is None:
            return
        with disk_errors():
            await asyncio.shield(self._writing)
        self._writing = None

    async def seal(self) -> None:
        """Make the bytes durable; nothing is written after this.

        Raises:
            StorageFull, StorageUnusable: they are not, and sealing again says so without a try.

        """
        await self.settle()
        self._start(self._sync)
        await self.settle()

    @property
    def location(self) -> Location:
        """Return where the file stands until it is published."""
        return Location(Place.STAGING, "", self.path.name)

    def committed(self, *, now: bool = True) -> None:
        """Note whether the file has its name, and so is no longer ours to remove."""
        self._committed = now

    async def discard(self) -> None:
        """Close the file, and remove it unless it was committed; safe to call at any point."""
        if self._writing is not None:
            await asyncio.wait({self._writing})  # the descriptor is in use until then
            self._writing.exception()  # known already, or of no interest now
        await asyncio.get_running_loop().run_in_executor(self._threads, self._close)

    def _start(self, call: Callable[..., None], *args: object) -> None:
        self._writing = asyncio.get_running_loop().run_in_executor(self._threads, call, *args)

    def _sync(self) -> None:
        sync(self.fd)
        self._facts = facts_of(os.fstat(self.fd))

    def _append(self, block: list[bytes]) -> None:
        for chunk in block:
            self._sha256.update(chunk)
        write_all(self.fd, block)

    def _close(self) -> None:
        try:
            os.close(self.fd)
            if not self._committed:
                self.path.unlink(missing_ok=True)
        except OSError as error:  # swept at the next start; the upload's fate is decided
            log.warning("staging.left", path=str(self.path), why=str(error))
