"""The library over HTTP: list, detail, patch, move, delete, look up, download."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web

from lora_server.records import Judgement, Verdict
from tests.calls import BIN, FILES, JSON, LORA, call, deleted, lora_bytes, raw_call, stored
from tests.server import ADMIN, Server

INK = f"{FILES}/styles/ink.safetensors"
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
GARBAGE = b"\x00" * 16


async def listing(server: Server, query: str = "") -> list[str]:
    """Return the partial paths of a page of the list."""
    answer = await call(server, "GET", f"{LORA}?{query}")
    assert answer.status == 200, answer.body
    return [lora["partial_path"] for lora in answer.json["data"]]


@pytest.fixture
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


# --- move


async def test_a_move_takes_file_and_knowledge_along(server: Server) -> None:
    """The file stands under the new type, with what was set by hand, and nowhere else."""
    await stored(server)
    await call(server, "PATCH", f"{LORA}/styles/ink.safetensors", notes="n")
    answer = await call(
        server, "POST", f"{LORA}/move", partial_path="styles/ink.safetensors", entity_type="faces"
    )

    assert answer.json["partial_path"] == "faces/ink.safetensors"
    assert answer.json["overrides"]["notes"] == "n"
    assert server.files() == [server.models / "faces" / "ink.safetensors"]
    assert await listing(server) == ["faces/ink.safetensors"]


async def test_a_move_never_overwrites(server: Server) -> None:
    """A name that is taken there is versioned."""
    await stored(server, entity_type="styles", seed=1)
    await stored(server, entity_type="faces", seed=2)
    answer = await call(
        server, "POST", f"{LORA}/move", partial_path="styles/ink.safetensors", entity_type="faces"
    )

    assert answer.json["partial_path"] == "faces/ink_v2.safetensors"
    assert (server.models / "faces" / "ink.safetensors").read_bytes() == lora_bytes(2)
    assert (server.models / "faces" / "ink_v2.safetensors").read_bytes() == lora_bytes(1)


async def test_a_move_to_where_it_is(server: Server) -> None:
    """Moving a file to its own type changes nothing."""
    await stored(server)
    answer = await call(
        server, "POST", f"{LORA}/move", partial_path="styles/ink.safetensors", entity_type="styles"
    )

    assert answer.json["partial_path"] == "styles/ink.safetensors"


@pytest.mark.parametrize(
    ("partial_path", "entity_type", "status"),
    [
        pytest.param("styles/nope.safetensors", "faces", 404, id="no such file"),
        pytest.param("styles/ink.safetensors", "nope", 422, id="no such type"),
        pytest.param("styles/ink.safetensors", "../etc", 422, id="traversal in the type"),
        pytest.param("../ink.safetensors", "faces", 422, id="traversal"),
        pytest.param("styles/ink.safetensors", "no_type_provided", 200, id="no type"),
    ],
)
async def test_moves_that_cannot_be(
    server: Server, partial_path: str, entity_type: str, status: int
) -> None:
    """A type must be one of the configured ones, or none."""
    await stored(server)
    answer = await call(
        server, "POST", f"{LORA}/move", partial_path=partial_path, entity_type=entity_type
    )

    assert answer.status == status
    assert len(server.files()) == 1


# --- delete


async def test_a_deletion_moves_the_file_to_the_bin(server: Server) -> None:
    """The answer says where from, where to and when; the bytes are in the bin."""
    await stored(server)
    answer = await call(server, "DELETE", LORA, partial_path="styles/ink.safetensors")
    binned = server.bin / "styles" / "ink.safetensors"

    assert answer.status == 200
    assert STAMP.fullmatch(answer.json["timestamp"])
    assert {key: value for key, value in answer.json.items() if key != "timestamp"} == {
        "deleted": True,
        "full_path": str(server.models / "styles" / "ink.safetensors"),
        "bin_path": str(binned),
    }
    assert server.files() == [binned]
    assert binned.read_bytes() == lora_bytes()


async def test_what_was_deleted_is_gone_everywhere(server: Server) -> None:
    """Until it is restored, no address of the library knows it."""
    upload = await stored(server)
    bin_path = await deleted(server)
    addresses = [
        ("GET", f"{LORA}/styles/ink.safetensors"),
        ("GET", INK),
        ("HEAD", INK),
        ("HEAD", f"{FILES}/sha256/{upload['sha256']}"),
    ]
    gone = [(await call(server, *address)).status for address in addresses]
    again = await call(server, "DELETE", LORA, partial_path="styles/ink.safetensors")
    in_list = await listing(server)
    await call(server, "POST", f"{BIN}/restore", bin_path=bin_path)
    back = [(await call(server, *address)).status for address in addresses]

    assert (gone, again.status, in_list) == ([404] * 4, 404, [])
    assert back == [200] * 4


@pytest.mark.parametrize(
    "partial_path",
    [
        pytest.param("../etc/passwd", id="traversal"),
        pytest.param("styles/../faces/ink.safetensors", id="traversal inside"),
        pytest.param("styles/./ink.safetensors", id="dot"),
        pytest.param("/data/models/loras/styles/ink.safetensors", id="absolute"),
        pytest.param("nope/ink.safetensors", id="unknown type"),
        pytest.param("ink.safetensors", id="no type"),
        pytest.param("styles/", id="no name"),
        pytest.param("styles/.ink.safetensors", id="hidden"),
        pytest.param("styles/ink.txt", id="other extension"),
        pytest.param("styles/ink.safetensors\0", id="null byte"),
        pytest.param("styles\\ink.safetensors", id="backslash"),
        pytest.param("", id="empty"),
        pytest.param(f"styles/{'x' * 300}.safetensors", id="too long"),
    ],
)
async def test_paths_that_can_name_nothing(server: Server, partial_path: str) -> None:
    """Such a path is a 422 before any file is looked for."""
    await stored(server)
    answer = await call(server, "DELETE", LORA, partial_path=partial_path)

    assert answer.status == 422
    assert answer.complaints == [(["body", "partial_path"], "value_error")]
    assert len(server.files()) == 1


NOT_AN_OBJECT = "Input should be a valid dictionary or object to extract fields from"


@pytest.mark.parametrize(
    ("body", "loc", "kind"),
    [
        pytest.param(b"", ["body"], "missing", id="no body"),
        pytest.param(b"null", ["body"], "missing", id="null"),
        pytest.param(b"{", ["body", 1], "json_invalid", id="no JSON"),
        pytest.param(b"{} x", ["body", 3], "json_invalid", id="JSON and more"),
        pytest.param(b"{}", ["body", "partial_path"], "missing", id="no member"),
        pytest.param(b"[]", ["body"], "model_attributes_type", id="list"),
        pytest.param(b'"x"', ["body"], "model_attributes_type", id="string"),
        pytest.param(b'{"partial_path": 5}', ["body", "partial_path"], "string_type", id="number"),
        pytest.param(b'{"partial_path": null}', ["body", "partial_path"], "string_type", id="nil"),
        pytest.param(b"[" * 60_000, ["body", 0], "json_invalid", id="deep"),
        pytest.param(b'{"partial_path":' * 4000, ["body", 0], "json_invalid", id="deep objects"),
        pytest.param(b'{"partial_path": "\xff"}', ["body", 0], "json_invalid", id="no UTF-8"),
        pytest.param(
            b'{"partial_path": "styles/\\ud800.pt"}', ["body", 0], "json_invalid", id="surrogate"
        ),
        pytest.param(b"9" * 5000, ["body", 0], "json_invalid", id="endless number"),
    ],
)
async def test_bodies_that_are_not_what_is_asked(
    server: Server, body: bytes, loc: list[Any], kind: str
) -> None:
    """Each is FastAPI's complaint, at FastAPI's place."""
    answer = await raw_call(server, "DELETE", LORA, body)

    assert (answer.status, answer.complaints) == (422, [(loc, kind)])


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        pytest.param("application/json", 404, id="JSON"),
        pytest.param("application/json; charset=utf-8", 404, id="with a charset"),
        pytest.param("application/merge-patch+json", 404, id="a kind of JSON"),
        pytest.param("text/plain", 422, id="text"),
        pytest.param("application/x-www-form-urlencoded", 422, id="form"),
        pytest.param("application/octet-stream", 422, id="bytes"),
    ],
)
async def test_only_json_is_read_as_json(server: Server, content_type: str, status: int) -> None:
    """What says that it is something else is refused as FastAPI does."""
    body = json.dumps({"partial_path": "styles/ink.safetensors"}).encode()
    headers = ADMIN | {"Content-Type": content_type}
    answer = await call(server, "DELETE", LORA, headers=headers, data=body)

    assert answer.status == status
    if status == 422:
        assert answer.json["detail"] == [
            {"loc": ["body"], "msg": NOT_AN_OBJECT, "type": "model_attributes_type"}
        ]


async def test_json_bodies_are_bounded(server: Server) -> None:
    """64 KiB are read, one more is a 413."""
    path = b'{"partial_path": "styles/ink.safetensors"}'
    fits = await raw_call(server, "DELETE", LORA, path.ljust(64 * 1024))
    over = await raw_call(server, "DELETE", LORA, path.ljust(65 * 1024))

    assert (fits.status, over.status) == (404, 413)
    assert over.json == {"detail": over.json["detail"]}


# --- look-up by content


async def test_look_up_by_content(server: Server) -> None:
    """Any token can ask whether bytes are here, and learns nothing else."""
    sha256 = (await stored(server))["sha256"]
    here = await call(server, "HEAD", f"{FILES}/sha256/{sha256.upper()}")
    absent = await call(server, "HEAD", f"{FILES}/sha256/{'0' * 64}")
    wrong = await call(server, "HEAD", f"{FILES}/sha256/{sha256[:-1]}")

    assert (here.status, absent.status, wrong.status) == (200, 404, 422)
    assert not any("ink" in value for value in here.headers.values())
    assert "Location" not in here.headers


# --- download


async def test_a_download_is_the_file(server: Server) -> None:
    """All bytes, as bytes, for whoever has the read scope."""
    await stored(server)
    answer = await call(server, "GET", INK, headers=ADMIN)

    assert (answer.status, answer.body) == (200, lora_bytes())
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Repr-Digest"] == digest_header(lora_bytes())


def digest_header(content: bytes) -> str:
    """Return a Repr-Digest (RFC 9530)."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


async def test_head_tells_what_get_would(server: Server) -> None:
    """HEAD has the headers of GET and no body."""
    await stored(server)
    head, get = await call(server, "HEAD", INK), await call(server, "GET", INK)
    same = ("Content-Length", "ETag", "Repr-Digest", "Content-Type", "Content-Disposition")

    assert (head.status, head.body) == (200, b"")
    assert {name: head.headers[name] for name in same} == {n: get.headers[n] for n in same}


@pytest.mark.parametrize(
    ("wanted", "part"),
    [
        pytest.param("bytes=0-9", slice(0, 10), id="first"),
        pytest.param("bytes=100-", slice(100, None), id="from the middle"),
        pytest.param("bytes=-5", slice(-5, None), id="last"),
        pytest.param("bytes=0-999999999", slice(0, None), id="more than there is"),
    ],
)
async def test_ranges(server: Server, wanted: str, part: slice) -> None:
    """A part comes as 206; its digest is still that of the whole."""
    await stored(server)
    answer = await call(server, "GET", INK, headers=ADMIN | {"Range": wanted})
    start, stop, _ = part.indices(len(lora_bytes()))

    assert (answer.status, answer.body) == (206, lora_bytes()[part])
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(lora_bytes())}"
    assert answer.headers["Repr-Digest"] == digest_header(lora_bytes())


async def test_a_range_behind_the_end(server: Server) -> None:
    """An unsatisfiable range is a 416 that tells the size."""
    await stored(server)
    answer = await call(server, "GET", INK, headers=ADMIN | {"Range": "bytes=999999-"})

    assert (answer.status, answer.body) == (416, b"")
    assert answer.headers["Content-Range"] == f"bytes */{len(lora_bytes())}"


async def test_conditional_requests(server: Server) -> None:
    """What the client has already is not sent again; what changed is."""
    await stored(server)
    now = (await call(server, "GET", INK)).headers
    statuses = {}
    for name, value in (
        ("If-None-Match", now["ETag"]),
        ("If-None-Match", '"other"'),
        ("If-Modified-Since", now["Last-Modified"]),
        ("If-Modified-Since", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("If-Match", '"other"'),
    ):
        answer = await call(server, "GET", INK, headers=ADMIN | {name: value})
        statuses[name, value == now.get("ETag") or value == now["Last-Modified"]] = answer.status
        assert (answer.body == lora_bytes()) is (answer.status == 200)

    assert statuses == {
        ("If-None-Match", True): 304,
        ("If-None-Match", False): 200,
        ("If-Modified-Since", True): 304,
        ("If-Modified-Since", False): 200,
        ("If-Match", False): 412,
    }


async def test_no_digest_of_a_file_changed_by_hand(server: Server) -> None:
    """A recorded digest that may no longer fit is not sent along."""
    await stored(server)
    (server.models / "styles" / "ink.safetensors").write_bytes(b"changed")
    answer = await call(server, "GET", INK)

    assert (answer.status, answer.body) == (200, b"changed")
    assert "Repr-Digest" not in answer.headers


async def test_no_digest_of_a_file_swapped_at_the_last_moment(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file put in the place of the one that was looked at is not sent in its name."""
    await stored(server)
    path = server.models / "styles" / "ink.safetensors"
    prepare = web.FileResponse.prepare

    async def swap_and_prepare(self: web.FileResponse, request: web.BaseRequest) -> Any:
        path.unlink()
        path.write_bytes(b"other")
        return await prepare(self, request)

    monkeypatch.setattr(web.FileResponse, "prepare", swap_and_prepare)
    answer = await call(server, "GET", INK)

    assert (answer.status, answer.body) == (404, b"")
    assert "Repr-Digest" not in answer.headers


async def test_a_file_removed_by_hand(server: Server) -> None:
    """A file that is gone from the tree is gone, before the catalogue knows."""
    await stored(server)
    (server.models / "styles" / "ink.safetensors").unlink()

    assert (await call(server, "GET", INK)).status == 404
    deletion = await call(server, "DELETE", LORA, partial_path="styles/ink.safetensors")
    assert deletion.status == 404


async def test_a_link_put_in_place_of_a_file(server: Server, tmp_path: Path) -> None:
    """A symbolic link is never followed out of the tree."""
    await stored(server)
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    path = server.models / "styles" / "ink.safetensors"
    path.unlink()
    path.symlink_to(secret)

    assert (await call(server, "GET", INK)).status == 404


@pytest.mark.parametrize(("suffix", "coding"), [(".gz", "gzip"), (".br", "br")])
async def test_a_neighbour_is_no_encoding_of_a_file(
    server: Server, suffix: str, coding: str
) -> None:
    """A file that happens to be called like a compressed one is never sent in its place."""
    await stored(server)
    (server.models / "styles" / f"ink.safetensors{suffix}").write_bytes(GARBAGE)
    answer = await call(server, "GET", INK, headers=ADMIN | {"Accept-Encoding": coding})

    assert answer.body == lora_bytes()
    assert "Content-Encoding" not in answer.headers


async def test_a_refused_file_is_listed_but_not_served(server: Server) -> None:
    """What was judged and refused stays where it is, and is not handed out."""
    await stored(server)
    lora = (await server.library.catalog.known_files()).popitem()[1]
    refused = Judgement(verdict=Verdict.REFUSED, summary={"code": "x"}, inspection=None)
    await server.library.catalog.set_judgements({lora.id: refused})

    assert (await call(server, "GET", INK)).status == 404
    assert await listing(server, "verdict=refused") == ["styles/ink.safetensors"]
    detail = await call(server, "GET", f"{LORA}/styles/ink.safetensors", headers=ADMIN | JSON)
    assert detail.json["verdict"] == "refused"
