"""A file on this side: its digest, its header and its bytes, each read once and in pieces."""

import asyncio
import hashlib
import io
import os
import stat
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

from lora_server.client.errors import LocalProblem
from lora_server.client.watcher import Step, Watcher
from lora_server.names import EXTENSIONS, SAFETENSORS

T = TypeVar("T")

PIECE_BYTES = 1024 * 1024
MAX_HEADER_BYTES = 4 * 1024 * 1024  # more than this, the server judges as it arrives
_LENGTH_BYTES = 8


class LocalFile:
    """A regular file, held open: what is hashed is what is sent."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.name = path.name.encode(errors="replace").decode()
        self.size = os.fstat(fd).st_size
        self._fd = fd
        self._open = True
        self._reading = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def opened(cls, path: Path) -> AsyncIterator["LocalFile"]:
        """Hold a file open for the length of the block.

        Raises:
            LocalProblem: it cannot be read, or is no regular file.

        """
        file = cls(path, await asyncio.to_thread(_opened, path))
        try:
            yield file
        finally:
            await file._close()

    async def header(self) -> bytes | None:
        """Return the first bytes of a safetensors file, its header included.

        None where it is another file, or where the header is too long to be asked about.
        """
        if self.path.suffix.lower() != SAFETENSORS:
            return None
        length = int.from_bytes((await self._at(0, _LENGTH_BYTES)), "little")
        if length > MAX_HEADER_BYTES:
            return None
        return await self._at(0, _LENGTH_BYTES + length)

    async def sha256(self, watcher: Watcher) -> str:
        """Read the file from end to end and return its SHA-256 in lower-case hex."""
        watcher.begins(Step.HASH, self.size)
        async with self._reading:
            return await stoppable(lambda stop: self._hashed(watcher, stop))

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield exactly `size` bytes.

        Raises:
            LocalProblem: they are not there any more.

        """
        offset = 0
        while offset < self.size:
            piece = await self._at(offset, min(PIECE_BYTES, self.size - offset))
            if not piece:
                raise LocalProblem(f"{self.path} became shorter while it was sent; try again")
            yield piece
            offset += len(piece)

    async def _close(self) -> None:
        """Let go, once no thread reads: the number of a closed descriptor is given out again."""
        async with self._reading:
            self._open = False
            os.close(self._fd)

    async def _at(self, offset: int, nbytes: int) -> bytes:
        async with self._reading:
            if not self._open:  # a request that was given up may still ask for its body
                raise LocalProblem(f"{self.path} is not read any more")
            return await self._read(offset, nbytes)

    async def _read(self, offset: int, nbytes: int) -> bytes:
        try:
            return await stoppable(lambda _: os.pread(self._fd, nbytes, offset))
        except OSError as error:
            raise _unreadable(self.path, error) from error

    def _hashed(self, watcher: Watcher, stop: threading.Event) -> str:
        try:
            with io.FileIO(self._fd, "rb", closefd=False) as file:
                file.seek(0)
                watched = WatchedReader(file, watcher, stop)
                return hashlib.file_digest(watched, "sha256").hexdigest()
        except OSError as error:
            raise _unreadable(self.path, error) from error


class WatchedReader:
    """A file for `hashlib.file_digest` that tells how far it is, and ends early when told to."""

    def __init__(self, file: io.FileIO, watcher: Watcher, stop: threading.Event) -> None:
        self._file = file
        self._watcher = watcher
        self._stop = stop

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: bytearray, /) -> int:
        """Read into a buffer; 0 at the end."""
        if self._stop.is_set():
            return 0
        count = self._file.readinto(buffer) or 0
        self._watcher.advances(count)
        return count


def found(paths: list[Path], *, recursive: bool) -> Iterator[Path]:
    """Yield the files that these paths name; a folder stands for the LoRAs in it.

    Hidden files and folders, and links to folders, are passed over.

    Raises:
        LocalProblem: a path is a folder and `recursive` is not set, or a folder cannot be read.

    """
    for path in paths:
        if not path.is_dir():
            yield path
        elif recursive:
            yield from _below(path)
        else:
            raise LocalProblem(f"{path} is a folder; --recursive takes what is in it")


def _below(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise _unreadable(Path(error.filename), error) from error

    for at, folders, names in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS:
                yield Path(at, name)


async def stoppable(work: Callable[[threading.Event], T]) -> T:
    """Work in a thread; who is cancelled asks it to stop, and waits until it has let go."""
    stop = threading.Event()
    task = asyncio.ensure_future(asyncio.to_thread(work, stop))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        while not task.done():
            with suppress(asyncio.CancelledError):  # however often it comes
                await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # nobody is left to hear of it
        raise


def _opened(path: Path) -> int:
    try:
        # Without O_NONBLOCK, opening a pipe would wait for somebody who writes.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise LocalProblem(f"{path} is no regular file")
    return fd


def _unreadable(path: Path, error: OSError) -> LocalProblem:
    return LocalProblem(f"{path} cannot be read: {error.strerror}")
