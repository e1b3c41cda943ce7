"""`lora-server delete` and `lora-server restore`: into the bin, and back."""

import json
import shlex
from collections.abc import Awaitable, Callable

import typer

from lora_server.cli.options import AsJson
from lora_server.cli.reaching import (
    DEFAULT_RETRY_FOR,
    DEFAULT_URL,
    PartialPaths,
    Quiet,
    RetryFor,
    Server,
    ServerUrl,
    TokenFile,
    status_of,
)
from lora_server.cli.status import Status, complain, say
from lora_server.cli.wording import plain
from lora_server.client import library
from lora_server.client.connection import Connection
from lora_server.client.errors import ClientError, Misused, NotFound, Refused

_OF_ONE_PATH = (NotFound, Refused, Misused)  # the others go on

One = Callable[[Connection, str], Awaitable[None]]


def delete(  # noqa: PLR0913 - each is an option of the command
    paths: PartialPaths,
    *,
    as_json: AsJson = False,
    quiet: Quiet = False,
    url: ServerUrl = DEFAULT_URL,
    token_file: TokenFile = None,
    retry_for: RetryFor = DEFAULT_RETRY_FOR,
) -> None:
    """Move LoRAs into the bin, from where `restore` brings them back.

    With --json, one object a line.
    """

    async def one(connection: Connection, path: str) -> None:
        deleted = await library.delete(connection, path)
        if as_json:
            say(json.dumps({"partial_path": path, **deleted.raw}))
        elif quiet:
            say(plain(path))
        else:
            say(f"deleted  {plain(path)}  lora-server restore {plain(shlex.quote(path))} undoes it")

    _each(paths, Server(url, token_file, retry_for), one)


def restore(  # noqa: PLR0913 - each is an option of the command
    paths: PartialPaths,
    *,
    as_json: AsJson = False,
    quiet: Quiet = False,
    url: ServerUrl = DEFAULT_URL,
    token_file: TokenFile = None,
    retry_for: RetryFor = DEFAULT_RETRY_FOR,
) -> None:
    """Bring LoRAs back from the bin.

    PATH is where it was, and the one deleted last is meant; or as `bin -q` prints it.
    A name that was taken meanwhile gets a version.
    With --json, one object a line.
    """

    async def one(connection: Connection, path: str) -> None:
        is_bin_path = path.startswith("/")
        found = path if is_bin_path else (await library.latest_in_bin(connection, path)).bin_path
        lora = await library.restore(connection, found)
        if as_json:
            say(json.dumps(lora.raw))
        else:
            say(plain(lora.partial_path) if quiet else f"restored {plain(lora.partial_path)}")

    _each(paths, Server(url, token_file, retry_for), one)


def _each(paths: list[str], server: Server, one: One) -> None:
    """Do one path after the other; the first that fails gives the status, and the others go on."""
    statuses: list[Status] = []

    async def work(connection: Connection) -> None:
        for path in paths:
            try:
                await one(connection, path)
            except _OF_ONE_PATH as error:
                complain(_about(path, error))
                statuses.append(status_of(error))

    server.run(work)
    if statuses:
        raise typer.Exit(statuses[0])


def _about(path: str, error: ClientError) -> str:
    return str(error) if path in str(error) else f"{path}: {error}"
