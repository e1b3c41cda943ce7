"""Open files to be judged, and the processes that judge them, as the kernel lists them."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def opened(content: bytes) -> Iterator[int]:
    """Lend the descriptor of a file that holds `content`."""
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        yield file.fileno()


def child_processes(*, dead: bool = False) -> set[int]:
    """Return this process's children that run or, with `dead`, that nobody waited for."""
    states = (_state(stat) for stat in Path("/proc").glob("[0-9]*/stat"))
    return {
        pid for pid, state, parent in states if parent == os.getpid() and (dead or state != "Z")
    }


def _state(stat: Path) -> tuple[int, str, int]:
    try:
        state, parent = stat.read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return 0, "", 0
    return int(stat.parent.name), state, int(parent)
