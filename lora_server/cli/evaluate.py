"""`lora-server evaluate`: how good stored LoRAs are."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from lora_server.cli.options import AsJson
from lora_server.cli.reaching import (
    DEFAULT_RETRY_FOR,
    DEFAULT_URL,
    PartialPaths,
    RetryFor,
    Server,
    ServerUrl,
    TokenFile,
)
from lora_server.cli.report_text import print_report
from lora_server.cli.status import Status, complain, say
from lora_server.cli.wording import plain
from lora_server.client import evaluations
from lora_server.client.connection import Connection
from lora_server.client.evaluations import Evaluation, Hear
from lora_server.errors import ReportInvalid
from lora_server.evaluation import schema

_MOMENT_S = 1  # before a bar is shown
_WHILE_S = 20  # for those who do not watch; less than a connection may stand still


def evaluate(  # noqa: PLR0913 - each is an option of the command
    paths: PartialPaths,
    *,
    tier: Annotated[
        str, typer.Option(help="weights, or with a GPU: probe, quick, standard, full.")
    ] = "weights",
    compare_to: Annotated[
        str | None, typer.Option(metavar="PATH", help="Another stored LoRA to compare with.")
    ] = None,
    gate: Annotated[str | None, typer.Option(help="The thresholds to judge by.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Evaluate again what has a report already.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Wait for the end, however long it takes.")
    ] = False,
    as_json: AsJson = False,
    url: ServerUrl = DEFAULT_URL,
    token_file: TokenFile = None,
    retry_for: RetryFor = DEFAULT_RETRY_FOR,
) -> None:
    """Tell how good LoRAs are, and what to do about it.

    Status 7 if the verdict on one is fail, 1 if one could not be evaluated.
    Without --watch, what takes longer than a moment goes on at the server.
    With --json, one object a line.
    """
    options = {"tier": tier, "compare_to": compare_to, "gate": gate, "force": force or None}
    statuses: list[Status] = []

    async def work(connection: Connection) -> None:
        for number, path in enumerate(paths):
            if number and not as_json:
                say("")  # between two reports
            wanted = {"partial_path": path, **_given(options)}
            evaluation = await evaluations.evaluate(
                connection, wanted, wait_s=_MOMENT_S if watch else _WHILE_S
            )
            if watch and not evaluation.ended:
                with _bar(path) as hear:
                    evaluation = await evaluations.follow(connection, evaluation.id, hear)
            statuses.append(_shown(path, evaluation, as_json=as_json))

    Server(url, token_file, retry_for).run(work)
    raise typer.Exit(next((status for status in statuses if status), Status.OK))


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


@contextmanager
def _bar(path: str) -> Iterator[Hear]:
    """Show how an evaluation comes along, on a terminal."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        console=console,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
        disable=not console.is_terminal or console.is_dumb_terminal,
    ) as progress:
        task = progress.add_task(plain(path), total=1.0)
        yield lambda stage, done: progress.update(
            task, description=plain(f"{path}  {stage.replace('_', ' ')}"), completed=done
        )


def _shown(path: str, evaluation: Evaluation, *, as_json: bool) -> Status:
    """Print an evaluation and return the status that it ends the command with."""
    if as_json:
        say(json.dumps(evaluation.raw))
    elif not evaluation.ended:
        say(f"{evaluation.status}  {plain(path)}  the same command with --watch waits for the end")
    elif evaluation.report is None:
        complain(f"{path} could not be evaluated: {evaluation.problem}")
    else:
        _print(path, evaluation)
    if evaluation.ended and evaluation.report is None:
        return Status.FAILURE
    return Status.VERDICT if evaluation.verdict == "fail" else Status.OK


def _print(path: str, evaluation: Evaluation) -> None:
    try:
        report = schema.read(json.dumps(evaluation.report))
    except ReportInvalid:  # of another version
        say(f"{evaluation.verdict}  {plain(path)}  --json prints the report, which is a newer one")
        return
    print_report(report)
