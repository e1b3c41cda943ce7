"""A file comes down: resumed where it broke off, checked, and never over another one.

It grows as `NAME.part` and gets its name when it is whole. A token without the admin scope gets
the tensors without the training metadata; then the server gives no digest and resumes nothing.
"""

import asyncio
import base64
import errno
import fcntl
import hashlib
import os
import re
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

import aiohttp
from yarl import URL

from lora_server.client.connection import Connection, Response, pieces, read
from lora_server.client.errors import LocalProblem, NoServer, Unreachable
from lora_server.client.library import split
from lora_server.client.local_files import stoppable
from lora_server.client.watcher import Step, Watcher

_READ_BYTES = 1024 * 1024
_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/=]+):")  # RFC 9530

_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP})


@dataclass(frozen=True, slots=True)
class Downloaded:
    """What came down; `sha256` is None where the server told no digest to check against."""

    path: Path
    size: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class _Remote:
    """What the server says of a file before it is sent."""

    url: URL
    size: int
    etag: str | None
    sha256: str | None

    @property
    def resumable(self) -> bool:
        return self.etag is not None and self.sha256 is not None


async def download(
    connection: Connection, partial_path: str, target: Path, watcher: Watcher, *, force: bool
) -> Downloaded:
    """Fetch a LoRA into `target`; what an earlier try left in `target.part` is gone on with.

    Raises:
        LocalProblem: `target` exists and `force` is not set, or the disk fails.
        NoServer: what came is not what the server announced, twice.
        ClientError: as `Connection.ask`.

    """
    watcher.begins(Step.ASK, None)
    url = connection.address.of("lora", *split(partial_path))
    if not force and await asyncio.to_thread(os.path.lexists, target):
        raise _taken(target)
    async with _part_of(target) as part:
        remote = await _looked_at(connection, url)
        if not remote.resumable:
            await part.restart()
        await part.resume(remote.size, watcher)
        await _fetched(connection, remote, part, watcher)
        if remote.sha256 not in (None, part.sha256):
            await part.restart()  # it was begun from another content
            await _fetched(connection, remote, part, watcher)
        if remote.sha256 not in (None, part.sha256):
            await part.restart()
            raise NoServer(f"{partial_path} arrived with other bytes than announced; try again")
        await part.publish(target, force=force)
    return Downloaded(target, remote.size, remote.sha256)


async def _looked_at(connection: Connection, url: URL) -> _Remote:
    async def once() -> Response:
        async with connection.sent("HEAD", url, headers={}) as (response, moved):
            return await read(response, moved)

    headers = (await connection.patience.attempts(once, repeatable=True)).headers
    size = headers.get("Content-Length", "")
    if not (size.isascii() and size.isdigit()):
        raise NoServer("the server does not tell the size of the file; check the URL")
    return _Remote(url, int(size), headers.get("ETag"), _announced(headers))


def _announced(headers: Mapping[str, str]) -> str | None:
    found = _DIGEST.search(headers.get("Repr-Digest", ""))
    if found is None:
        return None
    with suppress(ValueError):
        return base64.b64decode(found[1], validate=True).hex()
    return None


async def _fetched(
    connection: Connection, remote: _Remote, part: "_Part", watcher: Watcher
) -> None:
    async def once() -> None:
        if not remote.resumable:
            await part.restart()
        if part.size == remote.size and remote.resumable:
            return
        watcher.begins(Step.RECEIVE, remote.size, done=part.size)
        headers = _range(remote, part.size) if part.size else {}
        async with connection.sent("GET", remote.url, headers=headers) as (response, idle):
            if response.status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
                await read(response, idle)
            if not _goes_on(response, part.size):
                await part.restart()
                watcher.begins(Step.RECEIVE, remote.size)
            async for piece in pieces(response, idle.moved):
                await part.append(piece)
                watcher.advances(len(piece))
        if part.size != remote.size:
            raise Unreachable(f"the file from {connection.address} is not whole", sent=True)

    await connection.patience.attempts(once, repeatable=True)


def _range(remote: _Remote, begin: int) -> dict[str, str]:
    return {"Range": f"bytes={begin}-", "If-Range": remote.etag or ""}


def _goes_on(response: aiohttp.ClientResponse, begin: int) -> bool:
    if response.status != HTTPStatus.PARTIAL_CONTENT:
        return begin == 0
    if not response.headers.get("Content-Range", "").startswith(f"bytes {begin}-"):
        raise NoServer("the server sent another range than the one asked for; try again")
    return True


class _Part:
    """`NAME.part`, growing; this process alone writes it. The digest is taken on the way."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.size = 0
        self._path = path
        self._file = file
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    async def restart(self) -> None:
        """Forget what there is."""
        self.size, self._digest = 0, hashlib.sha256()
        await stoppable(lambda _: self._truncate())

    async def resume(self, most: int, watcher: Watcher) -> None:
        """Take in what an earlier try left; more than the whole file is none of it."""
        left = await asyncio.to_thread(lambda: os.fstat(self._file.fileno()).st_size)
        if not left:
            return
        if left > most:
            await self.restart()
            return
        watcher.begins(Step.HASH, left)
        await stoppable(lambda stop: self._take_in(watcher, stop))

    async def append(self, piece: bytes) -> None:
        """Write and hash the next bytes."""
        await stoppable(lambda _: self._append(piece))
        self.size += len(piece)

    async def publish(self, target: Path, *, force: bool) -> None:
        """Give the whole file its name; only with `force` over another one."""
        await stoppable(lambda _: self._publish(target, force=force))

    def _truncate(self) -> None:
        try:
            self._file.seek(0)
            self._file.truncate()
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def _take_in(self, watcher: Watcher, stop: threading.Event) -> None:
        try:
            self._file.seek(0)
            while not stop.is_set() and (piece := self._file.read(_READ_BYTES)):
                self._digest.update(piece)
                self.size += len(piece)
                watcher.advances(len(piece))
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def _append(self, piece: bytes) -> None:
        try:
            rest = memoryview(piece)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise _unwritable(self._path, error) from error
        self._digest.update(piece)

    def _publish(self, target: Path, *, force: bool) -> None:
        try:
            os.fsync(self._file.fileno())
            if force:
                self._path.replace(target)
            else:
                _rename_onto_nothing(self._path, target)
        except FileExistsError as error:
            raise _taken(target) from error
        except OSError as error:
            raise _unwritable(target, error) from error


@asynccontextmanager
async def _part_of(target: Path) -> AsyncIterator[_Part]:
    path = target.with_name(f"{target.name}.part")
    file = await asyncio.to_thread(_locked, path)
    part = _Part(path, file)
    try:
        yield part
    finally:
        await stoppable(lambda _: _let_go(path, file))


def _let_go(path: Path, file: BinaryIO) -> None:
    with file:
        facts = os.fstat(file.fileno())
        if facts.st_nlink and not facts.st_size:
            path.unlink(missing_ok=True)


def _locked(path: Path) -> BinaryIO:
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=0)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise LocalProblem(f"{path} is being written by another download") from error
    return file


def _rename_onto_nothing(source: Path, target: Path) -> None:
    try:
        os.link(source, target)  # unlike a rename, it fails where there is something
        source.unlink()
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(target):  # as well as a disk without links can tell
            raise FileExistsError from error
        source.rename(target)


def _taken(target: Path) -> LocalProblem:
    return LocalProblem(f"{target} exists; --force replaces it, --to chooses another place")


def _unwritable(path: Path, error: OSError) -> LocalProblem:
    return LocalProblem(f"{path} cannot be written: {error.strerror}")
