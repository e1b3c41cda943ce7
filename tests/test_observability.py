"""What the log and the metrics tell, and what they never do."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.daemon import Daemon, serving
from tests.server import ADMIN, KEY, UPLOADER, Server, bearer
from tests.wire import WEIGHTS, Answer, body, connected, file_part, head, part, until, upload

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def daemon(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Daemon]:
    """Run one process for the whole module."""
    async with serving(tmp_path_factory.mktemp("daemon")) as running_daemon:
        yield running_daemon


@pytest.fixture
def server(shared: Server) -> Server:
    """Use one server for the whole module."""
    return shared


async def _told(daemon: Daemon, answer: Answer, event: str) -> dict[str, Any]:
    """Return the log line of this event that belongs to an answer's request."""
    async with asyncio.timeout(5):
        while True:
            for line in daemon.lines:
                if (line["event"], line.get("request_id")) == (
                    event,
                    answer.headers["x-request-id"],
                ):
                    return line
            await asyncio.sleep(0.01)


async def _call(daemon: Daemon, method: str, path: str, sent: dict[str, Any]) -> Answer:
    content = json.dumps(sent).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(content))}
    async with connected(daemon) as connection:
        await connection.send(head(daemon, headers, method=method, path=path), content)
        return await connection.answer()


async def test_the_life_of_a_file_is_audited(daemon: Daemon) -> None:
    """Upload, deletion, restoration and purge each tell who did what to which file."""
    stored = await upload(daemon, body(file_part(filename="audited.safetensors")))
    path = stored.json["partial_path"]
    gone = await _call(daemon, "DELETE", "/admin/lora", {"partial_path": path})
    bin_path = {"bin_path": gone.json["bin_path"]}
    back = await _call(daemon, "POST", "/admin/bin/restore", bin_path)
    again = await _call(daemon, "DELETE", "/admin/lora", {"partial_path": path})
    purged = await _call(daemon, "DELETE", "/admin/bin", bin_path)
    answers = {"upload": stored, "delete": gone, "restore": back, "purge": purged}
    lines = {action: await _told(daemon, answer, action) for action, answer in answers.items()}

    assert again.status == 200
    assert {line["status"] for line in lines.values()} == {200}
    assert {line["actor"] for line in lines.values()} == {"admin"}
    assert {line["remote"] for line in lines.values()} == {"127.0.0.1"}
    assert all(line["logger"] == "audit" and line["jti"] for line in lines.values())
    assert lines["upload"]["partial_path"] == path
    assert lines["upload"]["sha256"] == stored.json["sha256"] == lines["delete"]["sha256"]
    assert lines["upload"]["size"] == len(WEIGHTS)
    assert lines["restore"]["partial_path"] == path
    assert lines["purge"]["purged"] == [gone.json["bin_path"]]


@pytest.mark.parametrize(
    ("form", "headers", "status", "reason"),
    [
        pytest.param(body(file_part()), UPLOADER, 403, "Forbidden", id="scope"),
        pytest.param(body(file_part(filename="x.exe")), ADMIN, 415, "UnsupportedUpload", id="type"),
        pytest.param(body(file_part(content=b"")), ADMIN, 422, "lora_empty", id="empty"),
        pytest.param(body(), ADMIN, 422, "FieldInvalid", id="no-file"),
    ],
)
async def test_a_refusal_is_audited(
    daemon: Daemon, form: bytes, headers: dict[str, str], status: int, reason: str
) -> None:
    """A refused upload tells the outcome and the reason, and who it was once that is known."""
    answer = await upload(daemon, form, headers=headers)
    line = await _told(daemon, answer, "upload")

    assert (line["status"], line["reason"]) == (status, reason)
    assert status == 403 or line["actor"] == "admin"


async def test_a_failed_login_is_audited(daemon: Daemon) -> None:
    """A token that does not verify leaves a line with the reason and the address."""
    answer = await upload(daemon, body(file_part()), headers={"Authorization": "Bearer a.b.c"})
    line = await _told(daemon, answer, "login.failed")

    assert line["logger"] == "audit"
    assert line["reason"]
    assert line["remote"] == "127.0.0.1"


async def test_no_secret_is_ever_logged(daemon: Daemon) -> None:
    """Neither a token, good or bad, nor the key shows up in any line, however it was sent."""
    secrets = ["S3CR3T." * 3, "S3CR3T" * 2000, "S3CR3T\x00", "S3CR3T\x7f\x80"]
    for secret in secrets:
        async with connected(daemon) as connection:
            await connection.send(head(daemon, {"Authorization": f"Bearer {secret}"}))
            await connection.answer()
    async with connected(daemon) as connection:
        await connection.send(head(daemon, method="GET", path="/admin/lora?token=S3CR3T"))
        await connection.answer()
    good = await upload(daemon, body(file_part()), headers=bearer("secretive", "admin"))
    await _told(daemon, good, "upload")
    logged = json.dumps(daemon.lines)

    assert "S3CR3T" not in logged
    assert "eyJ" not in logged  # how every JWT begins
    assert str(KEY.material) not in logged


NAMES = ["a%0D%0A{}.safetensors", "a\u2028b\u0085c\u202e.safetensors"]


@pytest.mark.parametrize("filename", NAMES)
async def test_a_name_cannot_forge_a_line(daemon: Daemon, filename: str) -> None:
    """Line breaks in a name stay within the JSON line that tells of it."""
    stored = await upload(daemon, body(file_part(filename=filename)))
    wanted = {"partial_path": 'styles/a\n{"event": "forged"}\n.pt'}
    refused = await _call(daemon, "DELETE", "/admin/lora", wanted)
    line = await _told(daemon, refused, "delete")

    assert stored.status == 200
    assert line["partial_path"] == wanted["partial_path"]
    assert all("timestamp" in line for line in daemon.lines)


_LOGS_IN_TEXT = """
import structlog
from lora_server import config, logs
logs.configure(config.LoggingConfig(format="text"))
structlog.get_logger("audit").info("delete", partial_path="a\\nforged\\x1b[2J\\u2028.pt")
"""


async def test_a_name_cannot_reach_the_terminal() -> None:
    """In text, too, control sequences and line breaks of a client are shown and not sent."""
    command = (sys.executable, "-c", _LOGS_IN_TEXT)
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    logged = (await process.communicate())[1].decode()

    assert "forged" in logged
    assert len(logged.splitlines()) == 1
    assert "\x1b" not in logged


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"X-Request-ID": "abc-1.2_3"}, "abc-1.2_3"),
        ({"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}, "a" * 32),
        ({"X-Request-ID": "abc", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}, "abc"),
        ({"X-Request-ID": "x" * 65}, None),
        ({"X-Request-ID": "a b"}, None),
        ({"X-Request-ID": "a\tb"}, None),
        ({"traceparent": f"00-{'0' * 32}-{'b' * 16}-01"}, None),
        ({"traceparent": "nonsense"}, None),
        ({}, None),
    ],
)
async def test_a_request_has_one_id(
    daemon: Daemon, headers: dict[str, str], expected: str | None
) -> None:
    """A sane id of the client is kept, that of its trace is taken, else there is a new one."""
    async with connected(daemon) as connection:
        await connection.send(head(daemon, headers, method="GET", path="/admin/lora"))
        answer = await connection.answer()
    given = answer.headers["x-request-id"]
    line = await _told(daemon, answer, "request")

    assert given == expected if expected else given not in headers.values()
    assert (line["method"], line["status"]) == ("GET", 200)
    assert line["route"].endswith("/admin/lora")


async def _metrics(server: Server) -> dict[str, float]:
    async with server.session.get(f"{server.origin}/metrics") as response:
        lines = (await response.text()).splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


async def test_the_metrics_move(server: Server) -> None:
    """Uploads, refusals, bytes and requests are counted, and what is in flight is known."""
    async with connected(server) as connection:
        before = await _metrics(server)
        await connection.send(head(server, {"Content-Length": "99"}))
        await until(lambda: server.in_flight == 1)
        during = await _metrics(server)
    await upload(server, body(part("entity_type", "styles"), file_part()))
    await upload(server, body(file_part(filename="x.exe")))
    after = await _metrics(server)
    moved = {name: value - before.get(name, 0) for name, value in after.items()}

    assert during["lora_uploads_in_flight"] == 1
    assert after["lora_uploads_in_flight"] == 0
    assert moved['lora_uploads_total{result="stored"}'] == 1
    assert moved['lora_uploads_total{result="refused"}'] >= 1
    assert moved["lora_upload_bytes_total"] == len(WEIGHTS)
    assert moved['lora_refusals_total{reason="UnsupportedUpload"}'] == 1
    assert moved['lora_upload_stage_seconds_count{stage="receive"}'] >= 1
    assert after["lora_storage_free_bytes"] > 0
    labels = 'method="POST",route="/api/v1/admin/lora/upload",status="200"'
    assert moved[f"http_server_request_duration_seconds_count{{{labels}}}"] == 1


async def test_strangers_cannot_grow_the_metrics(server: Server) -> None:
    """Paths and methods that are none of ours share one series."""
    for method in ("GET", "POST", "PURGE", "LOCK", "PROPFIND", "OPTIONS"):
        for path in ("nowhere", "no/where", "livez", "api/v1/lora/upload"):
            async with aiohttp.request(method, f"{server.origin}/{path}") as response:
                assert response.status in {200, 401, 404, 405}

    names = "".join(await _metrics(server))
    assert 'method="other",route="none",status="404"' in names
    assert "PURGE" not in names
    assert "where" not in names
