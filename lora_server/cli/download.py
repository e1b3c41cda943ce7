"""`lora-server download`: LoRAs from the server to this machine."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lora_server.cli.following import following
from lora_server.cli.options import AsJson
from lora_server.cli.reaching import (
    DEFAULT_RETRY_FOR,
    DEFAULT_URL,
    PartialPaths,
    RetryFor,
    Server,
    ServerUrl,
    TokenFile,
    status_of,
)
from lora_server.cli.status import Status, complain, fail, say
from lora_server.cli.wording import plain, size
from lora_server.client.connection import Connection
from lora_server.client.downloads import Downloaded
from lora_server.client.downloads import download as fetch
from lora_server.client.errors import LocalProblem, NotFound, Refused
from lora_server.client.library import split

_OF_ONE_PATH = (NotFound, Refused, LocalProblem)  # the others go on


def download(  # noqa: PLR0913 - each is an option of the command
    paths: PartialPaths,
    *,
    to: Annotated[
        Path, typer.Option(metavar="PATH", help="A folder, or the name for one file.")
    ] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    as_json: AsJson = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print the paths written alone, one a line.")
    ] = False,
    url: ServerUrl = DEFAULT_URL,
    token_file: TokenFile = None,
    retry_for: RetryFor = DEFAULT_RETRY_FOR,
) -> None:
    """Fetch LoRAs; what broke off is gone on with.

    With the admin scope: the file as it is stored, checked against its digest.
    With the read scope: the tensors without the training metadata.
    With --json, one object a line.
    """
    if len(paths) > 1 and not to.is_dir():
        fail(f"{to} is no folder, and {len(paths)} files need one", Status.USAGE)
    statuses: list[Status] = []

    async def work(connection: Connection) -> None:
        with following(len(paths), quiet=quiet or as_json) as follower:
            for path in paths:
                target = to / _local_name(split(path)[1]) if to.is_dir() else to
                try:
                    with follower.file(path) as watcher:
                        done = await fetch(connection, path, target, watcher, force=force)
                except _OF_ONE_PATH as error:
                    complain(f"{path}: {error}")
                    statuses.append(status_of(error))
                else:
                    _say(path, done, as_json=as_json, quiet=quiet)

    Server(url, token_file, retry_for).run(work)
    if statuses:
        raise typer.Exit(statuses[0])


def _local_name(name: str) -> str:
    if name in ("", ".", "..") or "\0" in name:
        fail(f"{name!r} is no name for a file", Status.USAGE)
    return name


def _say(path: str, done: Downloaded, *, as_json: bool, quiet: bool) -> None:
    if as_json:
        facts = {"partial_path": path, "file": str(done.path), "sha256": done.sha256}
        say(json.dumps({**facts, "file_size": done.size}))
    elif quiet:
        say(plain(str(done.path)))
    else:
        how = "digest checked" if done.sha256 else "without its training metadata"
        say(f"fetched  {plain(str(done.path))}  {size(done.size)}, {how}")
