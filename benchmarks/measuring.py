"""Clocks and folders that the benchmarks share."""

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

MEMORY = Path("/dev/shm")  # noqa: S108 - memory, which is what is wanted
TICK_S = 0.001
MB = 1_000_000
ROOM = 4_000 * MB  # for the files of one part


@contextmanager
def folder(room: int) -> Iterator[Path]:
    """Lend a folder on memory-backed storage, where that has `room` bytes."""
    in_memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > room
    with tempfile.TemporaryDirectory(dir=MEMORY if in_memory else None) as name:
        yield Path(name)


def family(pid: int) -> list[int]:
    """Return a process and the children it has now."""
    children = Path(f"/proc/{pid}/task").glob("*/children")
    return [pid, *(int(child) for path in children for child in path.read_text().split())]


def cpu_s(*pids: int) -> float:
    """Return the CPU time of whole processes so far, those of ended threads included."""
    # The clock id that clock_getcpuclockid(3) makes of a process id.
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def children_s() -> float:
    """Return the CPU time so far of all children of this process, those that ended included."""
    ended = os.times()
    return ended.children_user + ended.children_system + cpu_s(*family(os.getpid())[1:])


@dataclass(slots=True)
class Stall:
    """The longest time that an event loop did nothing else."""

    longest_s: float = 0.0


@asynccontextmanager
async def watched_loop() -> AsyncIterator[Stall]:
    """Tick through the block and note how late the latest tick was."""
    stall = Stall()
    ticking = asyncio.create_task(_tick(stall))
    try:
        yield stall
    finally:
        ticking.cancel()
        await asyncio.wait({ticking})


async def _tick(stall: Stall) -> None:
    while True:
        begun = time.perf_counter()
        await asyncio.sleep(TICK_S)
        stall.longest_s = max(stall.longest_s, time.perf_counter() - begun - TICK_S)


def processors() -> int:
    """Return how many this process may use."""
    return len(os.sched_getaffinity(0))
