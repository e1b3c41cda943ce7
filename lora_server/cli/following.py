"""How files come along, on a terminal: bytes, rate and remaining time; nothing in a pipe.

Everything is drawn on stderr. Results go to stdout, and where that is the same terminal they are
written above the bars.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from lora_server.cli.wording import plain, size
from lora_server.client.watcher import NobodyWatches, Step, Watcher

_MOVES_BYTES = frozenset({Step.HASH, Step.SEND, Step.RECEIVE})


class Follower:
    """Shows any number of files, and how many of them are through."""

    def __init__(self, progress: Progress | None, files: int) -> None:
        self._progress = progress
        self._all = None
        if progress and files > 1:
            self._all = progress.add_task(f"{files} files", total=files, step="", counts=True)

    @contextmanager
    def file(self, name: str) -> Iterator[Watcher]:
        """Show one file for the length of the block."""
        if self._progress is None:
            yield NobodyWatches()
            return
        task = self._progress.add_task(plain(name), total=None, step="")
        try:
            yield _Bar(self._progress, task)
        finally:
            self._progress.remove_task(task)
            if self._all is not None:
                self._progress.advance(self._all)


@contextmanager
def following(files: int, *, quiet: bool = False) -> Iterator[Follower]:
    """Draw on stderr if that is a terminal and nobody asked for silence."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal or console.is_dumb_terminal:
        yield Follower(None, files)
        return
    with Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
        TextColumn("{task.fields[step]}", "cyan", table_column=Column(no_wrap=True, min_width=9)),
        BarColumn(18),
        _Amount(Column(no_wrap=True, min_width=15, justify="right")),
        _Rate(Column(no_wrap=True, min_width=8, justify="right")),
        _Remaining(compact=True, table_column=Column(no_wrap=True, min_width=5)),
        console=console,
        transient=True,
        expand=True,
        redirect_stdout=sys.stdout.isatty(),
    ) as progress:
        yield Follower(progress, files)


class _Bar:
    """One file's bar (a Watcher)."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def begins(self, step: Step, total: int | None, *, done: int = 0) -> None:
        if step in _MOVES_BYTES:
            self._progress.reset(self._task, total=total, completed=done, step=step)
        elif step is Step.ASK:
            self._progress.reset(self._task, total=None, step=step)
        else:
            self._progress.update(self._task, step=step)

    def advances(self, nbytes: int) -> None:
        self._progress.advance(self._task, nbytes)


class _Amount(ProgressColumn):
    """How much is done, of how much."""

    def render(self, task: Task) -> Text:
        if task.fields.get("counts"):
            return Text(f"{task.completed:.0f} of {task.total:.0f}")
        if task.total is None:
            return Text("")
        return Text(f"{size(int(task.completed))} of {size(int(task.total))}")


class _Remaining(TimeRemainingColumn):
    """The time that is left, where bytes are moving."""

    def render(self, task: Task) -> Text:
        return Text("") if task.total is None or task.fields.get("counts") else super().render(task)


class _Rate(ProgressColumn):
    """Bytes per second, where bytes are moving."""

    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        if rate is None or task.total is None or task.fields.get("counts"):
            return Text("")
        return Text(f"{size(int(rate))}/s")
