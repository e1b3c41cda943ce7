"""What people do to the tree by hand is noticed, at the start and while the server runs."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import insert

from lora_server.catalog.tables import loras, row_of
from lora_server.config import StorageConfig
from lora_server.errors import StorageUnusable
from lora_server.library import Library
from lora_server.reconcile import Reconciler
from lora_server.records import Location, Override, Place, Source
from tests.invariants import assert_sound
from tests.libraries import in_bin, in_models, listed, opened_library, storage_in, upload
from tests.open_door import OpenDoor
from tests.steps import Steps, quiet
from tests.test_catalog import record

REST_S = 0.25
PATIENCE_S = 20.0  # far more than anything here takes


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():  # noqa: ASYNC110 - what is waited for is on disk
            await asyncio.sleep(0.02)


async def listed_at(library: Library, *locations: Location) -> None:
    """Wait until exactly these places are known."""

    async def known() -> bool:
        return (await library.catalog.known_files()).keys() == set(locations)

    await eventually(known)


@asynccontextmanager
async def reconciled(library: Library) -> AsyncIterator[Reconciler]:
    """Run a reconciler that needs little rest."""
    async with Reconciler(library, OpenDoor(), rest_s=REST_S).running() as reconciler:
        yield reconciler


@pytest.fixture
async def watched(library: Library, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Library]:
    """Own a library with a reconciler that is known to watch."""
    monkeypatch.setattr("lora_server.watching.TICK_MS", 50)
    async with reconciled(library):
        witness = library.store.layout.path(in_models("witness.pt", "faces"))
        witness.touch()
        await listed_at(library, in_models("witness.pt", "faces"))
        witness.unlink()
        await listed_at(library)
        yield library


def path_of(library: Library, location: Location) -> Path:
    """Return where a file stands."""
    return library.store.layout.path(location)


# At the start


async def test_a_start_finds_what_changed_while_the_server_was_down(
    storage: StorageConfig,
) -> None:
    """Added, changed, removed, moved to another type, into the bin and out of it."""
    async with opened_library(storage) as library:
        for name in ("changed", "removed", "moved", "binned", "restored"):
            lora = await upload(library, name.encode(), f"{name}.pt")
            await library.set_override(lora, Override(notes=name))
        await library.move_to_bin(in_models("restored.pt"), "admin")
    styles, faces = storage.models_dir / "styles", storage.models_dir / "faces"
    (styles / "added.pt").write_bytes(b"added")
    (styles / "changed.pt").write_bytes(b"something new")
    (styles / "removed.pt").unlink()
    (styles / "moved.pt").rename(faces / "another name.pt")
    (styles / "binned.pt").rename(storage.bin_dir / "faces" / "binned.pt")
    (storage.bin_dir / "styles" / "restored.pt").rename(faces / "restored.pt")

    async with opened_library(storage) as library, reconciled(library) as reconciler:
        await reconciler.idle()
        known = await library.catalog.known_files()

    told = {at: (lora.source, lora.override.notes, lora.home_name) for at, lora in known.items()}
    assert told == {
        in_models("added.pt"): (Source.FOUND, None, "added.pt"),
        in_models("changed.pt"): (Source.FOUND, "changed", "changed.pt"),
        in_models("another name.pt", "faces"): (Source.UPLOAD, "moved", "another name.pt"),
        in_bin("binned.pt", "faces"): (Source.UPLOAD, "binned", "binned.pt"),
        in_models("restored.pt", "faces"): (Source.UPLOAD, "restored", "restored.pt"),
    }
    assert_sound(
        storage,
        acknowledged=[b"added", b"something new", b"moved", b"binned", b"restored"],
    )


async def test_a_file_moved_over_another_keeps_its_knowledge(
    library: Library, storage: StorageConfig
) -> None:
    """What it replaced is gone; whose it is, is known still."""
    await upload(library, b"moved", "moved.pt")
    await upload(library, b"replaced", "replaced.pt")
    path_of(library, in_models("moved.pt")).replace(path_of(library, in_models("replaced.pt")))

    await Reconciler(library, OpenDoor()).compare_all()

    [lora] = (await library.catalog.known_files()).values()
    assert (lora.filename, lora.location) == ("moved.pt", in_models("replaced.pt"))
    assert_sound(storage, acknowledged=[b"moved"])


async def test_a_move_within_the_bin_does_not_start_its_retention_anew(library: Library) -> None:
    """Who deleted it, when, and where it came from still hold."""
    await upload(library, b"x")
    binned = await library.move_to_bin(in_models(), "admin")
    path_of(library, in_bin()).rename(path_of(library, in_bin("other.pt")))

    await Reconciler(library, OpenDoor()).compare_all()

    moved = await library.catalog.find(in_bin("other.pt"))
    assert moved is not None
    assert (moved.deleted_at, moved.deleted_by, moved.home_name) == (
        binned.deleted_at, "admin", "ink.safetensors",
    )  # fmt: skip


async def test_a_lost_mount_forgets_nothing(library: Library, storage: StorageConfig) -> None:
    """A tree that has become empty as a whole is an error, and the catalogue stays."""
    before = await upload(library, b"x")
    storage.models_dir.rename(storage.models_dir.with_name("unmounted"))
    storage.models_dir.mkdir()

    with pytest.raises(StorageUnusable):
        await Reconciler(library, OpenDoor()).compare_all()

    assert await library.catalog.find(in_models()) == before


async def test_thousands_of_files_are_compared_without_reading_them(library: Library) -> None:
    """Those that are as they were are left alone, and those that are gone go all at once."""
    styles = path_of(library, in_models()).parent
    for number in range(3000):
        (styles / f"{number}.pt").touch()
    on_disk = await library.store.scan(Place.MODELS)
    rows = [row_of(record(location, facts=facts)) for location, facts in on_disk.items()]
    async with library.catalog._database._engine.begin() as connection:  # noqa: SLF001 - for speed
        await connection.execute(insert(loras), rows)
    reconciler = Reconciler(library, OpenDoor())

    await reconciler.compare_all()
    await asyncio.wait_for(reconciler.idle(), 1)
    known = len(await library.catalog.known_files())
    for location in list(on_disk)[1:]:
        path_of(library, location).unlink()
    await reconciler.compare_all()

    assert known == 3000
    assert (await library.catalog.known_files()).keys() == {next(iter(on_disk))}


# While running


async def test_an_added_file_is_listed(watched: Library, storage: StorageConfig) -> None:
    """It is hashed, and what is known says that it was found."""
    path_of(watched, in_models()).write_bytes(b"by hand")

    await listed_at(watched, in_models())

    lora = await watched.catalog.find(in_models())
    assert lora is not None
    assert (lora.source, lora.uploaded_by, lora.deleted_at) == (Source.FOUND, None, None)
    assert_sound(storage, acknowledged=[b"by hand"])


async def test_a_file_added_to_the_bin_is_deleted_by_nobody(
    watched: Library, storage: StorageConfig
) -> None:
    """It is in the bin's list, from now on."""
    path_of(watched, in_bin()).write_bytes(b"by hand")

    await listed_at(watched, in_bin())

    assert await listed(watched, Place.BIN) == ["styles/ink.safetensors"]
    assert_sound(storage, acknowledged=[b"by hand"])


async def test_a_removed_file_is_forgotten(watched: Library) -> None:
    """The list does not show what is not there."""
    await upload(watched, b"x")

    path_of(watched, in_models()).unlink()

    await listed_at(watched)


async def test_a_changed_file_is_hashed_again(watched: Library, storage: StorageConfig) -> None:
    """The digest that is told is that of the bytes that are there."""
    before = await upload(watched, b"x")

    path_of(watched, in_models()).write_bytes(b"changed")

    async def noticed() -> bool:
        lora = await watched.catalog.find(in_models())
        return lora is not None and lora.sha256 != before.sha256

    await eventually(noticed)
    assert_sound(storage, acknowledged=[b"changed"])


async def test_a_touched_file_keeps_what_is_known(watched: Library, storage: StorageConfig) -> None:
    """New times, or the same bytes put back from a backup, change nothing but the facts."""
    before = await upload(watched, b"x")
    path = path_of(watched, in_models())
    path.unlink()
    path.write_bytes(b"x")

    async def noticed() -> bool:
        lora = await watched.catalog.find(in_models())
        return lora is not None and lora.facts != before.facts

    await eventually(noticed)
    lora = await watched.catalog.find(in_models())
    assert lora is not None
    assert (lora.source, lora.uploaded_by, lora.id) == (Source.UPLOAD, "tester", before.id)
    assert_sound(storage, acknowledged=[b"x"])


@pytest.mark.parametrize(
    "target",
    [
        in_models("ink.safetensors", "faces"),
        in_models("renamed.pt"),
        in_bin(),
    ],
    ids=lambda location: f"{location.place}-{location.partial_path}",
)
async def test_a_file_moved_by_hand_keeps_what_is_known(
    watched: Library, storage: StorageConfig, target: Location
) -> None:
    """Also into the bin, whose list says since when."""
    before = await upload(watched, b"x")

    path_of(watched, in_models()).rename(path_of(watched, target))
    await listed_at(watched, target)

    moved = await watched.catalog.find(target)
    assert moved is not None
    assert (moved.id, moved.source, moved.uploaded_by) == (before.id, Source.UPLOAD, "tester")
    assert_sound(storage, acknowledged=[b"x"])


async def test_a_whole_folder_replaced_by_hand_is_noticed(
    watched: Library, storage: StorageConfig
) -> None:
    """The kernel tells only of the folder then, not of the files in it."""
    await upload(watched, b"x")
    fresh = storage.models_dir / "fresh"
    fresh.mkdir()
    (fresh / "new.pt").write_bytes(b"new")

    (storage.models_dir / "styles").rename(storage.models_dir / "old")
    fresh.rename(storage.models_dir / "styles")

    await listed_at(watched, in_models("new.pt"))


async def test_files_under_a_folder_called_venv_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an operator keeps the trees does not matter."""
    monkeypatch.setattr("lora_server.watching.TICK_MS", 50)
    storage = storage_in(tmp_path / "venv" / ".git")
    async with opened_library(storage) as library, reconciled(library):
        await asyncio.sleep(0.5)  # the comparison after the first tick would find it too
        path_of(library, in_models()).write_bytes(b"x")

        await listed_at(library, in_models())


async def test_a_file_added_before_the_watch_is_set_up_is_noticed(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the first comparison and the watch there is a gap; nothing falls into it."""
    compare_all = Reconciler.compare_all
    path = path_of(library, in_models())

    async def compare_then_add(reconciler: Reconciler) -> None:
        await compare_all(reconciler)
        monkeypatch.setattr(Reconciler, "compare_all", compare_all)
        await asyncio.to_thread(path.write_bytes, b"x")

    monkeypatch.setattr(Reconciler, "compare_all", compare_then_add)
    async with reconciled(library):
        await listed_at(library, in_models())


async def test_a_kernel_that_does_not_watch_is_replaced_by_comparing(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of inotify instances, the server runs on and compares now and then."""

    async def refusing(*_paths: Path, **_options: object) -> AsyncIterator[set[tuple[int, str]]]:
        raise OSError(24, "no more inotify instances")
        yield set()  # what makes this a generator

    monkeypatch.setattr("lora_server.watching.awatch", refusing)
    monkeypatch.setattr("lora_server.reconcile.WATCH_AGAIN_S", 0.05)
    async with reconciled(library):
        path_of(library, in_models()).write_bytes(b"x")

        await listed_at(library, in_models())


# Rest


async def test_a_file_still_being_written_is_not_listed_until_it_rests(
    watched: Library, storage: StorageConfig
) -> None:
    """However long the copy takes, only the whole file is hashed and shown."""
    seen = []
    with path_of(watched, in_models()).open("wb", buffering=0) as file:
        for number in range(16):
            file.write(b"part %d" % number)
            await asyncio.sleep(REST_S / 4)
            seen += await listed(watched)

    await listed_at(watched, in_models())

    assert seen == []
    whole = b"".join(b"part %d" % number for number in range(16))
    assert_sound(storage, acknowledged=[whole])


async def test_a_file_that_never_rests_does_not_starve_others(watched: Library) -> None:
    """Others are listed while it is written, and it is itself once it rests."""
    restless = path_of(watched, in_models("restless.pt"))
    stop = asyncio.Event()

    async def write_on() -> None:
        while not stop.is_set():
            with restless.open("ab") as file:
                file.write(b"more")
            await asyncio.sleep(REST_S / 4)

    writing = asyncio.create_task(write_on())
    await asyncio.sleep(REST_S)
    others = [in_models(f"{number}.pt") for number in range(20)]
    for other in others:
        path_of(watched, other).write_bytes(other.name.encode())
    await listed_at(watched, *others)
    stop.set()
    await writing

    await listed_at(watched, *others, in_models("restless.pt"))


async def test_a_file_from_the_future_is_listed(watched: Library) -> None:
    """A clock that was wrong on another machine does not keep a file from ever resting."""
    path = path_of(watched, in_models())
    path.write_bytes(b"x")
    os.utime(path, (time.time() + 86400,) * 2)

    await listed_at(watched, in_models())


async def test_a_file_that_vanishes_before_it_was_read_is_no_trouble(watched: Library) -> None:
    """It came and went; the next one is listed."""
    path_of(watched, in_models("gone.pt")).write_bytes(b"x")
    await asyncio.sleep(REST_S / 2)
    path_of(watched, in_models("gone.pt")).unlink()
    path_of(watched, in_models("there.pt")).write_bytes(b"y")

    await listed_at(watched, in_models("there.pt"))


# What is left alone


async def test_junk_is_left_alone(watched: Library, storage: StorageConfig) -> None:
    """Hidden names, links, folders and unknown types are neither listed nor touched."""
    styles = storage.models_dir / "styles"
    junk = [styles / name for name in (".hidden.pt", "notes.txt", "ink.safetensors.tmp")]
    for path in junk:
        path.write_bytes(b"junk")
    (styles / "link.pt").symlink_to("/etc/passwd")
    (styles / "folder.pt").mkdir()
    (storage.models_dir / "unknown").mkdir()
    (storage.models_dir / "unknown" / "file.pt").write_bytes(b"junk")
    (storage.models_dir / "file.pt").write_bytes(b"junk")
    path_of(watched, in_models("real.pt")).write_bytes(b"real")

    await listed_at(watched, in_models("real.pt"))
    await Reconciler(watched, OpenDoor()).compare_all()

    assert (await watched.catalog.known_files()).keys() == {in_models("real.pt")}
    assert all(path.read_bytes() == b"junk" for path in junk)
    assert (styles / "link.pt").is_symlink()


async def test_uploads_that_race_with_the_watcher_are_listed_once(
    watched: Library, storage: StorageConfig
) -> None:
    """A file that the server itself published is never taken for one that was found."""
    contents = [os.urandom(50) for _ in range(60)]

    async def send(content: bytes) -> None:
        await asyncio.sleep(content[0] / 256)
        stored = await upload(watched, content)
        if content[1] % 3 == 0:
            await watched.move(stored.location, "faces")

    reconciler = Reconciler(watched, OpenDoor(), rest_s=0)
    await asyncio.gather(*map(send, contents), *(reconciler.compare_all() for _ in range(20)))
    await asyncio.sleep(1)  # the watcher's turn

    known = (await watched.catalog.known_files()).values()
    assert {lora.source for lora in known} == {Source.UPLOAD}
    assert_sound(storage, acknowledged=contents)


async def test_a_comparison_waits_for_an_upload_in_the_middle(storage: StorageConfig) -> None:
    """Between the name and its row the file is not unknown, but on its way."""
    named, go_on = asyncio.Event(), asyncio.Event()

    async def pause(step: str) -> None:
        if step == "after publish":
            named.set()
            await go_on.wait()

    steps = Steps()
    async with steps.library(storage) as library:
        reconciler = Reconciler(library, OpenDoor(), rest_s=0)
        steps.hook = pause
        uploading = asyncio.create_task(upload(library, b"x"))
        await named.wait()
        comparing = asyncio.gather(reconciler.compare_all(), reconciler.compare([in_models()]))
        await asyncio.sleep(0.05)
        waited = not comparing.done()
        go_on.set()
        await asyncio.gather(uploading, comparing)
        steps.hook = quiet
        await asyncio.wait_for(reconciler.idle(), 1)

    assert waited
    assert_sound(storage, acknowledged=[b"x"])
