"""The bin over HTTP: what was deleted, the way back, and the end."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.calls import BIN, LORA, call, deleted, lora_bytes, raw_call, stored
from tests.server import Server, make_config, running

DAY_S = 86400
INK = "styles/ink.safetensors"


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        """Return the time in seconds since the epoch."""
        return self.now


@pytest.fixture
def clock(server: Server) -> Iterator[Clock]:
    """Run the library of the server by another clock."""
    clock, own = Clock(), server.library.clock
    server.library.clock = clock
    yield clock
    server.library.clock = own


async def binned(server: Server, query: str = "") -> list[Any]:
    """Return a page of the bin."""
    answer = await call(server, "GET", f"{BIN}?{query}")
    assert answer.status == 200, answer.body
    return list(answer.json["data"])


# --- listing


async def test_an_empty_bin(server: Server) -> None:
    """Nothing deleted is an empty page."""
    assert (await call(server, "GET", BIN)).json == {"data": [], "count": 0}


async def test_a_row_tells_what_restoring_needs(server: Server, clock: Clock) -> None:
    """Where it is, where it goes back to, who deleted it, and until when there is time."""
    await stored(server)
    bin_path = await deleted(server)
    row = (await binned(server))[0]

    assert clock.now == 1_700_000_000
    assert row.pop("sha256")
    assert row == {
        "bin_path": bin_path,
        "partial_path": INK,
        "file_size": len(lora_bytes()),
        "entity_type": "styles",
        "deleted_at": "2023-11-14T22:13:20Z",
        "deleted_by": "admin",
        "purge_after": "2023-12-14T22:13:20Z",
    }


async def test_the_latest_deletion_comes_first(server: Server, clock: Clock) -> None:
    """Who just deleted the wrong file finds it on top."""
    for name in ("b", "a", "c"):
        await stored(server, f"{name}.safetensors")
    for name in ("a", "c", "b"):
        await deleted(server, f"styles/{name}.safetensors")
        clock.now += 1

    assert [row["partial_path"][7] for row in await binned(server)] == ["b", "c", "a"]
    assert [row["partial_path"][7] for row in await binned(server, "skip=1&limit=1")] == ["c"]
    assert (await call(server, "GET", f"{BIN}?limit=1")).json["count"] == 3


async def test_the_bin_can_be_filtered(server: Server) -> None:
    """By type and by part of a name."""
    for entity_type in ("styles", "faces"):
        await stored(server, entity_type=entity_type)
        await deleted(server, f"{entity_type}/ink.safetensors")

    assert [row["entity_type"] for row in await binned(server, "entity_type=faces")] == ["faces"]
    assert len(await binned(server, "q=INK")) == 2
    assert await binned(server, "q=oil") == []


@pytest.mark.parametrize("query", ["limit=0", "skip=-1", "sort=name", "limit=1&limit=2"])
async def test_bad_queries(server: Server, query: str) -> None:
    """The bin is as strict as the list."""
    answer = await call(server, "GET", f"{BIN}?{query}")

    assert answer.status == 422
    assert [loc for loc, _ in answer.complaints] == [["query", query.partition("=")[0]]]


# --- restoring


async def test_restoring_undoes_a_deletion(server: Server) -> None:
    """The same bytes stand under the same name, with all that was known."""
    await stored(server)
    await call(server, "PATCH", f"{LORA}/{INK}", notes="mine")
    before = (await call(server, "GET", LORA)).json["data"][0]
    answer = await call(server, "POST", f"{BIN}/restore", bin_path=await deleted(server))

    assert (answer.status, answer.json) == (200, before)
    assert server.files() == [server.models / INK]
    assert (server.models / INK).read_bytes() == lora_bytes()
    assert await binned(server) == []


async def test_restoring_to_a_taken_name_gives_a_version(server: Server) -> None:
    """What took the name meanwhile keeps it."""
    await stored(server, seed=1)
    bin_path = await deleted(server)
    await stored(server, seed=2)
    answer = await call(server, "POST", f"{BIN}/restore", bin_path=bin_path)

    assert answer.json["partial_path"] == "styles/ink_v2.safetensors"
    assert (server.models / INK).read_bytes() == lora_bytes(2)
    assert (server.models / "styles" / "ink_v2.safetensors").read_bytes() == lora_bytes(1)


async def test_a_taken_name_in_the_bin_gives_a_version(server: Server) -> None:
    """Two deletions of one name do not meet in the bin, and both go back to that name."""
    paths = []
    for seed in (1, 2):
        await stored(server, seed=seed)
        paths.append(await deleted(server))
    rows = await binned(server)

    assert paths == [
        str(server.bin / "styles" / "ink.safetensors"),
        str(server.bin / "styles" / "ink_v2.safetensors"),
    ]
    assert {row["partial_path"] for row in rows} == {INK}
    restored = await call(server, "POST", f"{BIN}/restore", bin_path=paths[1])
    assert restored.json["partial_path"] == INK
    assert (server.models / INK).read_bytes() == lora_bytes(2)


# --- purging


async def test_purging_ends_a_file(server: Server) -> None:
    """It is gone from disk, list and catalogue; others stay."""
    for name in ("a", "b"):
        await stored(server, f"{name}.safetensors")
    first = await deleted(server, "styles/a.safetensors")
    second = await deleted(server, "styles/b.safetensors")
    answer = await call(server, "DELETE", BIN, bin_path=first)

    assert (answer.status, answer.json) == (200, {"purged": [first]})
    assert [str(path) for path in server.files()] == [second]
    assert [row["bin_path"] for row in await binned(server)] == [second]


async def test_purging_what_is_past_its_retention(server: Server, clock: Clock) -> None:
    """Only what has lain there for longer than the retention goes."""
    await stored(server, "old.safetensors")
    old = await deleted(server, "styles/old.safetensors")
    clock.now += 20 * DAY_S
    await stored(server, "young.safetensors")
    young = await deleted(server, "styles/young.safetensors")
    clock.now += 11 * DAY_S
    answer = await call(server, "DELETE", BIN, past_retention=True)

    assert (answer.status, answer.json) == (200, {"purged": [old]})
    assert [row["bin_path"] for row in await binned(server)] == [young]


async def test_retention_is_configurable(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The list tells the date that the setting gives."""
    folder = tmp_path_factory.mktemp("data")
    config = make_config(folder, storage={"bin_retention": "1d"})
    async with running(config) as server:
        clock = Clock()
        server.library.clock = clock
        await stored(server)
        await deleted(server)
        row = (await binned(server))[0]

    assert (row["deleted_at"], row["purge_after"]) == (
        "2023-11-14T22:13:20Z",
        "2023-11-15T22:13:20Z",
    )


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"{}", id="nothing"),
        pytest.param(b'{"bin_path": null, "past_retention": null}', id="nulls"),
        pytest.param(b'{"bin_path": "/x", "past_retention": true}', id="both"),
    ],
)
async def test_a_purge_says_what_it_means(server: Server, body: bytes) -> None:
    """Neither or both of the two ways to purge is a 422, and nothing goes."""
    await stored(server)
    await deleted(server)
    answer = await raw_call(server, "DELETE", BIN, body)

    assert (answer.status, answer.complaints) == (422, [(["body"], "value_error")])
    assert len(server.files()) == 1


@pytest.mark.parametrize(
    ("body", "loc", "kind"),
    [
        pytest.param(b"", ["body"], "missing", id="no body"),
        pytest.param(b"[]", ["body"], "model_attributes_type", id="list"),
        pytest.param(
            b'{"past_retention": false}', ["body", "past_retention"], "literal_error", id="false"
        ),
        pytest.param(b'{"all": true}', ["body", "all"], "extra_forbidden", id="unknown"),
        pytest.param(b'{"bin_path": ""}', ["body", "bin_path"], "string_too_short", id="empty"),
        pytest.param(b'{"bin_path": "\\udfff"}', ["body", 0], "json_invalid", id="surrogate"),
    ],
)
async def test_bad_purges(server: Server, body: bytes, loc: list[Any], kind: str) -> None:
    """What is wrong is named."""
    answer = await raw_call(server, "DELETE", BIN, body)

    assert (answer.status, answer.complaints) == (422, [(loc, kind)])
