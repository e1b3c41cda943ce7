"""The catalogue: every operation, every way to list, and the database under it."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lora_server.catalog import Catalog, Selection
from lora_server.catalog.tables import SCHEMA_VERSION
from lora_server.config import StorageConfig
from lora_server.errors import CatalogUnusable, ConfigInvalid
from lora_server.moves import Move
from lora_server.reconcile import Reconciler
from lora_server.records import (
    FileFacts,
    Judgement,
    Location,
    Override,
    Place,
    Source,
    StoredLora,
    Verdict,
)
from tests.invariants import assert_sound
from tests.libraries import in_bin, in_models, listed, opened_library, upload
from tests.open_door import OpenDoor

RANK_4 = Judgement(
    verdict=Verdict.ACCEPTED,
    summary={"rank": 4},
    inspection={"rank": 4, "triggers": ["ink", "\u00e9t\u00e9"], "nested": {"a": None}},
    adapter="LoRA",
    base_model="SDXL",
    data_begin=800,
)
REFUSED = Judgement(verdict=Verdict.REFUSED, summary={"code": "x"}, inspection=None)
FACTS = FileFacts(size=10, mtime_ns=20, inode=30)


@pytest.fixture
async def catalog(tmp_path: Path) -> AsyncIterator[Catalog]:
    """Open an empty catalogue."""
    async with Catalog.opened(tmp_path / "catalog.sqlite3") as opened:
        yield opened


def record(location: Location, **changes: Any) -> StoredLora:
    """Return what is known of a file."""
    lora = StoredLora(
        id=0,
        location=location,
        home_name=location.name,
        filename=location.name,
        facts=FACTS,
        sha256="ab" * 32,
        uploaded_sha256="cd" * 32,
        uploaded_size=11,
        uploaded_by="tester",
        source=Source.UPLOAD,
        uploaded_at=1_700_000_000,
        judgement=None,
        tensors_sha256=None,
        override=Override(),
        deleted_at=None,
        deleted_by=None,
    )
    return replace(lora, **changes)


async def add(catalog: Catalog, location: Location, **changes: Any) -> StoredLora:
    """Enter a file that stands somewhere."""
    await catalog.add_found(record(location, **changes))
    found = await catalog.find(location)
    assert found is not None
    return found


async def names(catalog: Catalog, **selection: Any) -> list[str]:
    """Return the names on a page."""
    page = await catalog.page(Selection(**selection))
    return [lora.location.name for lora in page.items]


# Operations


async def test_what_was_entered_is_found(catalog: Catalog) -> None:
    """A record comes back as it went in, with an id."""
    entered = record(in_models(), judgement=RANK_4, filename="Ink!.safetensors")
    await catalog.add_found(entered)

    found = await catalog.find(in_models())

    assert found == replace(entered, id=1)
    assert await catalog.find(in_bin()) is None


async def test_a_file_has_one_row(catalog: Catalog) -> None:
    """The database itself refuses a second row for one place."""
    await add(catalog, in_models())

    with pytest.raises(CatalogUnusable):
        await catalog.add_found(record(in_models()))


async def test_an_upload_is_listed_once_it_has_arrived(catalog: Catalog) -> None:
    """Between intent and arrival it is unfinished, and in no listing."""
    staged = record(Location(Place.STAGING, "", "0123.part"))

    row_id = await catalog.begin_upload(staged, in_models())
    unfinished = await catalog.unfinished()
    before = await names(catalog)
    arrived = await catalog.finish_move(row_id, in_models())

    assert unfinished == [Move(replace(staged, id=row_id), in_models())]
    assert before == []
    assert await catalog.known_files() == {in_models(): arrived}
    assert await catalog.unfinished() == []
    assert await names(catalog) == ["ink.safetensors"]


async def test_a_deletion_knows_by_whom_before_it_is_done(catalog: Catalog) -> None:
    """A crash in the middle does not forget who deleted the file."""
    lora = await add(catalog, in_models())

    await catalog.begin_move(lora.id, in_bin(), deleted_by="admin")

    assert await catalog.unfinished() == [Move(lora, in_bin(), "admin")]


async def test_a_withdrawn_move_leaves_no_trace(catalog: Catalog) -> None:
    """The row is as it was before."""
    lora = await add(catalog, in_models())
    await catalog.begin_move(lora.id, in_bin(), deleted_by="admin")

    await catalog.withdraw_move(lora.id)

    assert await catalog.unfinished() == []
    assert await catalog.find(in_models()) == lora


async def test_a_finished_move_changes_the_place_and_what_else_is_told(catalog: Catalog) -> None:
    """All of it at once, and a stale row at the target is dropped."""
    lora = await add(catalog, in_models())
    await add(catalog, in_bin())

    moved = await catalog.finish_move(lora.id, in_bin(), deleted_at=5, deleted_by="admin")

    assert moved == replace(lora, location=in_bin(), deleted_at=5, deleted_by="admin")
    assert await catalog.known_files() == {in_bin(): moved}


async def test_a_move_of_a_vanished_row_fails_and_drops_nothing(catalog: Catalog) -> None:
    """The row at the target is still there: all or nothing."""
    bystander = await add(catalog, in_bin())

    with pytest.raises(CatalogUnusable):
        await catalog.finish_move(bystander.id + 1, in_bin())

    assert await catalog.find(in_bin()) == bystander


async def test_changed_content_makes_what_was_found_out_void(catalog: Catalog) -> None:
    """Digests, size and judgement are new, the weights are unread, the admin's word stays."""
    lora = await add(catalog, in_models(), judgement=RANK_4, tensors_sha256="aa" * 32)
    await catalog.set_override(lora.id, Override(notes="mine"))
    facts = FileFacts(size=99, mtime_ns=98, inode=97)

    await catalog.set_content(lora.id, "ef" * 32, facts, REFUSED)

    changed = await catalog.find(in_models())
    assert changed == replace(
        lora,
        facts=facts,
        sha256="ef" * 32,
        uploaded_sha256="ef" * 32,
        uploaded_size=99,
        source=Source.FOUND,
        judgement=REFUSED,
        tensors_sha256=None,
        override=Override(notes="mine"),
    )


async def test_a_touched_file_changes_only_its_facts(catalog: Catalog) -> None:
    """What is known of the bytes holds."""
    lora = await add(catalog, in_models(), judgement=RANK_4)
    facts = replace(FACTS, mtime_ns=21)

    await catalog.set_facts(lora.id, facts)

    assert await catalog.find(in_models()) == replace(lora, facts=facts)


async def test_an_inspection_is_kept(catalog: Catalog) -> None:
    """The whole of it comes back, and its short forms can be filtered by."""
    lora = await add(catalog, in_models())

    await catalog.set_judgements({lora.id: RANK_4})

    found = await catalog.find(in_models())
    assert found is not None
    assert found.judgement == RANK_4
    assert await names(catalog, adapter="LoRA", verdict="accepted", base_model="SDXL") != []


async def test_an_override_is_kept_apart_and_wins(catalog: Catalog) -> None:
    """Filters see what the admin said, whatever is detected later; taken back, that is seen."""
    lora = await add(catalog, in_models())
    await catalog.set_judgements({lora.id: RANK_4})
    override = Override(base_model="flux", trigger_words=("a", "b"), notes="checked")

    changed = await catalog.set_override(lora.id, override)
    await catalog.set_judgements({lora.id: replace(RANK_4, adapter="DoRA")})
    as_told = (await names(catalog, base_model="flux"), await names(catalog, base_model="SDXL"))
    await catalog.set_override(lora.id, Override())
    as_detected = (await names(catalog, base_model="flux"), await names(catalog, base_model="SDXL"))

    assert changed is not None
    assert changed.override == override
    assert as_told == (["ink.safetensors"], [])
    assert as_detected == ([], ["ink.safetensors"])


async def test_an_empty_list_of_triggers_is_something_said(catalog: Catalog) -> None:
    """No trigger words differs from nothing said about them."""
    lora = await add(catalog, in_models())

    changed = await catalog.set_override(lora.id, Override(trigger_words=()))

    assert changed is not None
    assert changed.override.trigger_words == ()


async def test_an_override_of_nothing_is_nothing(catalog: Catalog) -> None:
    """There is no such row, and none is made."""
    assert await catalog.set_override(7, Override(notes="x")) is None
    assert await catalog.known_files() == {}


async def test_forgetting_takes_any_number(catalog: Catalog) -> None:
    """None, one, or more than SQLite takes parameters."""
    kept = await add(catalog, in_models("kept.pt"))
    gone = await add(catalog, in_models("gone.pt"))

    await catalog.forget()
    await catalog.forget(gone.id, *range(1000, 50_000))

    assert await catalog.known_files() == {in_models("kept.pt"): kept}


async def test_content_is_found_by_either_digest_where_it_is_live(catalog: Catalog) -> None:
    """Stored or as sent; not in the bin."""
    first = await add(catalog, in_models("a.pt"), sha256="aa", uploaded_sha256="bb")
    second = await add(catalog, in_models("b.pt"), sha256="bb", uploaded_sha256="cc")
    await add(catalog, in_bin("c.pt"), sha256="bb", uploaded_sha256="bb")

    assert await catalog.find_content("bb") == [first, second]
    assert await catalog.find_content("dd") == []


async def test_an_equal_upload_is_found(catalog: Catalog) -> None:
    """Only when principal, type, client's name, digest and place all fit."""
    key = ("tester", "styles", "Ink.pt", "ff")
    lora = await add(catalog, in_models(), filename="Ink.pt", uploaded_sha256="ff")
    await add(catalog, in_bin("bin.pt"), filename="bin.pt", uploaded_sha256="ff")

    assert await catalog.find_upload(*key) == lora
    for position in range(4):
        other = [*key[:position], "other", *key[position + 1 :]]
        assert await catalog.find_upload(*other) is None
    assert await catalog.find_upload("tester", "styles", "bin.pt", "ff") is None


async def test_expired_is_what_went_to_the_bin_before_a_moment(catalog: Catalog) -> None:
    """The moment itself is not before it, and live files never expire."""
    await add(catalog, in_bin("early.pt"), deleted_at=9)
    await add(catalog, in_bin("late.pt"), deleted_at=10)
    await add(catalog, in_models("live.pt"))

    assert await catalog.expired(10) == [in_bin("early.pt")]


# Listing


async def test_pages_follow_each_other_and_count_all(catalog: Catalog) -> None:
    """Pages together are the whole, in order, and each says how many there are."""
    for number in range(25):
        await add(catalog, in_models(f"{number:02}.pt"))

    pages = [await catalog.page(Selection(skip=skip, limit=10)) for skip in (0, 10, 20, 30)]

    assert [len(page.items) for page in pages] == [10, 10, 5, 0]
    assert {page.count for page in pages} == {25}
    everything = [lora.location.name for page in pages for lora in page.items]
    assert everything == [f"{number:02}.pt" for number in range(25)]


async def test_trees_are_listed_apart(catalog: Catalog) -> None:
    """A listing of the bin shows nothing live, and the other way round."""
    await add(catalog, in_models("live.pt"))
    await add(catalog, in_bin("gone.pt"))

    assert await names(catalog) == ["live.pt"]
    assert await names(catalog, place=Place.BIN) == ["gone.pt"]


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("name", "abc"),
        ("-name", "cba"),
        ("file_size", "bca"),
        ("-file_size", "acb"),
        ("upload_timestamp", "cab"),
        ("-upload_timestamp", "bac"),
    ],
)
async def test_listings_are_sorted(catalog: Catalog, sort: str, expected: str) -> None:
    """By any column, either way."""
    for name, size, at in (("a", 3, 2), ("b", 1, 3), ("c", 2, 1)):
        facts = replace(FACTS, size=size)
        await add(catalog, in_models(f"{name}.pt"), facts=facts, uploaded_at=at)

    assert [name[0] for name in await names(catalog, sort=sort)] == list(expected)


@pytest.mark.parametrize("sort", ["file_size", "-file_size", "verdict", "-base_model"])
async def test_ties_are_broken_by_partial_path(catalog: Catalog, sort: str) -> None:
    """Equal files, and those of which a column knows nothing, keep one order over pages."""
    for entity_type in ("styles", "faces"):
        for name in ("b.pt", "a.pt"):
            await add(catalog, in_models(name, entity_type))

    page = await catalog.page(Selection(sort=sort))

    assert [lora.location.partial_path for lora in page.items] == [
        "faces/a.pt", "faces/b.pt", "styles/a.pt", "styles/b.pt",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("q", "expected"),
    [
        ("INK", ["100%_ink.pt"]),
        ("%", ["100%_ink.pt"]),
        ("_", ["100%_ink.pt"]),
        ("0%i", []),
        ("/", []),
        ("CAF\u00c9", ["caf\u00e9.pt"]),
        ("cafe\u0301", ["caf\u00e9.pt"]),
        ("Original", ["renamed.pt"]),
        (".pt", ["100%_ink.pt", "caf\u00e9.pt", "renamed.pt"]),
        ("", ["100%_ink.pt", "caf\u00e9.pt", "renamed.pt"]),
    ],
)
async def test_a_search_is_literal_and_blind_to_spelling(
    catalog: Catalog, q: str, expected: list[str]
) -> None:
    """Wildcards are characters; case and normalisation do not matter; both names are searched."""
    await add(catalog, in_models("100%_ink.pt"))
    await add(catalog, in_models("caf\u00e9.pt"))
    await add(catalog, in_models("renamed.pt"), filename="original name.pt")

    page = await catalog.page(Selection(q=q))

    assert [lora.location.name for lora in page.items] == expected
    assert page.count == len(expected)


async def test_a_search_finds_the_name_that_a_file_has_now(catalog: Catalog) -> None:
    """A move can give it another version of its name."""
    lora = await add(catalog, in_models("ink.pt"))

    await catalog.finish_move(lora.id, in_models("ink_v7.pt", "faces"))

    assert await names(catalog, q="_v7") == ["ink_v7.pt"]


async def test_filters_hold_together(catalog: Catalog) -> None:
    """Each filter narrows, and the count with it."""
    await add(catalog, in_models("a.pt"), sha256="aa")
    await add(catalog, in_models("b.pt"), sha256="bb", judgement=REFUSED)
    await add(catalog, in_models("a.pt", "faces"), sha256="aa")

    page = await catalog.page(Selection(entity_type="styles", sha256="aa"))

    assert [lora.location for lora in page.items] == [in_models("a.pt")]
    assert page.count == 1
    assert await names(catalog, verdict="refused") == ["b.pt"]


# The database


async def test_every_connection_is_durable(catalog: Catalog) -> None:
    """Write-ahead log and full synchronisation, on all connections of the pool at once."""

    async def pragmas(together: asyncio.Barrier) -> tuple[str, int]:
        async with catalog._database._engine.begin() as connection:  # noqa: SLF001 - what is tested
            await together.wait()
            journal = await connection.exec_driver_sql("PRAGMA journal_mode")
            synchronous = await connection.exec_driver_sql("PRAGMA synchronous")
            return str(journal.scalar_one()), int(synchronous.scalar_one())

    together = asyncio.Barrier(10)
    told = await asyncio.gather(*(pragmas(together) for _ in range(10)))

    assert told == [("wal", 2)] * 10


async def test_concurrent_writers_all_succeed(catalog: Catalog) -> None:
    """Two hundred at once wait their turn instead of failing; readers go on meanwhile."""
    writes = [catalog.add_found(record(in_models(f"{number}.pt"))) for number in range(200)]
    reads = [catalog.page(Selection(limit=5)) for _ in range(50)]

    pages = (await asyncio.gather(*writes, *reads))[200:]

    assert len(await catalog.known_files()) == 200
    assert all(page is not None and len(page.items) <= page.count for page in pages)


async def test_a_page_and_its_count_are_of_one_moment(catalog: Catalog) -> None:
    """Within one transaction a reader sees nothing of what is written meanwhile."""
    await add(catalog, in_models("a.pt"))

    async with catalog._database._engine.begin() as connection:  # noqa: SLF001 - what is tested
        query = "SELECT count(*) FROM loras"
        before = (await connection.exec_driver_sql(query)).scalar_one()
        await catalog.add_found(record(in_models("b.pt")))
        after = (await connection.exec_driver_sql(query)).scalar_one()

    assert (before, after) == (1, 1)


async def test_cancelled_operations_leave_the_catalogue_usable(catalog: Catalog) -> None:
    """However a caller is cut off, locks and connections come back."""
    for number in range(40):
        task = asyncio.create_task(catalog.add_found(record(in_models(f"{number}.pt"))))
        await asyncio.sleep(number / 20_000)
        task.cancel()
        await asyncio.wait({task})

    async with asyncio.timeout(5):
        await asyncio.gather(*(catalog.check() for _ in range(30)))
        await add(catalog, in_models("last.pt"))


async def test_a_catalogue_survives_its_closing(tmp_path: Path) -> None:
    """Opened again, it knows what it knew; a path is not read as a URL."""
    path = tmp_path / "a folder?with#odd%20characters" / "catalog.sqlite3"
    path.parent.mkdir()
    async with Catalog.opened(path) as catalog:
        lora = await add(catalog, in_models())

    async with Catalog.opened(path) as catalog:
        found = await catalog.find(in_models())

    assert found == lora
    assert path.exists()


async def test_another_version_is_refused(tmp_path: Path) -> None:
    """The message says what to do, and the database is left as it is."""
    path = tmp_path / "catalog.sqlite3"
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        database.execute("CREATE TABLE theirs (id INTEGER)")

    with pytest.raises(ConfigInvalid, match=f"of version {SCHEMA_VERSION + 1}") as caught:
        async with Catalog.opened(path):
            pytest.fail("a database of the future was opened")

    assert str(path) in str(caught.value)
    with closing(sqlite3.connect(path)) as database:
        tables = database.execute("SELECT name FROM sqlite_schema").fetchall()
    assert tables == [("theirs",)]


@pytest.mark.parametrize(
    "content", [b"this is no database" * 100, b"SQLite format 3\0" + b"x" * 99]
)
async def test_a_broken_database_is_refused(tmp_path: Path, content: bytes) -> None:
    """The start stops with the path instead of a traceback, and the file is not touched."""
    path = tmp_path / "catalog.sqlite3"
    path.write_bytes(content)

    with pytest.raises(ConfigInvalid, match=str(path)):
        async with Catalog.opened(path):
            pytest.fail("rubbish was opened")

    assert path.read_bytes() == content


async def test_a_failed_write_is_told_and_undone(tmp_path: Path) -> None:
    """What the database says is kept for the operator; here its table is gone."""
    path = tmp_path / "catalog.sqlite3"
    async with Catalog.opened(path) as catalog:
        with closing(sqlite3.connect(path)) as database:
            database.execute("DROP TABLE loras")
        with pytest.raises(CatalogUnusable) as caught:
            await catalog.add_found(record(in_models()))

    assert "no such table" in caught.value.why


async def test_a_lost_catalogue_is_rebuilt_from_the_tree(storage: StorageConfig) -> None:
    """Every file is listed again, with what the files themselves can tell."""
    async with opened_library(storage) as library:
        await upload(library, b"live")
        await upload(library, b"gone", "gone.pt")
        await library.move_to_bin(in_models("gone.pt"), "admin")
    for path in storage.state_dir.glob("catalog*"):
        path.unlink()

    async with (
        opened_library(storage) as library,
        Reconciler(library, OpenDoor(), rest_s=0).running() as reconciler,
    ):
        await reconciler.idle()
        live, gone = await listed(library), await listed(library, Place.BIN)
        found = await library.catalog.find(in_models())

    assert (live, gone) == (["styles/ink.safetensors"], ["styles/gone.pt"])
    assert found is not None
    assert (found.source, found.uploaded_by) == (Source.FOUND, None)
    assert_sound(storage, acknowledged=[b"live", b"gone"])
