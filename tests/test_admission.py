"""A client that waits for `100 Continue` gets its answer instead, when that is a refusal."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lora_server.store import Store
from tests.loras import lora
from tests.server import UPLOADER, Server, bearer, make_config, running
from tests.wire import (
    Answer,
    body,
    connected,
    file_part,
    head,
    left_nothing,
    part,
    until,
    upload,
)

FORM = "multipart/form-data; boundary="
WAITS = {"Expect": "100-continue", "Content-Length": "5000"}
MIB = 1024 * 1024
TEN_MIB = 10 * MIB


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def server(shared: Server) -> Server:
    """Use one server for the whole module."""
    return shared


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
        assert await connection.closed(within=1)


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


@pytest.mark.parametrize(("mebibytes", "status"), [(1, 200), (7, 507)])
async def test_what_is_written_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mebibytes: int, status: int
) -> None:
    """On a disk of 15 MiB, one upload of 8 of which 7 are written leaves room for one of 1."""
    staging = make_config(tmp_path).storage.staging_dir

    def used() -> int:
        return sum(path.stat().st_size for path in staging.glob("*.part"))

    async def free_bytes(_: Store) -> int:
        return 15 * MIB - await asyncio.to_thread(used)

    monkeypatch.setattr(Store, "free_bytes", free_bytes)
    async with running(make_config(tmp_path)) as server, connected(server) as connection:
        begun = body(file_part(content=lora(8 * MIB)))
        length = {"Content-Length": str(len(begun))}
        await connection.send(head(server, length), begun[: 7 * MIB])
        await until(lambda: used() > 6 * MIB)
        answer = await upload(server, body(file_part(content=lora(mebibytes * MIB))))
        await connection.send(begun[7 * MIB :])
        first = await connection.answer()

    assert (first.status, answer.status) == (200, status)


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
    assert set(answer.json) == {"detail"}
    assert "100-continue" in answer.json["detail"]


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
    expects["Content-Type"] = "application/json"
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
