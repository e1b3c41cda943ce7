"""LoRAs over HTTP: listed, shown and patched."""

import hashlib
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio

from tests.calls import FILES, LORA, STAMP, call, deleted, listing, lora_bytes, raw_call, stored
from tests.server import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def server(shared: Server) -> Server:
    """Use one server for the whole module."""
    return shared


@pytest_asyncio.fixture(loop_scope="module")
async def five(server: Server) -> Server:
    """Return a server with five LoRAs of two types."""
    for number, name in enumerate(("b", "Ink", "c", "a_ink")):
        await stored(server, f"{name}.safetensors", "styles", seed=number)
    await stored(server, "a_ink.safetensors", "faces", seed=9)
    return server


# --- listing


async def test_an_empty_library(server: Server) -> None:
    """Nothing stored is an empty page, not an error."""
    answer = await call(server, "GET", LORA)

    assert (answer.status, answer.json) == (200, {"data": [], "count": 0})


async def test_a_listed_lora_tells_all(server: Server) -> None:
    """A row has the admin upload's fields and what else is known."""
    upload = await stored(server)
    lora = (await call(server, "GET", LORA)).json["data"][0]

    assert {key: lora[key] for key in upload if key in lora} == {
        key: value for key, value in upload.items() if key in lora
    }
    assert set(upload) - set(lora) == {"duplicate_of"}
    assert (lora["uploaded_by"], lora["source"]) == ("admin", "upload")
    assert STAMP.fullmatch(lora["upload_timestamp"])
    assert lora["overrides"] == {"base_model": None, "trigger_words": None, "notes": None}


@pytest.mark.parametrize(
    ("query", "paths"),
    [
        pytest.param("", "styles/Ink faces/a_ink styles/a_ink styles/b styles/c", id="default"),
        pytest.param("limit=2", "styles/Ink faces/a_ink", id="limit"),
        pytest.param("skip=3&limit=2", "styles/b styles/c", id="skip"),
        pytest.param("skip=5", "", id="behind the end"),
        pytest.param("entity_type=faces", "faces/a_ink", id="type"),
        pytest.param("entity_type=nope", "", id="unknown type"),
        pytest.param("q=INK&entity_type=styles", "styles/Ink styles/a_ink", id="part of a name"),
        pytest.param("q=_", "faces/a_ink styles/a_ink", id="no wildcard"),
        pytest.param("q=%25", "", id="no percent wildcard"),
        pytest.param("sort=-name&limit=2", "styles/c styles/b", id="descending"),
        pytest.param("sort=entity_type&limit=1", "faces/a_ink", id="sorted by type"),
        pytest.param(
            f"sha256={hashlib.sha256(lora_bytes(2)).hexdigest().upper()}", "styles/c", id="digest"
        ),
        pytest.param(f"sha256={'0' * 64}", "", id="unknown digest"),
    ],
)
async def test_pages(five: Server, query: str, paths: str) -> None:
    """Filters choose, sort orders, skip and limit cut; ties are broken by partial path."""
    assert await listing(five, query) == [f"{path}.safetensors" for path in paths.split()]


async def test_count_is_of_all_matches(five: Server) -> None:
    """A client learns from any page how many there are."""
    answer = await call(five, "GET", f"{LORA}?entity_type=styles&limit=1&skip=2")

    assert (len(answer.json["data"]), answer.json["count"]) == (1, 4)


@pytest.mark.parametrize(
    "key", ["file_size", "upload_timestamp", "adapter", "base_model", "verdict"]
)
async def test_every_sort_key_orders_both_ways(five: Server, key: str) -> None:
    """Each key is accepted with and without a minus, and loses no row."""
    assert len(await listing(five, f"sort={key}")) == 5
    assert len(await listing(five, f"sort=-{key}")) == 5


@pytest.mark.parametrize(
    ("query", "loc", "kind", "message"),
    [
        pytest.param(
            "limit=0",
            "limit",
            "greater_than_equal",
            "Input should be greater than or equal to 1",
            id="limit too small",
        ),
        pytest.param(
            "limit=1001",
            "limit",
            "less_than_equal",
            "Input should be less than or equal to 1000",
            id="limit too large",
        ),
        pytest.param(
            "skip=x",
            "skip",
            "int_parsing",
            "Input should be a valid integer, unable to parse string as an integer",
            id="no number",
        ),
        pytest.param(
            "sha256=12",
            "sha256",
            "string_pattern_mismatch",
            "String should match pattern '^[0-9a-fA-F]{64}$'",
            id="no digest",
        ),
        pytest.param(
            "page=1", "page", "extra_forbidden", "Extra inputs are not permitted", id="unknown"
        ),
        pytest.param(
            "skip=1&skip=2",
            "skip",
            "duplicate_parameter",
            "The parameter is given twice",
            id="twice",
        ),
        pytest.param(
            f"q={'x' * 257}",
            "q",
            "string_too_long",
            "String should have at most 256 characters",
            id="too long",
        ),
        pytest.param(
            "q=%00",
            "q",
            "string_pattern_mismatch",
            "String should match pattern '^[^\\x00]*$'",
            id="nul would match every name",
        ),
    ],
)
async def test_bad_queries(server: Server, query: str, loc: str, kind: str, message: str) -> None:
    """A wrong parameter is a 422 in pydantic's words."""
    answer = await call(server, "GET", f"{LORA}?{query}")

    assert answer.status == 422
    assert answer.json == {"detail": [{"loc": ["query", loc], "msg": message, "type": kind}]}


async def test_all_complaints_come_at_once(server: Server) -> None:
    """A client can mend everything in one go."""
    answer = await call(server, "GET", f"{LORA}?limit=0&sort=size&skip=-1")

    assert [loc for loc, _ in answer.complaints] == [
        ["query", "skip"],
        ["query", "limit"],
        ["query", "sort"],
    ]


# --- detail and patch


async def test_detail_is_the_row_of_the_list(server: Server) -> None:
    """The detail and the list agree."""
    await stored(server)
    row = (await call(server, "GET", LORA)).json["data"][0]

    detail = (await call(server, "GET", f"{LORA}/styles/ink.safetensors")).json

    assert {key: detail[key] for key in row if key != "inspection"} == {
        key: row[key] for key in row if key != "inspection"
    }
    assert detail["inspection"]["adapter"]["family"] == row["inspection"]["adapter"] == "LoRA"


NAMES = [
    pytest.param("naïve 墨.safetensors", id="unicode and a space"),
    pytest.param("a.b.c.safetensors", id="dots"),
    pytest.param("100%.safetensors", id="percent"),
    pytest.param("50%25.safetensors", id="looks escaped"),
    pytest.param("%2e%2e.safetensors", id="looks like dots"),
    pytest.param("a#b.safetensors", id="hash"),
    pytest.param("a&b=c;d+e.safetensors", id="reserved characters"),
    pytest.param("[x]~'(y)!@$,.safetensors", id="punctuation"),
]


@pytest.mark.parametrize("name", NAMES)
async def test_any_stored_name_works_in_urls(server: Server, name: str) -> None:
    """What the server stored can be shown, patched, downloaded and deleted by its escaped name."""
    partial_path = (await stored(server, name))["partial_path"]
    path = quote(partial_path)

    assert partial_path == f"styles/{name}"
    assert (await call(server, "GET", f"{LORA}/{path}")).json["partial_path"] == partial_path
    assert (await call(server, "PATCH", f"{LORA}/{path}", notes="x")).status == 200
    download = await call(server, "GET", f"{FILES}/{path}")
    assert download.body == lora_bytes()
    disposition = download.headers["Content-Disposition"]
    assert disposition == f"attachment; filename*=UTF-8''{quote(name, safe='')}"
    assert await deleted(server, partial_path)


async def test_a_question_mark_never_gets_into_a_name(server: Server) -> None:
    """The one character that a URL could not carry unescaped is not stored either."""
    assert (await stored(server, "a?b.safetensors"))["partial_path"] == "styles/ab.safetensors"


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("styles/nope.safetensors", id="no such name"),
        pytest.param("nope/ink.safetensors", id="no such type"),
        pytest.param("faces/ink.safetensors", id="other type"),
        pytest.param("styles/INK.safetensors", id="other case"),
        pytest.param("styles/..%2fstyles%2fink.safetensors", id="traversal"),
        pytest.param("styles/ink.safetensors%00", id="null byte"),
        pytest.param("styles/%ff.safetensors", id="no UTF-8"),
        pytest.param(f"styles/{'x' * 300}.safetensors", id="too long"),
    ],
)
async def test_what_is_not_there_is_not_found(server: Server, path: str) -> None:
    """Detail, patch and download answer 404, whatever the name looks like."""
    await stored(server)

    assert (await call(server, "GET", f"{LORA}/{path}")).status == 404
    assert (await call(server, "PATCH", f"{LORA}/{path}", notes="x")).status == 404
    assert (await call(server, "GET", f"{FILES}/{path}")).status == 404


async def test_a_patch_changes_what_it_names(server: Server) -> None:
    """What is absent stays, null takes back, and the answer is the new detail."""
    await stored(server)
    path = f"{LORA}/styles/ink.safetensors"
    await call(server, "PATCH", path, base_model="SDXL 1.0", trigger_words=["inkstyle"], notes="n")
    answer = await call(server, "PATCH", path, notes=None)

    assert answer.json["overrides"] == {
        "base_model": "SDXL 1.0",
        "trigger_words": ["inkstyle"],
        "notes": None,
    }
    assert (await call(server, "GET", path)).json["overrides"] == answer.json["overrides"]
    assert await listing(server, "base_model=SDXL%201.0") == ["styles/ink.safetensors"]


async def test_an_empty_patch_changes_nothing(server: Server) -> None:
    """`{}` is well formed and asks for nothing."""
    await stored(server)
    path = f"{LORA}/styles/ink.safetensors"
    await call(server, "PATCH", path, notes="n", trigger_words=[])

    assert (await raw_call(server, "PATCH", path, b"{}")).json["overrides"] == {
        "base_model": None,
        "trigger_words": [],
        "notes": "n",
    }


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        pytest.param({"sha256": "x"}, (["body", "sha256"], "extra_forbidden"), id="unknown"),
        pytest.param({"notes": 5}, (["body", "notes"], "string_type"), id="type"),
        pytest.param({"notes": "x" * 10_001}, (["body", "notes"], "string_too_long"), id="length"),
        pytest.param({"trigger_words": "x"}, (["body", "trigger_words"], "list_type"), id="list"),
        pytest.param(
            {"trigger_words": ["a", 1]}, (["body", "trigger_words", 1], "string_type"), id="item"
        ),
        pytest.param(
            {"trigger_words": ["a"] * 101}, (["body", "trigger_words"], "too_long"), id="items"
        ),
    ],
)
async def test_bad_patches(server: Server, members: Any, complaint: tuple[list[Any], str]) -> None:
    """A wrong member is named, and nothing is changed."""
    await stored(server)
    path = f"{LORA}/styles/ink.safetensors"
    answer = await call(server, "PATCH", path, **members)

    assert (answer.status, answer.complaints) == (422, [complaint])
    assert (await call(server, "GET", path)).json["overrides"]["notes"] is None
