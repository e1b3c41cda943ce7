"""What is decided on the head of an upload, and that the answer reaches every client."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests

from lora_server.errors import (
    LoraServerError,
    MalformedUpload,
    StorageFull,
    TooManyUploads,
    UnsupportedUpload,
    UploadTooLarge,
)
from lora_server.web.admission import Head, Room, UploadSlots, admit
from lora_server.web.uploads import FRAMING_BYTES
from tests.server import UPLOADER, Server, bearer, form, make_config, running
from tests.wire import (
    Answer,
    body,
    chunked,
    connected,
    file_part,
    head,
    left_nothing,
    part,
    until,
    upload,
)

FORM = "multipart/form-data; boundary="
ROOM = Room(max_file_bytes=1000, free=FRAMING_BYTES * 2, promised=0, reserve=100)
CAP = 1000 + FRAMING_BYTES
WAITS = {"Expect": "100-continue", "Content-Length": "5000"}
TEN_MIB = 10 * 1024 * 1024


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        pytest.param(FORM + "abc", "abc", id="plain"),
        pytest.param(FORM + '"a b:c"', "a b:c", id="quoted"),
        pytest.param(FORM + "----=_Part/1?", "----=_Part/1?", id="odd"),
        pytest.param(FORM + "x" * 70, "x" * 70, id="longest"),
        pytest.param("Multipart/Form-Data;Boundary=abc; charset=utf-8", "abc", id="case"),
    ],
)
def test_a_good_head_gives_its_boundary(content_type: str, boundary: str) -> None:
    """What clients send as a boundary is understood."""
    assert admit(Head(content_type, "", 500), ROOM) == boundary


@pytest.mark.parametrize(
    ("head_", "error"),
    [
        pytest.param(Head("", "", 5), UnsupportedUpload, id="no-type"),
        pytest.param(Head("application/octet-stream", "", 5), UnsupportedUpload, id="raw"),
        pytest.param(Head("multipart/mixed; boundary=a", "", 5), UnsupportedUpload, id="mixed"),
        pytest.param(Head("multipart/form-data-x; boundary=a", "", 5), UnsupportedUpload, id="x"),
        pytest.param(Head(FORM + "a", "gzip", 5), UnsupportedUpload, id="gzip"),
        pytest.param(Head(FORM + "a", "identity, gzip", 5), UnsupportedUpload, id="two-codings"),
        pytest.param(Head("multipart/form-data", "", 5), MalformedUpload, id="no-boundary"),
        pytest.param(Head(FORM, "", 5), MalformedUpload, id="empty"),
        pytest.param(Head(FORM + "a; boundary=b", "", 5), MalformedUpload, id="double"),
        pytest.param(Head(FORM + "x" * 71, "", 5), MalformedUpload, id="71"),
        pytest.param(Head(FORM + "a b", "", 5), MalformedUpload, id="unquoted-space"),
        pytest.param(Head(FORM + '"a ', "", 5), MalformedUpload, id="unclosed"),
        pytest.param(Head(FORM + '"a "', "", 5), MalformedUpload, id="ends-in-space"),
        pytest.param(Head(FORM + 'a"b', "", 5), MalformedUpload, id="stray-quote"),
        pytest.param(Head(FORM + "ä", "", 5), MalformedUpload, id="not-ascii"),
        pytest.param(Head(FORM + "a", "", CAP + 1), UploadTooLarge, id="too-large"),
        pytest.param(Head(FORM + "a", "", 10**30), UploadTooLarge, id="absurd"),
    ],
)
def test_a_bad_head_is_refused(head_: Head, error: type[LoraServerError]) -> None:
    """Each rule of the head has its own refusal."""
    with pytest.raises(error):
        admit(head_, ROOM)


@pytest.mark.parametrize(
    ("free", "promised", "length", "fits"),
    [
        pytest.param(600, 0, 500, True, id="just"),
        pytest.param(599, 0, 500, False, id="one-less"),
        pytest.param(1100, 500, 500, True, id="beside-another"),
        pytest.param(1099, 500, 500, False, id="promised-to-another"),
        pytest.param(1100, 0, None, True, id="chunked"),
        pytest.param(1099, 0, None, False, id="chunked-may-be-largest"),
    ],
)
def test_the_reserve_is_kept(free: int, promised: int, length: int | None, *, fits: bool) -> None:
    """What other uploads may still write counts, and so does a length that nobody told."""
    room = Room(max_file_bytes=1000, free=free, promised=promised, reserve=100)
    if fits:
        assert admit(Head(FORM + "a", "", length), room) == "a"
    else:
        with pytest.raises(StorageFull):
            admit(Head(FORM + "a", "", length), room)


@pytest.mark.timeout(5)
@pytest.mark.parametrize("junk", [";", "; ", "; a", ';a="', ';a="\\', "; a=b", ' ;a="b"c'])
def test_no_header_is_slow_to_read(junk: str) -> None:
    """A header of the largest size is judged in no time, whatever it is made of."""
    with pytest.raises(LoraServerError):
        admit(Head("multipart/form-data" + junk * (8000 // len(junk)), "", 5), ROOM)


def test_a_slot_is_free_again_however_it_ended() -> None:
    """Slots count per principal and in all, and so do the bytes promised to them."""
    slots = UploadSlots(total=2, per_principal=1)
    with slots.taken("ann", 10), pytest.raises(TooManyUploads) as mine, slots.taken("ann", 10):
        pytest.fail("a second slot for ann")
    with slots.taken("ann", 10), slots.taken("bob", 5):
        promised = slots.promised
        with pytest.raises(TooManyUploads) as all_, slots.taken("cid", 10):
            pytest.fail("a third slot")
    with pytest.raises(KeyError), slots.taken("ann", 10):
        raise KeyError

    assert (mine.value.of_principal, all_.value.of_principal) == (True, False)
    assert (promised, slots.promised) == (15, 0)
    with slots.taken("ann", 10):
        assert slots.promised == 10


# What is wrong with the head, and the status that says so.
REFUSALS = [
    pytest.param({"Authorization": ""}, 401, id="no-token"),
    pytest.param({"Authorization": "Bearer nonsense"}, 401, id="bad-token"),
    pytest.param(UPLOADER, 403, id="wrong-scope"),
    pytest.param({"Content-Type": "application/json"}, 415, id="wrong-type"),
    pytest.param({"Content-Type": ""}, 415, id="no-type"),
    pytest.param({"Content-Encoding": "gzip"}, 415, id="gzip"),
    pytest.param({"Content-Type": "multipart/form-data"}, 422, id="no-boundary"),
    pytest.param({"Content-Type": FORM + "a; boundary=b"}, 422, id="two-boundaries"),
    pytest.param({"Content-Type": FORM + "x" * 71}, 422, id="long-boundary"),
    pytest.param({"Content-Length": str(600 * 1024 * 1024)}, 413, id="too-large"),
]


@pytest.mark.parametrize(("headers", "status"), REFUSALS)
async def test_a_client_that_waits_is_never_asked_for_the_body(
    server: Server, headers: dict[str, str], status: int
) -> None:
    """The final answer comes instead of 100, and not a byte of the body is needed."""
    async with connected(server) as connection:
        await connection.send(head(server, WAITS | headers))
        answer = await connection.answer()

        assert (answer.status, answer.interim) == (status, 0)
        assert answer.headers["connection"] == "close"
        assert answer.json["detail"]
        assert await connection.closed(within=4)


async def _refused(server: Server, headers: dict[str, str]) -> tuple[Answer, Answer]:
    """Send a good upload with and without waiting; return both answers."""
    async with connected(server) as waiting:
        await waiting.send(head(server, WAITS | headers))
        first = await waiting.answer()
    return first, await upload(server, body(file_part()), headers=headers)


async def test_a_full_disk_is_507(tmp_path: Path) -> None:
    """With less free space than the reserve, nothing is taken in."""
    config = make_config(tmp_path, storage={"min_free_space": 10**18})
    async with running(config) as server:
        answers = await _refused(server, {})

        assert [(answer.status, answer.interim) for answer in answers] == [(507, 0)] * 2
        assert await left_nothing(server)


@asynccontextmanager
async def _uploading(server: Server, headers: dict[str, str]) -> AsyncIterator[None]:
    """Have an upload in flight during the block."""
    async with connected(server) as connection:
        before = server.in_flight
        await connection.send(head(server, headers | {"Content-Length": "99"}))
        await until(lambda: server.in_flight > before)
        yield
    await until(lambda: server.in_flight == before)


@pytest.mark.parametrize(
    ("limit", "status"), [("max_uploads_per_principal", 429), ("max_concurrent_uploads", 503)]
)
async def test_too_many_uploads_are_turned_away(tmp_path: Path, limit: str, status: int) -> None:
    """A principal over its share gets 429, anyone on a full server 503; both may come again."""
    async with running(make_config(tmp_path, server={limit: 1})) as server:
        async with _uploading(server, {}):
            answers = await _refused(server, {})
            other = await upload(server, body(file_part()), headers=bearer("other", "admin"))
        after = await upload(server, body(file_part()))

    assert [(answer.status, answer.interim) for answer in answers] == [(status, 0)] * 2
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
    assert other.status == (200 if status == 429 else 503)
    assert after.status == 200


async def test_a_good_upload_is_asked_for_once(server: Server) -> None:
    """A client that waits gets exactly one 100, then its 200, and the connection stays."""
    content = body(part("entity_type", "styles"), file_part())
    async with connected(server) as connection:
        for _ in range(2):
            expects = {"Expect": "100-Continue", "Content-Length": str(len(content))}
            await connection.send(head(server, expects))
            assert (
                await connection.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            )
            await connection.send(content)
            answer = await connection.answer()
            assert (answer.status, answer.interim) == (200, 0)


@pytest.mark.parametrize("expectation", ["nonsense", "100-continue, more", "100-continue;x"])
@pytest.mark.parametrize("path", ["/admin/lora/upload", "/admin/bin/restore"])
async def test_another_expectation_is_417(server: Server, expectation: str, path: str) -> None:
    """An expectation that cannot be met is refused in the usual shape, also after the body."""
    content = b"x" * TEN_MIB
    async with connected(server) as connection:
        headers = {"Expect": expectation, "Content-Length": str(len(content))}
        await connection.send(head(server, headers, path=path), content)
        answer = await connection.answer()

    assert (answer.status, answer.interim) == (417, 0)
    assert answer.json == {"detail": "Expectation Failed"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/nowhere", 404),
        ("PUT", "/admin/lora/upload", 405),
        ("GET", "/admin/lora", 200),
        ("POST", "/admin/bin/restore", 413),
    ],
)
async def test_no_other_path_asks_in_vain(
    server: Server, method: str, path: str, status: int
) -> None:
    """Where no body is wanted, or so large a one, the final answer comes instead of 100."""
    headers = {"Expect": "100-continue", "Content-Length": str(TEN_MIB)}
    async with connected(server) as connection:
        await connection.send(head(server, headers, method=method, path=path))
        answer = await connection.answer()

    assert (answer.status, answer.interim) == (status, 0)


async def test_a_json_body_is_asked_for(server: Server) -> None:
    """`Expect` is understood on JSON routes too: one 100, then the answer."""
    content = b'{"partial_path": "styles/none.pt"}'
    expects = {"Expect": "100-continue", "Content-Length": str(len(content))}
    async with connected(server) as connection:
        await connection.send(head(server, expects, method="DELETE", path="/admin/lora"))
        assert await connection.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await connection.send(content)
        answer = await connection.answer()

    assert answer.status == 404


async def test_http_1_0_knows_no_100(server: Server) -> None:
    """A client of HTTP/1.0 gets its answer alone."""
    content = body(file_part())
    headers = {"Expect": "100-continue", "Content-Length": str(len(content))}
    async with connected(server) as connection:
        await connection.send(head(server, headers, version="1.0"), content)
        answer = await connection.answer()

    assert (answer.status, answer.interim) == (200, 0)


BAD = {"Authorization": "Bearer nonsense"}


def _curl(url: str, file: Path) -> tuple[int, str]:
    """Upload with curl, not waiting for a 100; returns status and body."""
    command = ["curl", "--silent", "--show-error", "--header", "Expect:", "--form", f"file=@{file}"]
    command += [
        "--header",
        f"Authorization: {BAD['Authorization']}",
        "--write-out",
        "\n%{http_code}",
    ]
    done = subprocess.run([*command, url], capture_output=True, text=True, timeout=30, check=True)
    answer, _, status = done.stdout.rpartition("\n")
    return int(status), answer


def _requests(url: str, file: Path) -> tuple[int, str]:
    with file.open("rb") as content:
        answer = requests.post(url, files={"file": content}, headers=BAD, timeout=30)
    return answer.status_code, answer.text


def _httpx(url: str, file: Path) -> tuple[int, str]:
    with file.open("rb") as content:
        answer = httpx.post(url, files={"file": content}, headers=BAD, timeout=30)
    return answer.status_code, answer.text


@pytest.mark.parametrize("client", [_curl, _requests, _httpx])
async def test_a_client_that_does_not_wait_reads_its_answer(
    server: Server, tmp_path: Path, client: Any
) -> None:
    """Ten mebibytes sent in vain do not keep the refusal from being read in full."""
    file = tmp_path / "large.pt"
    file.write_bytes(bytes(TEN_MIB))
    status, answer = await asyncio.to_thread(client, f"{server.api}/lora/upload", file)

    assert status == 401
    assert answer.endswith('that is valid."}')


async def test_aiohttp_reads_its_answer(server: Server) -> None:
    """The framework's own client reads a refusal too."""
    data = form(BytesIO(bytes(TEN_MIB)))
    async with server.session.post(f"{server.api}/lora/upload", data=data, headers=BAD) as response:
        assert response.status == 401
        assert "detail" in await response.json()


@pytest.mark.parametrize("headers", [{"Content-Length": "40000"}, {"Transfer-Encoding": "chunked"}])
async def test_a_slow_client_reads_its_answer(server: Server, headers: dict[str, str]) -> None:
    """A client that is still sending when the answer comes reads it in full."""
    piece = b"3e8\r\n" + b"x" * 1000 + b"\r\n"
    async with connected(server) as connection:
        await connection.send(head(server, headers | BAD))
        await connection.send(*[piece] * 10, pause=0.02)
        answer = await connection.answer()

    assert answer.status == 401
    assert answer.json["detail"]


async def test_a_client_that_goes_on_is_cut_off(server: Server) -> None:
    """Whoever sends more than 16 MiB after the answer, or for over 2 s, is disconnected."""
    loop = asyncio.get_running_loop()
    async with connected(server) as fast, connected(server) as slow:
        await fast.send(head(server, BAD | {"Content-Length": str(10**8)}))
        await slow.send(head(server, BAD | {"Content-Length": str(10**8)}), b"x")
        began = loop.time()
        with pytest.raises(ConnectionError):
            await fast.send(*[bytes(TEN_MIB)] * 10)
        fast_s = loop.time() - began
        await slow.answer()

        assert fast_s < 2
        assert await slow.closed(within=3)


@pytest.mark.parametrize("in_chunks", [False, True], ids=["length", "chunked"])
async def test_the_cap_is_exact(tmp_path: Path, *, in_chunks: bool) -> None:
    """A file of exactly the cap passes, one byte more is a 413 that leaves nothing."""
    async with running(make_config(tmp_path, storage={"max_file_size": 100_000})) as server:

        async def send(size: int) -> int:
            content = body(file_part(bytes(size)), part("note", "x" * 60_000))
            if not in_chunks:
                return (await upload(server, content)).status
            async with connected(server) as connection:
                await connection.send(head(server, {"Transfer-Encoding": "chunked"}))
                await connection.send(chunked([content[:50_000], content[50_000:]]))
                return (await connection.answer()).status

        assert await send(100_001) == 413
        assert await left_nothing(server)
        assert await send(100_000) == 200


async def test_the_framing_is_capped_too(tmp_path: Path) -> None:
    """What surrounds the file is bounded, also where no length was announced."""
    async with running(make_config(tmp_path, storage={"max_file_size": 1000})) as server:
        # A file part that is refused only for its size keeps all else from being the reason.
        flood = chunked([file_part(), *[part("note", b"x" * 60_000)] * 50])
        announced = await upload(server, bytes(1000 + FRAMING_BYTES + 1))
        async with connected(server) as connection:
            await connection.send(head(server, {"Transfer-Encoding": "chunked"}), flood)
            answer = await connection.answer()

        assert announced.status == 413
        assert answer.status == 422  # sixteen fields of 64 KiB never fill the framing
        assert await left_nothing(server)


@pytest.mark.long
async def test_the_default_cap_is_500_mib(server: Server) -> None:
    """524,288,000 bytes pass with the settings as they come; one more does not."""

    async def send(size: int) -> int:
        opening, closing = file_part(b"").removesuffix(b"\r\n"), b"\r\n" + body()
        async with connected(server) as connection:
            length = {"Content-Length": str(len(opening) + size + len(closing))}
            await connection.send(head(server, length), opening)
            block = bytes(1024 * 1024)
            await connection.send(
                *[block] * (size // len(block)), bytes(size % len(block)), closing
            )
            return (await connection.answer(within=60)).status

    assert await send(524_288_001) == 413
    assert await left_nothing(server)
    assert await send(524_288_000) == 200
    assert [path.stat().st_size for path in server.files()] == [524_288_000]
