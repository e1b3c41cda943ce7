"""A child whose tasks behave as no evaluation does; run as `python -m`."""

import os
import signal
import sys
import time
from collections.abc import Sequence

from lora_server.errors import FileRefused
from lora_server.evaluation.worker.child import main
from lora_server.evaluation.worker.tasks import Answer, Progress
from lora_server.judge.wire import LENGTH


def echo(fds: Sequence[int], progress: Progress, *, size: int) -> Answer:
    """Tell what is in the files that came, after a word on the progress."""
    progress(0.5, "echo")
    contents = [os.pread(fd, size, 0).decode() for fd in fds]
    return Answer({"contents": contents, "pid": os.getpid()}, "-".join(contents))


def die(_fds: Sequence[int], _progress: Progress) -> Answer:
    """Die as a fault of a driver or the kernel's memory killer would have it."""
    os.kill(os.getpid(), signal.SIGKILL)
    return Answer({})


def fail(_fds: Sequence[int], _progress: Progress) -> Answer:
    """End with an exception that nobody foresaw."""
    raise LookupError


def refuse(_fds: Sequence[int], _progress: Progress) -> Answer:
    """Say that the file cannot be evaluated."""
    raise FileRefused("lora_corrupt", "it makes no sense")


def sleep(_fds: Sequence[int], progress: Progress) -> Answer:
    """Take longer than anybody waits."""
    progress(0.1, str(os.getpid()))
    time.sleep(600)
    return Answer({})


def gorge(_fds: Sequence[int], _progress: Progress) -> Answer:
    """Take more memory than any file is worth."""
    return Answer({"size": len(bytes(16 * 1024**3))})


def babble(_fds: Sequence[int], _progress: Progress) -> Answer:
    """Write what is no frame."""
    os.write(0, b"\xff" * 64)
    time.sleep(600)
    return Answer({})


def bloat(_fds: Sequence[int], _progress: Progress) -> Answer:
    """Return a result that fits into nothing."""
    return Answer({}, "x" * (80 * 1024 * 1024))


def say(_fds: Sequence[int], _progress: Progress, *, frames: Sequence[str]) -> Answer:
    """Write frames with these bodies, as whoever has taken a task over might."""
    for frame in frames:
        os.write(0, LENGTH.pack(len(frame)) + frame.encode())
    return Answer({})


def surroundings(_fds: Sequence[int], _progress: Progress) -> Answer:
    """Tell what a task finds around it."""
    fds = os.listdir("/proc/self/fd")  # noqa: PTH208
    return Answer({"environment": dict(os.environ), "argv": sys.argv, "fds": fds})


if __name__ == "__main__":
    tasks = (echo, die, fail, refuse, sleep, gorge, babble, bloat, say, surroundings)
    main({task.__name__: task for task in tasks}.__getitem__)
