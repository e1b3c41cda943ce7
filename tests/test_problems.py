"""Errors on the wire: status, shape, headers, and how little of the request comes back."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster

from lora_server import errors
from lora_server.errors import Complaint, LoraServerError
from lora_server.web import problems
from lora_server.web.keys import METRICS
from tests.calls import API, BIN, FILES, JSON, LORA, Answer, call, raw_call
from tests.server import ADMIN, UPLOADER, Server, bearer, form, make_config, running


def heirs(kind: type[LoraServerError]) -> Iterator[type[LoraServerError]]:
    """Yield every subclass, however deep."""
    for heir in kind.__subclasses__():
        yield heir
        yield from heirs(heir)


ONE_OF_EACH: tuple[LoraServerError, ...] = (
    errors.Unauthenticated("why", token_sent=True),
    errors.Forbidden("admin"),
    errors.TooManyFailures(60),
    errors.TooManyUploads(3, of_principal=True),
    errors.UploadTooLarge(5),
    errors.UploadStalled("No data came"),
    errors.UploadCut("The connection was lost."),
    errors.MalformedUpload("no boundary"),
    errors.UnsupportedUpload("Not taken."),
    errors.StorageFull(),
    errors.StorageUnusable("/dev/sda1 is on fire"),
    errors.CatalogUnusable("/var/lib is on fire"),
    errors.JudgeUnavailable("/usr is on fire"),
    errors.FieldsInvalid(Complaint(("query", "limit"), "wrong", "int_parsing")),
    errors.FieldInvalid(("body", "file"), "wrong", "missing"),
    errors.FileRefused("lora_corrupt", "byte 8 is wrong"),
    errors.LoraNotFound(),
    errors.NameTaken("styles/ink.safetensors"),
    errors.MovedMeanwhile("styles/ink.safetensors"),
    errors.EvaluationNotFound(),
    errors.EvaluationQueueFull(3),
    errors.EvaluatorUnavailable("no worker answers"),
    errors.ReportInvalid("schema 9"),
    errors.ShuttingDown(),
)
AS_PARAMS = [pytest.param(error, id=type(error).__name__) for error in ONE_OF_EACH]


def told(error: LoraServerError) -> dict[str, object]:
    """Return the body of an answer."""
    body = problems.answer(error).body
    assert isinstance(body, bytes)
    return dict(json.loads(body))


def test_every_error_has_a_status() -> None:
    """No error of the domain reaches the edge without a status, and no row is left over."""
    assert set(heirs(LoraServerError)) == set(problems.STATUS)


def test_every_error_is_looked_at_here() -> None:
    """The claims below hold for all errors."""
    assert {type(error) for error in ONE_OF_EACH} == set(problems.STATUS)


@pytest.mark.parametrize("error", AS_PARAMS)
def test_bodies_have_fastapis_shape(error: LoraServerError) -> None:
    """A 422 lists complaints; everything else says one sentence."""
    answer = problems.answer(error)
    body = told(error)

    assert answer.headers["Content-Type"] == "application/json"
    assert set(body) == {"detail"}
    if answer.status == 422:
        assert isinstance(body["detail"], list)
        assert [set(item) for item in body["detail"]] == [{"loc", "msg", "type"}]
    else:
        assert body["detail"] == str(error)


@pytest.mark.parametrize("error", AS_PARAMS)
def test_only_who_may_come_back_is_told_when(error: LoraServerError) -> None:
    """429 and 503 carry Retry-After in whole seconds, and nothing else does."""
    answer = problems.answer(error)

    assert ("Retry-After" in answer.headers) is (answer.status in (429, 503))
    assert int(answer.headers.get("Retry-After", "1")) > 0


@pytest.mark.parametrize(
    ("error", "status", "header", "value"),
    [
        pytest.param(
            errors.Unauthenticated("", token_sent=False),
            401,
            "WWW-Authenticate",
            "Bearer",
            id="no token",
        ),
        pytest.param(
            errors.Unauthenticated("", token_sent=True),
            401,
            "WWW-Authenticate",
            'Bearer error="invalid_token"',
            id="bad token",
        ),
        pytest.param(
            errors.Forbidden("read"),
            403,
            "WWW-Authenticate",
            'Bearer error="insufficient_scope", scope="read"',
            id="scope",
        ),
        pytest.param(errors.TooManyFailures(60), 429, "Retry-After", "60", id="logins"),
        pytest.param(
            errors.TooManyUploads(1, of_principal=True), 429, "Retry-After", "5", id="principal"
        ),
        pytest.param(
            errors.TooManyUploads(1, of_principal=False), 503, "Retry-After", "5", id="server"
        ),
    ],
)
def test_headers_say_what_to_do(
    error: LoraServerError, status: int, header: str, value: str
) -> None:
    """Challenges follow RFC 6750; a full server is a 503, a greedy principal a 429."""
    answer = problems.answer(error)

    assert (answer.status, answer.headers[header]) == (status, value)


def test_what_the_operator_must_know_is_not_for_clients() -> None:
    """Why the disk or the database failed, and why a token did not verify, stays in the log."""
    assert "fire" not in str(told(errors.StorageUnusable("/dev/sda1 is on fire")))
    assert "fire" not in str(told(errors.CatalogUnusable("/var/lib is on fire")))
    assert "fire" not in str(told(errors.StorageFull("/var/lib is on fire")))
    assert "kid" not in str(told(errors.Unauthenticated("unknown kid", token_sent=True)))


async def test_an_unknown_error_is_a_bare_500(
    server: Server, monkeypatch: pytest.MonkeyPatch, blockbuster: BlockBuster
) -> None:
    """A bug is answered without a word about it."""
    blockbuster.deactivate()  # the log's traceback reads source files

    async def broken(*_: object) -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(server.library.catalog, "page", broken)
    answer = await call(server, "GET", LORA)

    assert (answer.status, set(answer.json)) == (500, {"detail"})
    assert "tell the operator" in answer.json["detail"]
    assert "secret" not in answer.json["detail"]


async def test_no_token(server: Server) -> None:
    """The challenge has no error code where no token was sent."""
    answer = await call(server, "GET", LORA, headers={})

    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize(
    ("value", "challenge"),
    [
        pytest.param("Basic YTpi", "Bearer", id="other scheme"),
        pytest.param("Bearer", "Bearer", id="no token"),
        pytest.param("Bearer x.y.z", 'Bearer error="invalid_token"', id="no JWT"),
        pytest.param(
            bearer(scope="admin")["Authorization"] + "x",
            'Bearer error="invalid_token"',
            id="wrong signature",
        ),
    ],
)
async def test_bad_tokens(server: Server, value: str, challenge: str) -> None:
    """Whatever is wrong with a token, the answer is the same 401."""
    answer = await call(server, "GET", LORA, headers={"Authorization": value})

    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, challenge)


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        pytest.param(LORA, {"GET", "DELETE"}, id="library"),
        pytest.param(f"{LORA}/move", {"POST"}, id="move"),
        pytest.param(f"{LORA}/upload", {"POST"}, id="admin upload"),
        pytest.param(f"{LORA}/styles/ink.safetensors", {"GET", "PATCH"}, id="detail"),
        pytest.param(f"{FILES}/styles/ink.safetensors", {"GET", "HEAD"}, id="download"),
        pytest.param(f"{FILES}/sha256/{'0' * 64}", {"HEAD"}, id="look-up"),
        pytest.param(f"{FILES}/upload", {"POST"}, id="upload"),
        pytest.param(BIN, {"GET", "DELETE"}, id="bin"),
        pytest.param(f"{BIN}/restore", {"POST"}, id="restore"),
        pytest.param("/livez", {"GET"}, id="livez"),
        pytest.param("/docs/start.js", {"GET"}, id="docs"),
    ],
)
async def test_other_methods_are_told_which_there_are(
    server: Server, path: str, allow: set[str]
) -> None:
    """A known path answers any other method with 405 and the whole list, also to OPTIONS."""
    methods = {"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"} - allow
    answers = [await call(server, method, path) for method in methods]

    assert {answer.status for answer in answers} == {405}
    assert all(set(answer.headers["Allow"].split(",")) == allow for answer in answers)
    assert {answer.headers["Content-Type"] for answer in answers} == {"application/json"}
    assert all("Allow header" in answer.json["detail"] for answer in answers if answer.body)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/", id="root"),
        pytest.param(API, id="base path"),
        pytest.param(f"{LORA}/", id="trailing slash"),
        pytest.param("/livez/", id="trailing slash of a probe"),
        pytest.param(f"{FILES}/styles", id="only a type"),
        pytest.param(f"{FILES}/styles/a/b", id="too deep"),
        pytest.param(f"{API}/evaluation/x/y", id="nothing of an evaluation"),
        pytest.param("/evaluation", id="outside the base path"),
        pytest.param("/docs/../../etc/passwd", id="traversal"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
async def test_unknown_paths(server: Server, method: str, path: str) -> None:
    """What is not there is a 404 for every method, whoever asks."""
    answer = await call(server, method, path, headers={})

    assert (answer.status, set(answer.json)) == (404, {"detail"})
    assert "/openapi.json lists" in answer.json["detail"]
    assert answer.headers["Content-Type"] == "application/json"


async def test_an_unknown_expectation(server: Server) -> None:
    """A 417 has the shape of the other errors."""
    answer = await call(server, "GET", LORA, headers=ADMIN | {"Expect": "a miracle"})

    assert (answer.status, set(answer.json)) == (417, {"detail"})
    assert "100-continue" in answer.json["detail"]


LONG = "x" * 3000
ECHOES: tuple[tuple[str, Callable[[Server], object]], ...] = (
    ("query name", lambda server: call(server, "GET", f"{LORA}?{LONG}=1")),
    ("query twice", lambda server: call(server, "GET", f"{LORA}?{LONG}=1&{LONG}=2")),
    ("query value", lambda server: call(server, "GET", f"{LORA}?sort={LONG}")),
    ("path", lambda server: call(server, "GET", f"{LORA}/styles/{LONG}")),
    ("digest", lambda server: call(server, "HEAD", f"{FILES}/sha256/{LONG}")),
    ("JSON name", lambda server: raw_call(server, "POST", f"{LORA}/move", named(LONG))),
    ("JSON value", lambda server: call(server, "DELETE", LORA, partial_path=LONG)),
    ("bin path", lambda server: call(server, "DELETE", BIN, bin_path=f"/{LONG}")),
    ("method", lambda server: call(server, "PUT", f"/{LONG}")),
    (
        "form field",
        lambda server: call(
            server, "POST", f"{FILES}/upload", data=form(b"x", entity_type=LONG), headers=UPLOADER
        ),
    ),
    (
        "file name",
        lambda server: call(
            server, "POST", f"{FILES}/upload", data=form(b"x", LONG), headers=UPLOADER
        ),
    ),
)


def named(name: str) -> bytes:
    """Return a JSON object with one member that nobody knows."""
    return json.dumps({name: 1}).encode()


@pytest.mark.parametrize("send", [pytest.param(send, id=name) for name, send in ECHOES])
async def test_errors_echo_little(server: Server, send: Callable[[Server], object]) -> None:
    """However long what the client sent, the answer stays short."""
    answer = await asyncio.ensure_future(send(server))  # type: ignore[call-overload]

    assert isinstance(answer, Answer)
    assert answer.status >= 400
    assert len(answer.body) < 1000
    assert b"x" * 100 not in answer.body


async def test_what_is_echoed_is_escaped(server: Server) -> None:
    """Markup and controls of the client come back as JSON's escapes, with a JSON type."""
    answer = await raw_call(server, "POST", f"{LORA}/move", named("<b>\u0000\u0007"))

    assert answer.complaints[-1] == (["body", "<b>\u0000\u0007"], "extra_forbidden")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert b"\x00" not in answer.body


async def test_a_body_that_breaks_off(server: Server) -> None:
    """A client that hangs up inside a JSON body harms nothing, and is no bug to report."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head = f"DELETE {LORA} HTTP/1.1\r\nHost: x\r\nAuthorization: {ADMIN['Authorization']}\r\n"
    writer.write(f"{head}Content-Type: application/json\r\nContent-Length: 50\r\n\r\n{{".encode())
    await writer.drain()
    writer.write_eof()
    await reader.read()
    writer.close()

    refusals = server.app[METRICS].refusals.labels("UploadCut")
    assert refusals._value.get() == 1  # noqa: SLF001 - the client library has no other reader


async def test_a_json_body_that_never_comes(tmp_path: Path) -> None:
    """Waiting for a JSON body ends in a 408."""
    config = make_config(tmp_path, server={"upload_idle_timeout": 0.05})
    head = f"DELETE {LORA} HTTP/1.1\r\nHost: x\r\nAuthorization: {ADMIN['Authorization']}\r\n"
    async with running(config) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(f"{head}Content-Length: 50\r\n\r\n".encode())

        assert (await reader.readline()).startswith(b"HTTP/1.1 408")
        writer.close()


async def test_no_charset_on_json(server: Server) -> None:
    """JSON is application/json, exactly, in answers and refusals alike."""
    kinds = {
        (await call(server, method, path, headers=headers)).headers["Content-Type"]
        for method, path, headers in (
            ("GET", LORA, ADMIN),
            ("GET", LORA, {}),
            ("GET", f"{LORA}?limit=0", ADMIN),
            ("DELETE", LORA, ADMIN | JSON),
            ("GET", "/livez", {}),
            ("GET", "/openapi.json", {}),
        )
    }

    assert kinds == {"application/json"}
