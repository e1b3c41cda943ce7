"""A child whose jobs do what hostile files are meant to make one do."""

import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

from lora_server.judge.child import main
from lora_server.judge.jobs import JOBS


def sleep(_: int, *, seconds: float) -> dict[str, Any]:
    """Stay silent."""
    time.sleep(seconds)
    return {}


def spin(_: int) -> dict[str, Any]:
    """Never end."""
    while True:
        pass


def hoard(_: int, *, nbytes: int) -> dict[str, Any]:
    """Take memory."""
    return {"taken": len(bytearray(nbytes))}


def write(_: int, *, path: str) -> dict[str, Any]:
    """Write a file by path."""
    Path(path).write_text("a child wrote this")
    return {}


def end(_: int) -> dict[str, Any]:
    """End as if all were well."""
    sys.exit(0)


def babble(_: int, *, text: str) -> dict[str, Any]:
    """Put bytes of one's own on the socket."""
    os.write(0, bytes.fromhex(text))
    return {}


def babble_later(_: int, *, text: str) -> dict[str, Any]:
    """Do so when the answer has been given."""
    signal.signal(signal.SIGALRM, lambda *_: os.write(0, bytes.fromhex(text)))
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    return {}


def echo(fd: int, **arguments: Any) -> dict[str, Any]:
    """Answer with the file's content and the arguments."""
    return {"content": os.pread(fd, 1_000, 0).decode("latin-1"), **arguments}


def situation(_: int) -> dict[str, Any]:
    """Tell what this process has and may."""
    status = Path("/proc/self/status").read_text()
    return {
        "pid": os.getpid(),
        "environment": dict(os.environ),
        "descriptors": [int(path.name) for path in Path("/proc/self/fd").iterdir()],
        "memory": resource.getrlimit(resource.RLIMIT_AS)[0],
        "cpu_s": signal.getitimer(signal.ITIMER_PROF)[0],
        "no_new_privileges": "NoNewPrivs:\t1" in status,
    }


class Litter(list["Litter"]):
    """Something that a job leaves behind; it counts how many are alive."""

    alive = 0

    def __init__(self) -> None:
        """Come to be, and hold itself."""
        super().__init__()
        self.append(self)
        Litter.alive += 1

    def __del__(self) -> None:
        """Cease to be."""
        Litter.alive -= 1


def litter(_: int) -> dict[str, Any]:
    """Leave what only a collection frees, and tell how much of it there was before."""
    before = Litter.alive
    Litter()
    return {"before": before}


EXTRA = (sleep, spin, hoard, write, end, babble, babble_later, echo, situation, litter)

if __name__ == "__main__":
    main({**JOBS, **{job.__name__: job for job in EXTRA}})
