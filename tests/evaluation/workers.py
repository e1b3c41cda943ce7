"""A worker with odd tasks, in the test's own loop, on a real socket and with real children."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from lora_server.evaluation.worker.client import Worker
from lora_server.evaluation.worker.supervisor import Supervisor
from lora_server.evaluation.worker.tasks import Answer

ODD = "tests.evaluation.odd_tasks"


@asynccontextmanager
async def supervised(folder: Path, *, workers: int = 2, module: str = ODD) -> AsyncIterator[Worker]:
    """Run a supervisor until the end of the block; yields the client of it."""
    path = folder / "worker.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        supervisor = Supervisor(workers, lambda: {"versions": {"evaluator": "test"}}, module)
        serving = asyncio.create_task(supervisor.serve(listener))
        try:
            yield Worker(path)
        finally:
            serving.cancel()
            await asyncio.wait({serving})


async def ask(  # noqa: PLR0913 - what a request is made of
    worker: Worker,
    task: str,
    fds: Sequence[int] = (),
    *,
    timeout_s: float = 20,
    gpu: bool = False,
    events: list[Mapping[str, Any]] | None = None,
    **arguments: Any,
) -> Answer:
    """Have a task done."""
    heard = events if events is not None else []
    return await worker.ask(
        task, fds, arguments, timeout_s=timeout_s, gpu=gpu, on_event=heard.append
    )


async def until(condition: Callable[[], object], within_s: float = 10) -> None:
    """Wait until something that no event tells has come true."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.01)


def is_running(pid: int) -> bool:
    """Tell whether a process is there, and no mere zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


def open_files() -> int:
    """Return how many descriptors this process holds."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208
