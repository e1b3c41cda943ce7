"""`lora-server upload`: LoRAs from this machine to the server's disk."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from lora_server.cli.describing import in_short, warnings
from lora_server.cli.following import Follower, following
from lora_server.cli.options import AsJson
from lora_server.cli.reaching import (
    DEFAULT_RETRY_FOR,
    DEFAULT_URL,
    Quiet,
    RetryFor,
    Server,
    ServerUrl,
    TokenFile,
    entity_types,
    status_of,
)
from lora_server.cli.status import Status, complain, fail, remark, say
from lora_server.cli.wording import plain
from lora_server.client.connection import Connection
from lora_server.client.errors import ClientError, LocalProblem, Refused
from lora_server.client.library import may_administer
from lora_server.client.local_files import LocalFile, found
from lora_server.client.uploads import Outcome, Terms, Uploaded, Uploader
from lora_server.client.watcher import Watcher

_OF_ONE_FILE = (Refused, LocalProblem)  # the others go on; any other error concerns them all


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one file: where it is, or why not."""

    path: Path
    uploaded: Uploaded | None
    error: ClientError | None

    @property
    def as_json(self) -> dict[str, Any]:
        """The same for programs; `lora` is the server's answer."""
        lora = self.uploaded.lora if self.uploaded else None
        return {
            "file": str(self.path),
            "outcome": self.uploaded.outcome if self.uploaded else "failed",
            "partial_path": lora.partial_path if lora else None,
            "sha256": self.uploaded.sha256 if self.uploaded else None,
            "lora": lora.raw if lora else None,
            "error": str(self.error) if self.error else None,
            "code": getattr(self.error, "code", None),
        }


Show = Callable[[Result], None]


def upload(  # noqa: PLR0913 - each is an option of the command
    files: Annotated[list[Path], typer.Argument(exists=True, metavar="FILE", help="What to send.")],
    *,
    entity_type: Annotated[
        str,
        typer.Option(
            "--entity-type",
            "-t",
            help="What they are of: styles, faces …",
            autocompletion=entity_types,
        ),
    ],
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Take the LoRAs in folders, too.")
    ] = False,
    versioning: Annotated[
        bool, typer.Option(help="Give a taken name a version, or refuse it.")
    ] = True,
    force: Annotated[
        bool, typer.Option("--force", help="Send also what is stored already.")
    ] = False,
    parallel: Annotated[int, typer.Option(min=1, max=16, help="How many files at once.")] = 3,
    as_json: AsJson = False,
    quiet: Quiet = False,
    url: ServerUrl = DEFAULT_URL,
    token_file: TokenFile = None,
    retry_for: RetryFor = DEFAULT_RETRY_FOR,
) -> None:
    """Send LoRAs to the server; what is there already is not sent again.

    The server is asked first whether it would take a file.
    What breaks off is sent again, and never stored twice.
    With --json, one object a line as each file is through.
    """
    server = Server(url, token_file, retry_for)
    try:
        paths = list(found(files, recursive=recursive))
    except LocalProblem as error:
        fail(str(error), Status.USAGE)
    if not paths:
        fail("there is no LoRA in these folders", Status.NOT_FOUND)
    show = _for_programs if as_json else _names_alone if quiet else _for_people

    async def work(connection: Connection) -> list[Result]:
        terms = Terms(
            entity_type,
            versioned=versioning,
            again=force,
            as_admin=await may_administer(connection),
        )
        with following(len(paths), quiet=quiet or as_json) as follower:
            return await _all(paths, Uploader(connection, terms), follower, parallel, show)

    results = server.run(work)
    errors = [result.error for result in results if result.error]
    if len(paths) > 1 and show is _for_people:
        _sum_up(results)
    if errors:
        raise typer.Exit(status_of(errors[0]))


async def _all(
    paths: list[Path], uploader: Uploader, follower: Follower, parallel: int, show: Show
) -> list[Result]:
    """Send files, several at once; the first error that concerns them all ends them all."""
    turns = asyncio.Semaphore(parallel)

    async def one(path: Path) -> Result:
        async with turns:
            with follower.file(path.name) as watcher:
                result = await _sent(path, uploader, watcher)
            show(result)
            return result

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(path)) for path in paths]
    except ExceptionGroup as several:
        raise several.exceptions[0] from None
    return [task.result() for task in tasks]


async def _sent(path: Path, uploader: Uploader, watcher: Watcher) -> Result:
    try:
        async with LocalFile.opened(path) as file:
            return Result(path, await uploader.upload(file, watcher), None)
    except _OF_ONE_FILE as error:
        return Result(path, None, error)


def _for_people(result: Result) -> None:
    if result.error is not None:
        complain(f"{result.path}: {result.error}")
        return
    lora = result.uploaded.lora if result.uploaded else None
    if result.uploaded and result.uploaded.outcome is Outcome.PRESENT:
        where = lora.partial_path if lora else str(result.path)
        say(f"present  {plain(where)}  the same bytes are stored; --force sends them again")
    elif lora is not None:
        say(f"stored   {plain(lora.partial_path)}  {in_short(lora)}")
        for message in warnings(lora):
            say(f"         note: {plain(message)}")


def _names_alone(result: Result) -> None:
    if result.error is not None:
        complain(f"{result.path}: {result.error}")
    elif result.uploaded and result.uploaded.lora:
        say(plain(result.uploaded.lora.partial_path))
    else:
        complain(f"{result.path}: stored already; only an admin may know where")


def _for_programs(result: Result) -> None:
    say(json.dumps(result.as_json))


def _sum_up(results: list[Result]) -> None:
    outcomes = [result.uploaded.outcome if result.uploaded else "failed" for result in results]
    counts = (f"{outcomes.count(word)} {word}" for word in ("stored", "present", "failed"))
    remark(", ".join(count for count in counts if not count.startswith("0 ")))
