"""How the client commands reach a server: URL, token, patience, and what errors end them with."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from lora_server.cli.status import Status, complain, fail
from lora_server.client import errors
from lora_server.client.address import Address
from lora_server.client.connection import Connection
from lora_server.client.errors import ClientError

T = TypeVar("T")

TOKEN_VARIABLE = "LORA_SERVER_TOKEN"  # noqa: S105 - the name of a variable, not a secret
_MAX_TOKEN_CHARS = 16 * 1024

ServerUrl = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="LORA_SERVER_URL",
        metavar="URL",
        help="The server; /api/v1 follows unless it has a path of its own.",
        rich_help_panel="Server",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="PATH",
        help=f"Where the token stands, - for stdin; else {TOKEN_VARIABLE} holds it.",
        rich_help_panel="Server",
    ),
]
RetryFor = Annotated[
    float,
    typer.Option(
        min=0,
        max=86400,
        metavar="SECONDS",
        help="How long to wait in all for a server that is away or busy.",
        rich_help_panel="Server",
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print partial paths alone, one a line.")
]
PartialPaths = Annotated[
    list[str],
    typer.Argument(metavar="PATH", help="As styles/ink.safetensors, which `list` shows."),
]

_USUAL_TYPES = ("clothes", "identities", "product", "styles", "faces")  # a server may have others

DEFAULT_URL = "http://127.0.0.1:8080"
DEFAULT_RETRY_FOR = 60.0

_STATUS: tuple[tuple[type[ClientError], Status], ...] = (
    (errors.NotAuthenticated, Status.AUTH),
    (errors.NotAllowed, Status.AUTH),
    (errors.NotFound, Status.NOT_FOUND),
    (errors.Refused, Status.REFUSED),
    (errors.Misused, Status.USAGE),
    (errors.LocalProblem, Status.FAILURE),
    (ClientError, Status.NETWORK),  # whatever happened on the way
)


@dataclass(frozen=True, slots=True)
class Server:
    """Which server to ask, as whom, and how patiently."""

    url: str
    token_file: Path | None
    retry_for: float  # seconds

    def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do some work over a connection; an error ends the command with its own status."""
        try:
            return asyncio.run(self._connected(work))
        except ClientError as error:
            fail(str(error), status_of(error))
        except KeyboardInterrupt:
            fail("interrupted; the same command goes on from here", Status.INTERRUPTED)

    async def _connected(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        address = Address.parsed(self.url)
        token = await asyncio.to_thread(_token, self.token_file)
        async with Connection.opened(
            address, token, patience_s=self.retry_for, tell=_Teller(self.retry_for)
        ) as connection:
            return await work(connection)


def entity_types(incomplete: str) -> list[str]:
    """Return what a shell may complete an entity type to."""
    return [name for name in _USUAL_TYPES if name.startswith(incomplete)]


def status_of(error: ClientError) -> Status:
    """Return the status that an error ends a command with."""
    return next(status for kind, status in _STATUS if isinstance(error, kind))


def _token(path: Path | None) -> str:
    """Read the token; never from an argument, which others can see."""
    if path is None:
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        if not token:
            raise errors.NotAuthenticated(
                f"there is no token; set {TOKEN_VARIABLE} or give --token-file PATH"
            )
        return token
    try:
        if str(path) == "-":
            return sys.stdin.read(_MAX_TOKEN_CHARS).strip()
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_MAX_TOKEN_CHARS).strip()
    except OSError as error:
        raise errors.NotAuthenticated(
            f"the token file {path} cannot be read: {error.strerror}"
        ) from error


class _Teller:
    """Says why there is a wait, once for each reason."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._told: set[str] = set()

    def __call__(self, error: ClientError, _wait_s: float) -> None:
        if str(error) not in self._told:
            self._told.add(str(error))
            complain(f"{error} (trying again for up to {self._patience_s:g} s)")
