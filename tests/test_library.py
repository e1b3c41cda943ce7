"""Files and what is known of them change together, whatever goes wrong between the steps."""

import asyncio
import os
import unicodedata
from contextlib import suppress
from pathlib import Path

import pytest

from lora_server.config import StorageConfig
from lora_server.errors import (
    CatalogUnusable,
    FileRefused,
    LoraNotFound,
    LoraServerError,
    MovedMeanwhile,
    NameTaken,
    StorageUnusable,
)
from lora_server.library import Library
from lora_server.reconcile import Reconciler
from lora_server.records import Override, Place
from tests.invariants import assert_sound
from tests.libraries import in_bin, in_models, listed, names_in, opened_library, upload
from tests.open_door import OpenDoor
from tests.steps import (
    ACKNOWLEDGED,
    CATALOG_STEPS,
    NEW,
    OLD,
    OPERATIONS,
    UNHEARD,
    Steps,
    deleters,
    knowledge,
    prepare,
    quiet,
)
from tests.test_filesystem import open_descriptors


def take_once(path: Path) -> None:
    """Take a name as an outsider does, the first time this is called."""
    with suppress(FileExistsError), path.open("xb") as file:
        file.write(b"theirs")


# Names


async def test_a_taken_name_becomes_the_next_version(library: Library) -> None:
    """The series is name, _v2, _v3; uploading a version that is taken goes on with it."""
    names = ["ink.pt", "ink.pt", "ink.pt", "ink_v2.pt", "ink_v9.pt"]

    stored = [(await upload(library, b"x", name)).location.name for name in names]

    assert stored == ["ink.pt", "ink_v2.pt", "ink_v3.pt", "ink_v4.pt", "ink_v9.pt"]


async def test_a_gap_in_a_series_is_filled(library: Library) -> None:
    """The first free number is taken, and names in the bin are free."""
    for _ in range(3):
        await upload(library, b"x", "ink.pt")
    await library.move_to_bin(in_models("ink_v2.pt"), "admin")

    assert (await upload(library, b"x", "ink.pt")).location.name == "ink_v2.pt"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param("Ink.pt", "iNK.pt", id="case"),
        pytest.param("caf\u00e9.pt", "cafe\u0301.pt", id="normalisation"),
        pytest.param("STRASSE.pt", "stra\u00dfe.pt", id="case folding"),
    ],
)
async def test_spellings_of_one_name_collide(library: Library, first: str, second: str) -> None:
    """Two names that differ only in case or normalisation are one name."""
    await upload(library, b"x", first)

    with pytest.raises(NameTaken):
        await upload(library, b"y", second, versioned=False)
    versioned = await upload(library, b"y", second)

    assert versioned.location.name.endswith("_v2.pt")
    assert unicodedata.is_normalized("NFC", versioned.location.name)


async def test_a_name_put_there_by_hand_counts(library: Library, storage: StorageConfig) -> None:
    """What is in the folder is taken, listed or not."""
    (storage.models_dir / "styles" / "INK.pt").symlink_to("nowhere")

    assert (await upload(library, b"x", "ink.pt")).location.name == "ink_v2.pt"


async def test_a_taken_name_is_refused_when_asked(library: Library, storage: StorageConfig) -> None:
    """Without versioning nothing is stored, and the first file stays."""
    await upload(library, OLD)

    with pytest.raises(NameTaken) as caught:
        await upload(library, NEW, versioned=False)

    assert caught.value.partial_path == "styles/ink.safetensors"
    assert_sound(storage, acknowledged=[OLD])


async def test_an_outsider_who_takes_the_name_first_keeps_it(storage: StorageConfig) -> None:
    """Between look-up and claim the name is taken: ours becomes the next version."""
    theirs = storage.models_dir / "styles" / "ink.safetensors"
    steps = Steps()

    async def take(step: str) -> None:
        if step == "before publish":
            await asyncio.to_thread(take_once, theirs)

    async with steps.library(storage) as library:
        steps.hook = take
        stored = await upload(library, NEW)

    assert stored.location.name == stored.home_name == "ink_v2.safetensors"
    assert theirs.read_bytes() == b"theirs"
    theirs.unlink()
    assert_sound(storage, acknowledged=[NEW])


async def test_an_outsider_who_takes_the_only_name_is_told(storage: StorageConfig) -> None:
    """Without versioning, losing that race is a name that is taken, and leaves nothing."""
    theirs = storage.models_dir / "styles" / "ink.safetensors"
    steps = Steps()

    async def take(step: str) -> None:
        if step == "before publish":
            await asyncio.to_thread(take_once, theirs)

    async with steps.library(storage) as library:
        steps.hook = take
        with pytest.raises(NameTaken):
            await upload(library, NEW, versioned=False)

    assert theirs.read_bytes() == b"theirs"
    theirs.unlink()
    assert_sound(storage, acknowledged=[])


@pytest.mark.parametrize("operation", ["delete", "restore", "move"])
async def test_an_outsider_who_takes_the_target_of_a_move_keeps_it(
    storage: StorageConfig, operation: str
) -> None:
    """The file goes under the next version instead; nothing is overwritten or lost."""
    taken: list[Path] = []
    steps = Steps()

    async with steps.library(storage) as library:
        await prepare(library, operation)

        async def take(step: str) -> None:
            if step == "before rename" and not taken:
                [move] = await library.catalog.unfinished()
                taken.append(library.store.layout.path(move.target))
                await asyncio.to_thread(taken[0].write_bytes, b"theirs")

        steps.hook = take
        await OPERATIONS[operation](library)

    assert taken[0].read_bytes() == b"theirs"
    taken[0].unlink()
    assert_sound(storage, acknowledged=[OLD, NEW])


async def test_a_removed_file_that_nobody_noticed_yet_does_not_block_its_name(
    library: Library, storage: StorageConfig
) -> None:
    """Its row gives way: the name is free on disk, and that is the truth."""
    await upload(library, OLD)
    (storage.models_dir / "styles" / "ink.safetensors").unlink()

    stored = await upload(library, NEW)

    assert stored.location == in_models()
    assert_sound(storage, acknowledged=[NEW])


async def test_a_hundred_uploads_for_one_name_become_a_series(
    library: Library, storage: StorageConfig
) -> None:
    """Nothing is overwritten, and every number is used once."""
    contents = [os.urandom(100) for _ in range(100)]

    stored = await asyncio.gather(*(upload(library, content) for content in contents))

    numbers = ["", *(f"_v{number}" for number in range(2, 101))]
    assert {lora.location.name for lora in stored} == {
        f"ink{number}.safetensors" for number in numbers
    }
    assert_sound(storage, acknowledged=contents)


# Delete, restore, move, purge


async def test_a_deletion_can_be_undone(library: Library, storage: StorageConfig) -> None:
    """Delete keeps the file and says who and when; restore brings it back to its place."""
    before = await upload(library, OLD)

    binned = await library.move_to_bin(in_models(), "admin")
    in_the_bin = await listed(library, Place.BIN)
    restored = await library.restore(binned.location)

    assert (binned.location, binned.deleted_by) == (in_bin(), "admin")
    assert binned.deleted_at is not None
    assert in_the_bin == ["styles/ink.safetensors"]
    assert restored == before
    assert_sound(storage, acknowledged=[OLD])


async def test_the_bin_keeps_every_version_apart(library: Library, storage: StorageConfig) -> None:
    """Three files deleted under one name have three places, and all go home again."""
    contents = [b"one", b"two", b"three"]
    binned = []
    for content in contents:
        await upload(library, content)
        binned.append(await library.move_to_bin(in_models(), "admin"))

    homes = [(await library.restore(lora.location)).location.name for lora in reversed(binned)]

    assert [lora.location.name for lora in binned] == [
        "ink.safetensors", "ink_v2.safetensors", "ink_v3.safetensors",
    ]  # fmt: skip
    assert {lora.home_name for lora in binned} == {"ink.safetensors"}
    assert homes == ["ink.safetensors", "ink_v2.safetensors", "ink_v3.safetensors"]
    assert_sound(storage, acknowledged=contents)


async def test_a_file_restored_under_a_version_keeps_that_name(library: Library) -> None:
    """Deleted again, it goes back to the name that it had last, not to its first."""
    await upload(library, OLD)
    await library.move_to_bin(in_models(), "admin")
    await upload(library, NEW)
    restored = await library.restore(in_bin())
    await library.move_to_bin(restored.location, "admin")

    again = await library.restore(in_bin("ink_v2.safetensors"))

    assert again.location == restored.location == in_models("ink_v2.safetensors")


async def test_a_move_keeps_what_is_known(library: Library, storage: StorageConfig) -> None:
    """Another entity type, a version of the name, the same knowledge."""
    await upload(library, NEW, entity_type="faces")
    before = await upload(library, OLD)
    await library.set_override(before, Override(base_model="sdxl"))

    moved = await library.move(in_models(), "faces")

    assert moved.location == in_models("ink_v2.safetensors", "faces")
    assert (moved.id, moved.sha256, moved.override.base_model) == (
        before.id, before.sha256, "sdxl",
    )  # fmt: skip
    assert_sound(storage, acknowledged=[OLD, NEW])


async def test_a_move_to_where_it_is_changes_nothing(library: Library) -> None:
    """The file keeps its name instead of becoming a version of itself."""
    before = await upload(library, OLD)

    assert await library.move(in_models(), "styles") == before


async def test_a_purged_file_is_gone(library: Library, storage: StorageConfig) -> None:
    """File and row go, and only that."""
    await upload(library, OLD)
    await library.move_to_bin(in_models(), "admin")
    await upload(library, NEW)

    purged = await library.purge(in_bin())

    assert purged.location == in_bin()
    assert_sound(storage, acknowledged=[NEW])


async def test_only_what_is_past_its_retention_is_purged(storage: StorageConfig) -> None:
    """The clock decides; what was deleted later, and what is live, stays."""
    async with opened_library(storage) as opened:
        now = 1_000_000.0
        library = Library(opened.store, opened.catalog, clock=lambda: now)
        await upload(library, b"early", "early.pt")
        await upload(library, b"late", "late.pt")
        await upload(library, b"live", "live.pt")
        await library.move_to_bin(in_models("early.pt"), "admin")
        now += 50
        await library.move_to_bin(in_models("late.pt"), "admin")
        now += 60

        purged = await library.purge_expired(100)

    assert [lora.location.name for lora in purged] == ["early.pt"]
    assert_sound(storage, acknowledged=[b"late", b"live"])


@pytest.mark.parametrize("operation", ["delete", "restore", "move", "purge"])
async def test_what_is_not_there_is_not_found(library: Library, operation: str) -> None:
    """No row, no action."""
    with pytest.raises(LoraNotFound):
        await OPERATIONS[operation](library)


@pytest.mark.parametrize(
    ("operation", "told"),
    [
        ("delete", LoraNotFound),
        ("restore", MovedMeanwhile),
        ("move", MovedMeanwhile),
        ("purge", MovedMeanwhile),
    ],
)
async def test_a_file_taken_away_by_hand_is_told(
    library: Library, storage: StorageConfig, operation: str, told: type[Exception]
) -> None:
    """The row stays for the reconciler, which may find the file elsewhere; no move is pending."""
    await prepare(library, operation)
    place = Place.BIN if operation in ("restore", "purge") else Place.MODELS
    path = library.store.layout.path(in_bin() if place is Place.BIN else in_models())
    aside = path.with_name("elsewhere.safetensors")
    path.rename(aside)

    with pytest.raises(told):
        await OPERATIONS[operation](library)
    await Reconciler(library, OpenDoor()).compare_all()

    assert await knowledge(library) == {("tester", "upload", "ink.safetensors")}
    assert_sound(storage, acknowledged=[OLD, NEW])


async def test_a_purge_does_not_remove_another_file(
    library: Library, storage: StorageConfig
) -> None:
    """A file put in the place of the deleted one was not meant."""
    await prepare(library, "purge")
    path = storage.bin_dir / "styles" / "ink.safetensors"
    path.rename(storage.bin_dir / "styles" / "aside.safetensors")
    path.write_bytes(b"theirs")

    with pytest.raises(MovedMeanwhile):
        await library.purge(in_bin())

    assert path.read_bytes() == b"theirs"


async def test_an_override_of_a_file_that_is_gone_is_not_found(library: Library) -> None:
    """Nobody is told that a note was kept when it was not."""
    await upload(library, OLD)
    lora = await library.move_to_bin(in_models(), "admin")
    await library.purge(in_bin())

    with pytest.raises(LoraNotFound):
        await library.set_override(lora, Override(notes="late"))


# Ingest


async def test_a_repeated_upload_answers_with_the_first_result(
    library: Library, storage: StorageConfig
) -> None:
    """The same principal, type, name and declared digest: nothing is stored twice."""
    first = await upload(library, OLD)

    again = await upload(library, OLD, sha256=first.sha256)

    assert again == first
    assert_sound(storage, acknowledged=[OLD])


async def test_a_repeated_upload_of_a_file_taken_away_is_stored(
    library: Library, storage: StorageConfig
) -> None:
    """An answer must not be about a file that is not there, noticed or not."""
    first = await upload(library, OLD)
    (storage.models_dir / "styles" / "ink.safetensors").unlink()

    await upload(library, OLD, sha256=first.sha256)

    assert_sound(storage, acknowledged=[OLD])


async def test_an_empty_upload_leaves_nothing(library: Library, storage: StorageConfig) -> None:
    """It is refused with its code."""
    with pytest.raises(FileRefused) as caught:
        await upload(library, b"")

    assert caught.value.code == "lora_empty"
    assert_sound(storage, acknowledged=[])


# What goes wrong in the middle


class Failing:
    """A hook that fails at one step, once or for good."""

    def __init__(self, step: str, *, for_good: bool) -> None:
        self.reached = False
        self._step = step
        self._for_good = for_good
        self._of_catalog = step.split()[1] in CATALOG_STEPS

    async def __call__(self, step: str) -> None:
        """Fail as the store or the catalogue does."""
        of_catalog = step.split()[1] in CATALOG_STEPS
        broken = self.reached and self._for_good and of_catalog == self._of_catalog
        if (step == self._step and not self.reached) or (broken and step.startswith("before")):
            self.reached = True
            raise CatalogUnusable("injected") if of_catalog else StorageUnusable("injected")


FAILURES = [
    (operation, f"before {step}")
    for operation, steps in {
        "publish": ("begin_upload", "publish", "finish_move"),
        "delete": ("begin_move", "rename", "finish_move"),
        "restore": ("begin_move", "rename", "finish_move"),
        "move": ("begin_move", "rename", "finish_move"),
        "purge": ("remove",),
    }.items()
    for step in steps
]


@pytest.mark.parametrize(("operation", "step"), FAILURES)
async def test_a_step_that_fails_once_changes_nothing(
    storage: StorageConfig, operation: str, step: str
) -> None:
    """Files and rows are as before, at once, and the operation can be tried again."""
    steps = Steps()
    before_it = [OLD] if operation == "publish" else [OLD, NEW]
    async with steps.library(storage) as library:
        await prepare(library, operation)
        before = await library.catalog.known_files()
        steps.hook = Failing(step, for_good=False)
        with pytest.raises(LoraServerError):
            await OPERATIONS[operation](library)
        after = await library.catalog.known_files()
        assert_sound(storage, acknowledged=before_it)
        steps.hook = quiet
        await OPERATIONS[operation](library)

    assert after == before
    assert_sound(storage, acknowledged=ACKNOWLEDGED[operation], sent=UNHEARD[operation])


@pytest.mark.parametrize(("operation", "step"), [*FAILURES, ("purge", "before forget")])
async def test_what_fails_for_good_is_mended_at_the_next_start(
    storage: StorageConfig, operation: str, step: str
) -> None:
    """The undoing fails too; nothing is lost, and a start brings rows and files together."""
    steps = Steps()
    async with steps.library(storage) as library:
        await prepare(library, operation)
        steps.hook = Failing(step, for_good=True)
        with pytest.raises(LoraServerError):
            await OPERATIONS[operation](library)
    steps.hook = quiet
    async with steps.library(storage) as library:
        await Reconciler(library, OpenDoor()).compare_all()
        known = await knowledge(library)

    assert known == {("tester", "upload", "ink.safetensors")}
    assert_sound(storage, acknowledged=ACKNOWLEDGED[operation], sent=UNHEARD[operation])


class Pausing:
    """A hook that holds the operation at its n-th step until it is let go on."""

    def __init__(self, number: int) -> None:
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()
        self.steps: list[str] = []
        self._number = number

    async def __call__(self, step: str) -> None:
        """Pause at the step."""
        self.steps.append(step)
        if len(self.steps) == self._number:
            self.reached.set()
            await self.go_on.wait()


@pytest.mark.parametrize("number", range(1, 7))
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_cancelled_caller_leaves_files_and_rows_agreeing(
    storage: StorageConfig, operation: str, number: int
) -> None:
    """Cancelled at any step, once and again, the operation still ends, and holds its lock."""
    pausing = Pausing(min(number, 4) if operation == "purge" else number)
    steps = Steps()
    async with steps.library(storage) as library:
        await prepare(library, operation)
        steps.hook = pausing
        task = asyncio.create_task(OPERATIONS[operation](library))
        await pausing.reached.wait()
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        waiting = not task.done()
        pausing.go_on.set()
        await asyncio.wait({task})
        by = await deleters(library)

    assert waiting
    assert task.cancelled() == (operation != "publish")  # an upload that is stored is told
    assert by <= {"admin"}
    assert_sound(storage, acknowledged=ACKNOWLEDGED[operation], sent=UNHEARD[operation])


async def test_moves_in_opposite_directions_do_not_wait_for_each_other(
    library: Library, storage: StorageConfig
) -> None:
    """Locks are taken in one order, so a hundred crossing moves all end."""
    for number in range(10):
        await upload(library, b"a%d" % number, f"a{number}.pt", "styles")
        await upload(library, b"b%d" % number, f"b{number}.pt", "faces")

    async with asyncio.timeout(30):
        await asyncio.gather(
            *(library.move(in_models(f"a{number}.pt", "styles"), "faces") for number in range(10)),
            *(library.move(in_models(f"b{number}.pt", "faces"), "styles") for number in range(10)),
            Reconciler(library, OpenDoor()).compare_all(),
        )

    assert names_in(storage.models_dir / "styles") == [f"b{number}.pt" for number in range(10)]
    assert_sound(
        storage, acknowledged=[b"%s%d" % (name, n) for name in (b"a", b"b") for n in range(10)]
    )


async def test_one_file_wanted_by_many_goes_to_one(
    library: Library, storage: StorageConfig
) -> None:
    """Of twenty deletions of one file one succeeds, and the others find nothing."""
    await upload(library, OLD)

    outcomes = await asyncio.gather(
        *(library.move_to_bin(in_models(), "admin") for _ in range(20)), return_exceptions=True
    )

    assert sum(isinstance(outcome, LoraNotFound) for outcome in outcomes) == 19
    assert_sound(storage, acknowledged=[OLD])


# Recovery of what an outsider has interfered with


async def test_recovery_tells_our_file_from_another(storage: StorageConfig) -> None:
    """A file of the same name and size at the target is not taken for the one that moved."""
    steps = Steps()
    async with steps.library(storage) as library:
        await prepare(library, "delete")
        lora = await library.catalog.find(in_models())
        assert lora is not None
        await library.catalog.begin_move(lora.id, in_bin("ink_v2.safetensors"))
    theirs = storage.bin_dir / "styles" / "ink_v2.safetensors"
    theirs.write_bytes(NEW)

    async with opened_library(storage) as library:
        found = await library.catalog.find(in_models())

    assert found == lora
    theirs.unlink()
    assert_sound(storage, acknowledged=[OLD, NEW])


async def test_nothing_is_leaked(library: Library) -> None:
    """Twenty rounds of everything hold as many descriptors as the first."""

    async def once() -> None:
        await upload(library, OLD)
        await library.move_to_bin(in_models(), "admin")
        await library.restore(in_bin())
        await library.move(in_models(), "faces")
        await library.move_to_bin(in_models(entity_type="faces"), "admin")
        await library.purge(in_bin(entity_type="faces"))

    await once()
    before = open_descriptors()
    for _ in range(20):
        await once()

    assert open_descriptors() == before
