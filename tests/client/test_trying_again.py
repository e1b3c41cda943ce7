"""What the client tries again, for how long, and what it makes of strange answers."""

import json

import pytest

from lora_server.client import library
from lora_server.client.address import Address
from lora_server.client.connection import Connection
from lora_server.client.errors import (
    AnswerLost,
    Busy,
    ClientError,
    Misused,
    NoServer,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    Refused,
    Unreachable,
)
from tests.client.support import connected
from tests.scripted import answer, scripted

EMPTY = answer("200 OK", b'{"data": [], "count": 0}')
LATER = answer("503 Service Unavailable", b'{"detail": "Shutting down."}', Retry_After="0")


async def _list(connection: Connection) -> int:
    page = [page async for page in library.pages(connection, library.LORAS, {}, None)]
    return len(page)


@pytest.mark.parametrize(
    "hindrance",
    [
        pytest.param(LATER, id="draining"),
        pytest.param(answer("429 Too Many Requests", b"{}"), id="too-many"),
        pytest.param(answer("502 Bad Gateway", b"<html>"), id="gateway"),
        pytest.param(b"", id="no-answer"),
        pytest.param(EMPTY[:-5], id="half-an-answer"),
    ],
)
async def test_what_passes_is_waited_for(hindrance: bytes) -> None:
    """A question that went wrong on its way is asked again, and nobody notices."""
    waits: list[str] = []
    async with (
        scripted(hindrance, EMPTY) as server,
        connected(server, waits=waits) as connection,
    ):
        assert await _list(connection) == 1

    assert (len(server.asked), len(waits)) == (2, 1)


async def test_retry_after_is_obeyed_within_patience() -> None:
    """A server that asks for more time than there is patience is not waited for."""
    later = answer("503 Service Unavailable", b'{"detail": "Later."}', Retry_After="30")
    async with scripted(later) as server, connected(server, patience_s=1) as connection:
        with pytest.raises(Busy, match="Later"):
            await _list(connection)

    assert len(server.asked) == 1


async def test_nobody_there_is_told_in_time() -> None:
    """A port where nothing listens is tried while patience lasts."""
    async with scripted(EMPTY) as server:
        pass
    waits: list[str] = []
    async with connected(server, patience_s=1, waits=waits) as connection:
        with pytest.raises(Unreachable, match="connection refused"):
            await _list(connection)

    assert waits


@pytest.mark.parametrize(
    ("hindrance", "error", "asked"),
    [
        pytest.param(b"", AnswerLost, 1, id="no-answer"),
        pytest.param(answer("504 Gateway Timeout"), AnswerLost, 1, id="gateway"),
        pytest.param(LATER, NoServer, 2, id="draining"),
    ],
)
async def test_a_deletion_is_asked_for_again_only_if_it_was_not_seen(
    hindrance: bytes, error: type[ClientError], asked: int
) -> None:
    """After a 503 of the server itself; not where it may have been done."""
    async with scripted(hindrance, answer("200 OK", b"[]")) as server, connected(server) as there:
        with pytest.raises(error):
            await library.delete(there, "styles/ink.safetensors")

    assert len(server.asked) == asked


DETAIL = [{"loc": ["body", "entity_type"], "msg": "Value error, no", "type": "enum"}]


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        (answer("401 Unauthorized", b'{"detail": "x"}'), NotAuthenticated, "token inspect"),
        (answer("403 Forbidden", b'{"detail": "Needs \'admin\'."}'), NotAllowed, "'admin'"),
        (answer("404 Not Found", b'{"detail": "LoRA not found."}'), NotFound, "lora-server list"),
        (answer("404 Not Found", b'{"detail": "Not Found"}'), NoServer, "path in the URL"),
        (answer("404 Not Found", b"<html>nginx"), NoServer, "does not speak the API"),
        (answer("301 Moved", Location="https://b/"), NoServer, "https://b/"),
        (answer("409 Conflict", b'{"detail": "Taken."}'), Refused, "Taken"),
        (answer("422 X", json.dumps({"detail": DETAIL}).encode()), Refused, "entity_type: no"),
        (answer("200 OK", b"<html>"), NoServer, "not JSON"),
        (answer("200 OK", b'{"data": 1}'), NoServer, "'data'"),
        (answer("200 OK", b"[" * 100_000), NoServer, "not JSON"),
    ],
)
async def test_answers_become_errors_that_help(
    said: bytes, error: type[ClientError], words: str
) -> None:
    """Each kind of answer has its kind of error, which says what to do; none is tried again."""
    async with scripted(said) as server, connected(server) as connection:
        with pytest.raises(error) as caught:
            await _list(connection)

    assert words in str(caught.value)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("text", "api"),
    [
        ("http://box:8080", "http://box:8080/api/v1"),
        (" https://box/ ", "https://box/api/v1"),
        ("http://box/loras/api/", "http://box/loras/api"),
        ("http://[::1]:8080", "http://[::1]:8080/api/v1"),
    ],
)
def test_urls_that_name_a_server(text: str, api: str) -> None:
    """A bare host gets the API's usual path; one with a path keeps its own."""
    assert str(Address.parsed(text).api) == api


@pytest.mark.parametrize(
    "text",
    ["", "box:8080", "ftp://box", "http://", "http://u:p@box", "http://box/?a=1", "http://[x"],
)
def test_urls_that_do_not(text: str) -> None:
    """Anything else is said to be none, before anything is sent."""
    with pytest.raises(Misused):
        Address.parsed(text)


async def test_paths_are_one_segment_each() -> None:
    """What a name holds never becomes a path or a query of its own."""
    url = Address.parsed("http://box").of("lora", "styles", "a/../b?c#d%2F.pt")

    assert url.raw_path == "/api/v1/lora/styles/a%2F..%2Fb%3Fc%23d%252F.pt"


@pytest.mark.parametrize("token", ["", "a b", "a\nb", "ä"])
async def test_what_is_no_token_is_not_sent(token: str) -> None:
    """A token that is none is told before it could break a header."""
    with pytest.raises(NotAuthenticated):
        async with Connection.opened(Address.parsed("http://box"), token, patience_s=0):
            pass
