"""The store: staged, published, moved, looked at; nothing overwritten, nothing left behind."""

import asyncio
import errno
import hashlib
import io
import json
import os
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lora_server.config import StorageConfig
from lora_server.errors import ConfigInvalid, StorageFull, StorageUnusable
from lora_server.filesystem import opened_file
from lora_server.records import Location, Place
from lora_server.staging import StagedFile
from lora_server.store import Store
from tests.libraries import in_bin, in_models, names_in
from tests.test_filesystem import open_descriptors


def everything(storage: StorageConfig) -> list[Path]:
    """Return every file under the trees, hidden ones too."""
    roots = (storage.models_dir, storage.bin_dir, storage.staging_dir)
    return [path for root in roots for path in root.rglob("*") if not path.is_dir()]


def put(storage: StorageConfig, location: Location, content: bytes = b"theirs") -> Path:
    """Put a file into a tree by hand."""
    root = storage.models_dir if location.place is Place.MODELS else storage.bin_dir
    path = root / location.entity_type / location.name
    path.write_bytes(content)
    return path


async def publish(store: Store, content: bytes, target: Location) -> None:
    """Stage, seal and publish a content."""
    async with store.stage() as staged:
        await staged.write([content])
        await staged.seal()
        await store.publish(staged, target)


# Staging


async def test_no_publish_no_file(store: Store, storage: StorageConfig) -> None:
    """Leaving without publishing leaves nothing."""
    async with store.stage() as staged:
        await staged.write([b"abc"])
        await staged.seal()

    assert everything(storage) == []


async def test_a_failure_leaves_nothing(store: Store, storage: StorageConfig) -> None:
    """An exception in the middle removes the file, with the write of a block still going on."""
    before = open_descriptors()

    async def fail() -> None:
        async with store.stage() as staged:
            await staged.write([b"x" * 1024] * 1024)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()

    assert everything(storage) == []
    assert open_descriptors() == before


class SlowFile(StagedFile):
    """A staged file whose writes last until the test lets them go on."""

    may_write = threading.Event()
    writing = threading.Event()

    def _append(self, block: list[bytes]) -> None:
        self.writing.set()
        self.may_write.wait()
        super()._append(block)


@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancelled_upload_leaves_nothing(
    store: Store, storage: StorageConfig, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Cancelled while a write is in flight, once or again and again: the file goes after it."""
    monkeypatch.setattr("lora_server.store.StagedFile", SlowFile)
    SlowFile.may_write.clear()
    SlowFile.writing.clear()
    before = open_descriptors()

    async def stage() -> None:
        async with store.stage() as staged:
            await staged.write([b"abc"])
            await staged.seal()

    task = asyncio.create_task(stage())
    await asyncio.to_thread(SlowFile.writing.wait)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0.01)
    still_there = len(everything(storage))
    SlowFile.may_write.set()
    await asyncio.wait({task})

    assert task.cancelled()
    assert still_there == 1
    assert everything(storage) == []
    assert open_descriptors() == before


class LateFile(StagedFile):
    """A staged file that takes as long to open as the test wants."""

    may_open = threading.Event()

    def __init__(self, *args: object) -> None:
        self.may_open.wait()
        super().__init__(*args)  # type: ignore[arg-type]


async def test_an_upload_cancelled_before_it_was_open_leaves_nothing(
    store: Store, storage: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that opens the file cannot be called back, so its file is waited for."""
    monkeypatch.setattr("lora_server.store.StagedFile", LateFile)
    LateFile.may_open.clear()
    before = open_descriptors()

    async def stage() -> None:
        async with store.stage():
            pytest.fail("cancelled before this")

    task = asyncio.create_task(stage())
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.sleep(0.01)
    LateFile.may_open.set()
    await asyncio.wait({task})

    assert task.cancelled()
    assert everything(storage) == []
    assert open_descriptors() == before


async def test_staging_that_is_gone_is_a_failing_disk(store: Store, storage: StorageConfig) -> None:
    """A folder taken away by hand is said in the domain's words."""
    storage.staging_dir.rmdir()

    with pytest.raises(StorageUnusable):
        async with store.stage():
            pytest.fail("there is nothing to stage in")

    storage.staging_dir.mkdir()


async def test_a_sealed_file_knows_its_digest_and_facts(store: Store) -> None:
    """Digest, size and inode are those of the bytes on disk, and publishing keeps them."""
    content = os.urandom(3_000_000)
    blocks = [content[at : at + 1_000_000] for at in range(0, len(content), 1_000_000)]
    async with store.stage() as staged:
        for block in blocks:
            await staged.write([block[:10], block[10:]])
        await staged.seal()
        await store.publish(staged, in_models())

    assert staged.sha256 == hashlib.sha256(content).hexdigest()
    assert staged.size == len(content)
    assert staged.facts == await store.facts(in_models())


async def test_a_failed_write_is_told_and_leaves_nothing(
    store: Store, storage: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write that failed in the background is told by the next step, every time."""

    def full(_fd: int, _chunks: list[bytes]) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("lora_server.staging.write_all", full)
    async with store.stage() as staged:
        await staged.write([b"abc"])
        with pytest.raises(StorageFull):
            await staged.write([b"def"])
        with pytest.raises(StorageFull):
            await staged.seal()

    assert everything(storage) == []


async def test_leftovers_of_a_crash_are_swept(store: Store, storage: StorageConfig) -> None:
    """What an earlier run left in staging goes; what is not ours stays."""
    for name in ("a.part", "b.part", "notes.txt"):
        (storage.staging_dir / name).touch()

    assert await store.sweep_staging() == 2
    assert names_in(storage.staging_dir) == ["notes.txt"]


@pytest.mark.parametrize("how", ["file-limit", "tmpfs", "state"])
async def test_a_full_disk_is_storage_full_and_leaves_nothing(tmp_path: Path, how: str) -> None:
    """A disk that really runs out, also the catalogue's alone, takes small files afterwards."""
    alone = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
    isolated = [] if how == "file-limit" else alone
    child = await asyncio.create_subprocess_exec(
        *isolated, sys.executable, "-m", "tests.disk_full", str(tmp_path), how,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await child.communicate()

    assert child.returncode == 0
    assert json.loads(output.splitlines()[-1]) == {
        "outcome": "StorageFull",
        "left": [],
        "after": "styles/ink.safetensors",
    }


# Publishing and moving


@pytest.mark.parametrize("umask", [0o000, 0o077], ids=oct)
async def test_published_files_and_folders_have_the_modes_of_the_settings(
    storage: StorageConfig, umask: int
) -> None:
    """Modes do not depend on the umask, also of a folder that had to be made again."""
    settings = storage.model_copy(update={"file_mode": 0o640, "dir_mode": 0o2750})
    before = os.umask(umask)
    try:
        async with Store.opened(settings) as store:
            (storage.models_dir / "faces").rmdir()
            await publish(store, b"abc", in_models(entity_type="faces"))
    finally:
        os.umask(before)

    published = storage.models_dir / "faces" / "ink.safetensors"
    assert stat.S_IMODE(published.stat().st_mode) == 0o640
    assert stat.S_IMODE(published.parent.stat().st_mode) == 0o2750
    assert stat.S_IMODE((storage.bin_dir / "styles").stat().st_mode) == 0o2750
    assert stat.S_IMODE(storage.staging_dir.stat().st_mode) == 0o700


async def test_a_file_is_private_until_it_is_published(
    store: Store, storage: StorageConfig
) -> None:
    """Nobody else reads what was not judged yet."""
    async with store.stage() as staged:
        [part] = storage.staging_dir.iterdir()
        mode = stat.S_IMODE(part.stat().st_mode)
        assert part == staged.path

    assert mode == 0o600


async def test_publishing_never_overwrites(store: Store, storage: StorageConfig) -> None:
    """A name that an outsider took stays theirs, and nothing is left of ours."""
    theirs = put(storage, in_models())

    with pytest.raises(FileExistsError):
        await publish(store, b"ours", in_models())

    assert theirs.read_bytes() == b"theirs"
    assert everything(storage) == [theirs]


async def test_a_part_taken_out_of_staging_is_a_failing_disk(store: Store) -> None:
    """It is no missing LoRA, so it is not told as one."""
    async with store.stage() as staged:
        await staged.seal()
        staged.path.unlink()
        with pytest.raises(StorageUnusable):
            await store.publish(staged, in_models())


class FailingSync:
    """`os.fsync` on a disk that fails for folders."""

    def __init__(self) -> None:
        self._sync = os.fsync

    def __call__(self, fd: int) -> None:
        """Sync files; fail for folders."""
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EIO, "the disk failed")
        self._sync(fd)


async def test_a_name_that_cannot_be_made_durable_is_taken_back(
    store: Store, storage: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the folder's fsync fails, publish and move fail, and the file is where it was."""
    put(storage, in_models("known.pt"))
    monkeypatch.setattr("os.fsync", FailingSync())

    with pytest.raises(StorageUnusable):
        await publish(store, b"abc", in_models())
    with pytest.raises(StorageUnusable):
        await store.rename(in_models("known.pt"), in_bin("known.pt"))

    assert everything(storage) == [storage.models_dir / "styles" / "known.pt"]


class NotingSync:
    """`os.fsync` that notes which inodes were made durable, in order."""

    def __init__(self) -> None:
        self.synced: list[int] = []
        self._sync = os.fsync

    def __call__(self, fd: int) -> None:
        """Sync and note."""
        self._sync(fd)
        self.synced.append(os.fstat(fd).st_ino)


async def test_what_is_told_is_durable(
    store: Store, storage: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes are synced before the name, and every folder that changed after it."""
    live, binned = storage.models_dir / "styles", storage.bin_dir / "styles"
    noting = NotingSync()
    monkeypatch.setattr("os.fsync", noting)

    async with store.stage() as staged:
        await staged.write([b"abc"])
        await staged.seal()
        sealed = list(noting.synced)
        await store.publish(staged, in_models())
    published = list(noting.synced)
    await store.rename(in_models(), in_bin())
    moved = noting.synced[len(published) :]
    await store.remove(in_bin())

    assert sealed == [staged.facts.inode]
    assert published[-1] == live.stat().st_ino
    assert set(moved) == {live.stat().st_ino, binned.stat().st_ino}
    assert noting.synced[-1] == binned.stat().st_ino


async def test_moving_never_overwrites(store: Store, storage: StorageConfig) -> None:
    """Both files stay as they are."""
    ours = put(storage, in_models(), b"ours")
    theirs = put(storage, in_bin(), b"theirs")

    with pytest.raises(FileExistsError):
        await store.rename(in_models(), in_bin())

    assert ours.read_bytes() == b"ours"
    assert theirs.read_bytes() == b"theirs"


async def test_removing_says_when_there_was_nothing(store: Store, storage: StorageConfig) -> None:
    """Removed once is gone; removed twice is told."""
    put(storage, in_bin())

    await store.remove(in_bin())
    with pytest.raises(FileNotFoundError):
        await store.remove(in_bin())

    assert everything(storage) == []


# Looking


async def test_taken_sees_every_spelling(store: Store, storage: StorageConfig) -> None:
    """Names that differ in case or normalisation count, as do links, folders and junk."""
    folder = storage.models_dir / "styles"
    for name in ("Ink.SafeTensors", "cafe\u0301.pt", "notes.txt", ".hidden.pt"):
        (folder / name).touch()
    (folder / "folder.pt").mkdir()
    (folder / "link.pt").symlink_to("nowhere")

    taken = await store.taken(Place.MODELS, "styles")

    assert taken == {
        "ink.safetensors", "caf\u00e9.pt", "notes.txt", ".hidden.pt", "folder.pt", "link.pt",
    }  # fmt: skip


async def test_a_scan_sees_only_files_that_can_be_loras(
    store: Store, storage: StorageConfig
) -> None:
    """Hidden names, links, folders, unknown extensions and unknown types are left alone."""
    good = put(storage, in_models("good.safetensors"))
    put(storage, in_models("CAPITALS.PT"))
    put(storage, in_models(".hidden.pt"))
    put(storage, in_models("notes.txt"))
    put(storage, in_models("bad\u202ename.pt"))
    (good.parent / "link.pt").symlink_to(good)
    (good.parent / "folder.pt").mkdir()
    (good.parent / "folder.pt" / "deep.pt").touch()
    (storage.models_dir / "top.pt").touch()
    (storage.models_dir / "unknown").mkdir()
    (storage.models_dir / "unknown" / "file.pt").touch()

    found = await store.scan(Place.MODELS)

    assert found.keys() == {in_models("good.safetensors"), in_models("CAPITALS.PT")}
    assert found[in_models("good.safetensors")].inode == good.stat().st_ino
    assert await store.scan(Place.BIN) == {}


async def test_names_that_are_not_utf8_are_left_alone(store: Store, storage: StorageConfig) -> None:
    """Bytes that are no text in a name neither break the scan nor are listed."""
    (storage.models_dir / "styles" / os.fsdecode(b"caf\xe9.pt")).touch()

    assert await store.scan(Place.MODELS) == {}
    assert len(await store.taken(Place.MODELS, "styles")) == 1


async def test_one_folder_gone_is_empty(store: Store, storage: StorageConfig) -> None:
    """An operator may remove a folder; its files are gone, and the others are still seen."""
    put(storage, in_models())
    (storage.models_dir / "faces").rmdir()

    assert (await store.scan(Place.MODELS)).keys() == {in_models()}


async def test_a_lost_mount_does_not_look_empty(store: Store, storage: StorageConfig) -> None:
    """A tree without any of its folders is an error, not a tree from which all was deleted."""
    for folder in storage.models_dir.iterdir():
        folder.rmdir()

    with pytest.raises(StorageUnusable):
        await store.scan(Place.MODELS)


async def test_facts_are_those_of_regular_files(store: Store, storage: StorageConfig) -> None:
    """A link, a folder and nothing have none."""
    path = put(storage, in_models())
    (path.parent / "link.pt").symlink_to(path)
    (path.parent / "folder.pt").mkdir()
    status = path.stat()

    facts = await store.facts(in_models())

    assert facts is not None
    assert (facts.size, facts.mtime_ns, facts.inode) == (
        status.st_size, status.st_mtime_ns, status.st_ino,
    )  # fmt: skip
    for name in ("link.pt", "folder.pt", "nothing.pt"):
        assert await store.facts(in_models(name)) is None


async def test_a_digest_comes_with_the_facts_of_what_was_read(
    store: Store, storage: StorageConfig
) -> None:
    """The hash is that of the bytes, and says which state of the file it is of."""
    content = os.urandom(1_500_000)
    put(storage, in_models(), content)

    assert await store.digest(in_models()) == (
        hashlib.sha256(content).hexdigest(), await store.facts(in_models()),
    )  # fmt: skip


@pytest.mark.parametrize("change", ["appended", "replaced", "removed", "replaced by a folder"])
async def test_a_file_changed_while_it_was_read_has_no_digest(
    store: Store, storage: StorageConfig, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """What was hashed may be neither the old nor the new content."""
    path = put(storage, in_models())
    hash_it = hashlib.file_digest
    before = open_descriptors()

    def meddled(file: io.FileIO, digest: str) -> Any:
        outcome = hash_it(file, digest)
        if change == "appended":
            path.write_bytes(b"theirs, and more")
            return outcome
        path.unlink()
        if change == "replaced":
            put(storage, in_models())
        elif change == "replaced by a folder":
            path.mkdir()
        return outcome

    monkeypatch.setattr("hashlib.file_digest", meddled)

    assert await store.digest(in_models()) is None
    assert open_descriptors() == before


@pytest.mark.parametrize("kind", ["nothing", "link", "folder", "pipe"])
async def test_what_is_no_file_has_no_digest(
    store: Store, storage: StorageConfig, kind: str
) -> None:
    """A pipe is not waited for and a link is not followed."""
    path = storage.models_dir / "styles" / "ink.safetensors"
    make: dict[str, Callable[[], object]] = {
        "nothing": lambda: None,
        "link": lambda: path.symlink_to("/etc/passwd"),
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
    }
    make[kind]()

    assert await store.digest(in_models()) is None


async def test_a_lent_descriptor_is_closed_also_when_the_caller_was_cancelled(
    store: Store, storage: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that opens the file cannot be called back, so its descriptor is waited for."""
    put(storage, in_models())
    may_open = threading.Event()

    def opened_late(path: Path) -> io.FileIO:
        may_open.wait()
        return opened_file(path)

    async def read() -> None:
        async with store.opened_for_reading(in_models()):
            pytest.fail("cancelled before this")

    async with store.opened_for_reading(in_models()) as fd:
        content = await asyncio.to_thread(os.pread, fd, 100, 0)
    before = open_descriptors()
    monkeypatch.setattr("lora_server.store.opened_file", opened_late)
    task = asyncio.create_task(read())
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.sleep(0.01)
    may_open.set()
    await asyncio.wait({task})

    assert content == b"theirs"
    assert task.cancelled()
    assert open_descriptors() == before


# Owning


async def test_probes_leave_nothing(store: Store, storage: StorageConfig) -> None:
    """Neither the start nor a check leaves a trace, nor do probes of a killed run."""
    await store.check()

    assert everything(storage) == []


async def test_probes_of_a_killed_run_are_cleared(storage: StorageConfig) -> None:
    """A probe that a kill left is removed at the next start, and nothing else that is hidden."""
    folder = storage.models_dir / "styles"
    folder.mkdir(parents=True)
    (folder / ".probe-0123456789abcdef").touch()
    (folder / ".probe-of-somebody-else").touch()

    async with Store.opened(storage):
        pass

    assert names_in(folder) == [".probe-of-somebody-else"]


async def test_a_check_fails_when_the_tree_cannot_be_used(
    store: Store, storage: StorageConfig
) -> None:
    """A folder in the place of a file, as a broken mount shows it, is noticed; no probe stays."""
    for folder in storage.bin_dir.iterdir():
        folder.rmdir()
    storage.bin_dir.rmdir()

    with pytest.raises(StorageUnusable, match="storage failed"):
        await store.check()

    assert everything(storage) == []


@pytest.mark.parametrize("shared", ["state_dir", "models_dir", "bin_dir", "staging_dir"])
async def test_a_folder_has_one_owner(
    store: Store, storage: StorageConfig, tmp_path: Path, shared: str
) -> None:
    """A second daemon that shares any folder with a running one does not start."""
    elsewhere = {
        name: tmp_path / "other" / name
        for name in ("models_dir", "bin_dir", "staging_dir", "state_dir")
        if name != shared
    }
    other = storage.model_copy(update=elsewhere)

    with pytest.raises(ConfigInvalid, match="another lora-server owns"):
        async with Store.opened(other):
            pytest.fail("two daemons own one folder")

    assert store.layout.models == storage.models_dir


async def test_a_closed_store_can_be_opened_again(storage: StorageConfig) -> None:
    """Locks end with the block, as does every descriptor."""
    async with Store.opened(storage):
        pass
    before = open_descriptors()

    async with Store.opened(storage):
        pass

    assert open_descriptors() == before


@pytest.mark.parametrize("linked", ["models_dir/styles", "bin_dir/faces", "models_dir"])
async def test_a_folder_behind_a_link_stops_the_start(
    storage: StorageConfig, tmp_path: Path, linked: str
) -> None:
    """Files must not be led out of the tree."""
    name, _, entity_type = linked.partition("/")
    folder = getattr(storage, name) / entity_type
    (tmp_path / "real").mkdir()
    folder.parent.mkdir(parents=True)
    folder.symlink_to(tmp_path / "real")

    with pytest.raises(ConfigInvalid, match="no symbolic links"):
        async with Store.opened(storage):
            pytest.fail("the link was followed")

    assert names_in(tmp_path / "real") == [] if entity_type else True


@pytest.fixture
def another_filesystem(tmp_path: Path) -> Iterator[Path]:
    """Make a folder on another filesystem than the test's own."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        if os.stat(folder).st_dev == tmp_path.stat().st_dev:  # noqa: PTH116
            pytest.fail("the test needs two filesystems; set --basetemp to another one")
        yield Path(folder)


@pytest.mark.parametrize("name", ["staging_dir", "models_dir", "bin_dir"])
async def test_folders_on_different_filesystems_stop_the_start(
    storage: StorageConfig, another_filesystem: Path, name: str
) -> None:
    """The message says which two folders cannot be moved between; no probe stays."""
    apart = storage.model_copy(update={name: another_filesystem / "folder"})

    with pytest.raises(ConfigInvalid, match=r"one local filesystem.*cross-device") as caught:
        async with Store.opened(apart):
            pytest.fail("files cannot be moved between these")

    assert str(another_filesystem / "folder") in str(caught.value)
    assert everything(apart) == []


async def test_an_unwritable_folder_stops_the_start(storage: StorageConfig) -> None:
    """A file in the place of a folder is told with its path."""
    storage.bin_dir.parent.mkdir(parents=True)
    storage.bin_dir.write_text("not a folder")

    with pytest.raises(ConfigInvalid, match=str(storage.bin_dir)):
        async with Store.opened(storage):
            pytest.fail("a file is no folder")


async def test_free_space_is_that_of_the_disk(store: Store, storage: StorageConfig) -> None:
    """What is told fits what the kernel says of staging, give or take other programs."""
    status = os.statvfs(storage.staging_dir)

    free = await store.free_bytes()

    assert abs(free - status.f_bavail * status.f_frsize) < 1024**3
