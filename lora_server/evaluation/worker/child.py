"""The child process of one task; run as `python -m`, with a socket for its standard input.

It gets descriptors and never a path, reports how far it is, and answers with JSON. What it does
not expect ends it: the supervisor tells that apart from a failure which it can name itself.
"""

import os
import resource
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from lora_server.errors import FileRefused
from lora_server.evaluation.worker.channel import EVENT, FAILED, MAX_FDS, answer_frames
from lora_server.evaluation.worker.tasks import Task, find
from lora_server.judge import wire
from lora_server.judge.confinement import confine

MEMORY_BYTES = 2 * 1024**3  # besides the files, which are mapped
NICENESS = 10  # uploads and inference come first
PROGRESS_S = 0.1  # between two words on how far it is


class Progress:
    """Tells the supervisor how far the task is, now and then."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._told = 0.0

    def __call__(self, share: float, stage: str) -> None:
        """Tell that `share` (0 to 1) of a stage is done."""
        now = time.monotonic()
        if now - self._told >= PROGRESS_S:
            self._told = now
            event = {"stage": stage, "progress": round(share, 4)}
            self._connection.sendall(wire.frame({EVENT: event}))


def main(find: Callable[[str], Task] = find) -> None:
    """Do the one task that comes."""
    with socket.socket(fileno=0) as connection:
        confine()
        os.nice(NICENESS)
        request, fds = _received(connection)
        resource.setrlimit(resource.RLIMIT_AS, (_memory(fds), resource.RLIM_INFINITY))
        try:
            task = find(request["task"])
            facts, text = task(fds, Progress(connection), **request["arguments"])
        except FileRefused as refused:
            connection.sendall(wire.frame({FAILED: [refused.code, refused.reason]}))
            return
        for frame in answer_frames(facts, text):
            connection.sendall(wire.frame(frame))


def _memory(fds: Sequence[int]) -> int:
    return MEMORY_BYTES + sum(os.fstat(fd).st_size for fd in fds)


def _received(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    prefix, fds, _, _ = socket.recv_fds(connection, wire.LENGTH.size, MAX_FDS)
    return wire.message(_exactly(connection, wire.frame_length(prefix))), fds


def _exactly(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        received += (more := connection.recv(size - len(received)))
        if not more:
            raise EOFError
    return received


if __name__ == "__main__":
    main()
