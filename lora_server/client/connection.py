"""Requests to one server: who asks, what comes back, and what went wrong on the way."""

import asyncio
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import aiohttp
from yarl import URL

from lora_server.client.address import Address
from lora_server.client.errors import (
    ClientError,
    NoServer,
    NotAuthenticated,
    NotFound,
    Unreachable,
)
from lora_server.client.patience import Patience, Tell, say_nothing
from lora_server.client.refusals import refusal

CONNECT_S = 10.0
IDLE_S = 60.0  # without a byte in either direction
ANSWER_S = 600.0  # from the last byte of a body; a large checkpoint may be converted meanwhile
MAX_JSON_BYTES = 64 * 1024 * 1024
_PIECE_BYTES = 256 * 1024
_ERRORS_FROM = 300

_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)


@dataclass(frozen=True, slots=True)
class Response:
    """An answer whose body has been read."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def data(self) -> dict[str, Any]:
        """Return the JSON object in the body.

        Raises:
            NoServer: there is none.

        """
        try:
            data = json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise NoServer("the server's answer is not JSON; check the URL") from error
        if not isinstance(data, dict):
            raise NoServer("the server's answer is not of this API; check the URL")
        return data


class Connection:
    """One server, asked by one principal."""

    def __init__(
        self, session: aiohttp.ClientSession, address: Address, patience_s: float, tell: Tell
    ) -> None:
        self.address = address
        self._session = session
        self._patience_s = patience_s
        self._tell = tell

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, address: Address, token: str, *, patience_s: float, tell: Tell = say_nothing
    ) -> AsyncIterator["Connection"]:
        """Be ready to ask; nothing is sent yet.

        Raises:
            NotAuthenticated: the token cannot be one.

        """
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise NotAuthenticated("what was given as a token is none: one word is expected")
        # A connection for each request: one that idled may be dead, and whether the server saw
        # what was sent on a dead one nobody can tell.
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        headers = {
            "Authorization": f"Bearer {token}",
            "User-Agent": "lora-server",
            "Accept-Encoding": "identity",
        }
        async with aiohttp.ClientSession(
            connector=connector,
            headers=headers,
            timeout=_TIMEOUT,
            auto_decompress=False,
            middlewares=(_once,),
        ) as session:
            yield cls(session, address, patience_s, tell)

    @property
    def patience(self) -> Patience:
        """Return fresh patience for one request."""
        return Patience(self._patience_s, self._tell)

    async def ask(
        self,
        method: str,
        *path: str,
        query: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = True,
    ) -> Response:
        """Send a small request and read its answer; `members` go out as JSON.

        Raises:
            ClientError: as `Patience.attempts`, and every refusal of the server.

        """
        url = self.address.of(*path).with_query(query)
        body = None if members is None else json.dumps(members).encode()
        kind = {} if members is None else {"Content-Type": "application/json"}
        sent = {**kind, **(headers or {})}

        async def once() -> Response:
            async with self.sent(method, url, headers=sent, data=body) as (response, moved):
                return await read(response, moved)

        return await self.patience.attempts(once, repeatable=repeatable)

    @asynccontextmanager
    async def sent(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str],
        data: Any = None,
        idle: "Idle | None" = None,
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, "Idle"]]:
        """Send one request, once; its body and its answer may stand still for IDLE_S.

        Raises:
            Unreachable: it could not be sent, or the answer did not come whole.

        """
        idle = idle or Idle()
        try:
            async with asyncio.timeout(None) as deadline:
                idle.watch(deadline)
                async with self._session.request(
                    method, url, headers=headers, data=data, allow_redirects=False
                ) as response:
                    yield response, idle
        except aiohttp.InvalidURL as error:
            raise NoServer(f"{self.address} is no URL that can be asked") from error
        except aiohttp.ClientConnectorError as error:
            raise self._unreachable(error) from error
        except (aiohttp.ClientError, OSError) as error:  # a TimeoutError is one, too
            raise self._lost(error, timed_out=deadline.expired()) from error

    def _unreachable(self, error: aiohttp.ClientConnectorError) -> ClientError:
        """Say why there is no connection; only a certificate or a name is certain to stay wrong."""
        cause = error.os_error
        if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
            why = str(getattr(error, "certificate_error", cause))
            return NoServer(f"{self.address} cannot be trusted: {_short(why)}")
        if isinstance(cause, ssl.SSLError):
            return NoServer(f"{self.address} does not speak TLS: {_short(str(cause))}")
        if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
            return NoServer(f"{self.address}: there is no host of this name")
        why = os.strerror(cause.errno).lower() if cause.errno else "no address of it answers"
        return Unreachable(
            f"{self.address} cannot be reached ({why}); is the server running there?", sent=False
        )

    def _lost(self, error: Exception, *, timed_out: bool) -> ClientError:
        if isinstance(error.__cause__, ClientError):
            return error.__cause__  # what the body's own source had to say
        if timed_out:
            return Unreachable(f"{self.address} went silent", sent=True)
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return Unreachable(
                f"{self.address} cannot be reached (no answer); is the URL right?", sent=False
            )
        return Unreachable(f"the connection to {self.address} broke off", sent=True)


async def _once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Have a broken connection end a request; aiohttp would send a DELETE a second time."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientConnectionError(str(error)) from error


class Idle:
    """How long nothing may happen before a request is given up."""

    def __init__(self) -> None:
        self._deadline: asyncio.Timeout | None = None

    def watch(self, deadline: asyncio.Timeout) -> None:
        """Watch over a request from now on."""
        self._deadline = deadline
        self.moved(CONNECT_S + IDLE_S)

    def moved(self, patience_s: float = IDLE_S) -> None:
        """Note that something happened; the next has to within so many seconds."""
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(asyncio.get_running_loop().time() + patience_s)


async def read(response: aiohttp.ClientResponse, idle: Idle) -> Response:
    """Read an answer to its end.

    Raises:
        ClientError: what the answer stands for, where it is no success.
        NoServer: it is larger than any answer of this API.

    """
    body = bytearray()
    async for piece in pieces(response, idle.moved):
        body += piece
        if len(body) > MAX_JSON_BYTES:
            raise NoServer("the server's answer is too large; check the URL")
    if response.status >= _ERRORS_FROM:
        if response.method == "HEAD" and response.status == HTTPStatus.NOT_FOUND:
            raise NotFound("there is no such LoRA; `lora-server list` shows what there is")
        raise refusal(response.status, response.headers, bytes(body))
    return Response(response.status, response.headers, bytes(body))


async def pieces(
    response: aiohttp.ClientResponse, moved: Callable[[], None]
) -> AsyncIterator[bytes]:
    """Yield an answer's body as it comes."""
    async for piece in response.content.iter_chunked(_PIECE_BYTES):
        moved()
        yield piece


def _short(text: str) -> str:
    return text[:200]
