"""`lora-server digest`: the SHA-256 of files on this machine, by which the server knows them."""

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer

from lora_server.cli.following import following
from lora_server.cli.options import AsJson
from lora_server.cli.reaching import (
    DEFAULT_RETRY_FOR,
    DEFAULT_URL,
    RetryFor,
    Server,
    ServerUrl,
    TokenFile,
    status_of,
)
from lora_server.cli.status import Status, fail, say
from lora_server.cli.wording import plain
from lora_server.client import library
from lora_server.client.connection import Connection
from lora_server.client.errors import LocalProblem
from lora_server.client.local_files import LocalFile

Digests = list[tuple[Path, str]]


def digest(  # noqa: PLR0913 - each is an option of the command
    files: Annotated[
        list[Path],
        typer.Argument(exists=True, dir_okay=False, metavar="FILE", help="What to read."),
    ],
    *,
    stored: Annotated[
        bool, typer.Option("--stored", help="Ask the server too; status 4 where it lacks one.")
    ] = False,
    as_json: AsJson = False,
    url: ServerUrl = DEFAULT_URL,
    token_file: TokenFile = None,
    retry_for: RetryFor = DEFAULT_RETRY_FOR,
) -> None:
    """Print the SHA-256 of files, as sha256sum does.

    With --stored, each line ends in `stored` or `missing`.
    With --json, one object a line.
    """
    try:
        digests = asyncio.run(_read(files))
    except LocalProblem as error:
        fail(str(error), status_of(error))
    there = _asked(digests, Server(url, token_file, retry_for)) if stored else {}
    for path, sha256 in digests:
        if as_json:
            facts = {"file": str(path), "sha256": sha256, "autov2": sha256[:10]}
            say(json.dumps({**facts, "stored": there.get(sha256)}))
        else:
            word = ("  stored" if there[sha256] else "  missing") if stored else ""
            say(f"{sha256}  {plain(str(path))}{word}")
    if not all(there.values()):
        raise typer.Exit(Status.NOT_FOUND)


async def _read(files: list[Path]) -> Digests:
    digests = []
    with following(len(files)) as follower:
        for path in files:
            with follower.file(path.name) as watcher:
                async with LocalFile.opened(path) as file:
                    digests.append((path, await file.sha256(watcher)))
    return digests


def _asked(digests: Digests, server: Server) -> dict[str, bool]:
    async def work(connection: Connection) -> dict[str, bool]:
        return {sha256: await library.has(connection, sha256) for _, sha256 in digests}

    return server.run(work)
