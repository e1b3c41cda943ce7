"""A disk that cannot keep what it took: told at once, left with nothing, and seen by probes."""

import errno
import os
import stat
from collections.abc import Callable
from http import HTTPStatus

import pytest

from lora_server.errors import StorageUnusable
from lora_server.store import Store
from tests.calls import BIN, LORA, Answer, call, deleted, listing, lora_bytes, stored
from tests.server import Server, form

Fails = Callable[[os.stat_result], bool]


class FailingSync:
    """`os.fsync` that fails with EIO, or as told, and counts how often each inode was tried."""

    def __init__(self, fails: Fails, code: int = errno.EIO) -> None:
        self.tried: list[int] = []
        self._fails = fails
        self._code = code
        self._sync = os.fsync

    def __call__(self, fd: int) -> None:
        """Sync, or fail."""
        status = os.fstat(fd)
        if self._fails(status):
            self.tried.append(status.st_ino)
            raise OSError(self._code, os.strerror(self._code))
        self._sync(fd)


def _files(status: os.stat_result) -> bool:
    """Tell a LoRA from a folder and from an empty probe."""
    return stat.S_ISREG(status.st_mode) and status.st_size > 0


def _folders(status: os.stat_result) -> bool:
    return stat.S_ISDIR(status.st_mode)


@pytest.fixture(autouse=True)
def _probes_look_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_server.web.readiness._FRESH_S", -1.0)


async def _sent(server: Server) -> Answer:
    upload = form(lora_bytes(), entity_type="styles")
    return await call(server, "POST", f"{LORA}/upload", data=upload)


async def _ready(server: Server) -> int:
    return (await call(server, "GET", "/readyz")).status


@pytest.mark.parametrize("fails", [_files, _folders])
async def test_an_upload_that_cannot_be_made_durable(
    server: Server, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    """It is a 503 and leaves nothing; the server is not ready until an upload was durable."""
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", FailingSync(fails))
        before, answer = await _ready(server), await _sent(server)
    left, during = server.files(), await _ready(server)
    rows = await listing(server)
    again = await _sent(server)

    assert (before, during, await _ready(server)) == (200, 503, 200)
    assert answer.status == HTTPStatus.SERVICE_UNAVAILABLE
    assert "storage failed" in answer.json["detail"]
    assert (left, rows) == ([], [])
    assert again.json["partial_path"] == "styles/ink.safetensors"


async def test_a_move_that_cannot_be_made_durable(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deletion and a purge are noticed in the same way; only an upload proves the disk sound."""
    await stored(server)
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", FailingSync(_folders))
        failed = await call(server, "DELETE", LORA, partial_path="styles/ink.safetensors")
    seen = await _ready(server)
    bin_path = await deleted(server)
    purged = await call(server, "DELETE", BIN, bin_path=bin_path)

    assert (failed.status, seen) == (503, 503)
    assert (purged.status, await _ready(server)) == (200, 503)
    assert (await _sent(server)).status == 200
    assert await _ready(server) == 200


async def test_a_full_disk_is_no_failing_one(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel finds out late that there is no room, that is a 507 and passes."""
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", FailingSync(_files, errno.ENOSPC))
        answer = await _sent(server)

    assert answer.status == HTTPStatus.INSUFFICIENT_STORAGE
    assert (server.files(), await _ready(server)) == ([], 200)


async def test_a_failed_sync_is_never_retried(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel forgets what it could not write, so that a second fsync would lie."""
    failing = FailingSync(_files)
    monkeypatch.setattr("os.fsync", failing)
    async with store.stage() as staged:
        await staged.write([b"abc"])
        for _ in range(2):
            with pytest.raises(StorageUnusable):
                await staged.seal()

    assert len(failing.tried) == 1
