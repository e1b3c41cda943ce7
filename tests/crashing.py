"""Run as a program: die at every step of an operation, each time in folders of their own.

    python -m tests.crashing FOLDER OPERATION

FOLDER/0, FOLDER/1 … are left as a kill at the first, second … step leaves them, the start
after it having been killed too, twice. FOLDER/steps gets the names of the steps, as JSON.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from lora_server import filesystem
from tests.libraries import storage_in
from tests.steps import OPERATIONS, Steps, prepare, quiet


class Fuse:
    """A hook that notes every step and kills its process at one of them."""

    def __init__(self, kill_at: int | None) -> None:
        self.steps: list[str] = []
        self._kill_at = kill_at

    async def __call__(self, step: str) -> None:
        """Note a step; a thread may be in the middle of it."""
        self.burn(step)

    def burn(self, step: str) -> None:
        """Note a step, and die if it is the one."""
        self.steps.append(step)
        if len(self.steps) - 1 == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def rename_exclusive(self, *args: Any) -> None:
        """Rename, noting the moment before the new name is made durable."""
        filesystem.rename_exclusive(*args)
        self.burn("between rename and fsync")


async def operate(folder: Path, operation: str, fuse: Fuse) -> None:
    """Prepare in peace, then run the operation with the fuse lit."""
    steps = Steps()
    async with steps.library(storage_in(folder)) as library:
        await prepare(library, operation)
        pytest.MonkeyPatch().setattr("lora_server.store.rename_exclusive", fuse.rename_exclusive)
        steps.hook = fuse
        await OPERATIONS[operation](library)
        steps.hook = quiet


async def recover(folder: Path, fuse: Fuse) -> None:
    """Start again with the fuse lit."""
    async with Steps(fuse).library(storage_in(folder)):
        pass


def forked(steps: Coroutine[Any, Any, None], fuse: Fuse, report: Path) -> bool:
    """Run in a child that leaves its steps in `report`; tell whether it was killed."""
    if (pid := os.fork()) == 0:
        asyncio.run(steps)
        report.write_text(json.dumps(fuse.steps))
        os._exit(0)
    steps.close()
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit("a child failed")
    return os.WIFSIGNALED(status)


def main() -> None:
    """Find out which steps there are, then die at each."""
    root, operation = Path(sys.argv[1]), sys.argv[2]
    report = root / "report"
    fuse = Fuse(None)
    forked(operate(root / "alive", operation, fuse), fuse, report)
    steps = json.loads(report.read_text())
    for number in range(len(steps)):
        fuse = Fuse(number)
        if not forked(operate(root / str(number), operation, fuse), fuse, report):
            sys.exit(f"nobody died at {steps[number]}")
        for moment in (0, 1):
            fuse = Fuse(moment)
            forked(recover(root / str(number), fuse), fuse, report)
    (root / "steps").write_text(json.dumps(steps))


if __name__ == "__main__":
    main()
