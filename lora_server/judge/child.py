"""The child process: one job after the other, each on a file that comes with its request.

Run as `python -m lora_server.judge.child` with a socket for its standard input. It never has a
path, and no handler for what it does not expect: any such thing ends it, which is a refusal.
"""

import gc
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

from lora_server.errors import FileRefused
from lora_server.judge import wire
from lora_server.judge.confinement import budget, confine
from lora_server.judge.jobs import JOBS

Job = Callable[..., dict[str, Any]]


def main(jobs: Mapping[str, Job] = JOBS) -> None:
    """Serve until the other side closes the socket."""
    with socket.socket(fileno=0) as pool:
        confine()
        gc.disable()  # a collection in the middle of a job would find nothing to free
        pool.sendall(wire.frame(wire.READY))
        while serve_one(pool, jobs):
            gc.collect(generation=0)  # what this job has left; what is older is not gone through


def serve_one(pool: socket.socket, jobs: Mapping[str, Job]) -> bool:
    """Do one job and answer it; return False when there is none any more."""
    prefix, descriptors, _, _ = socket.recv_fds(pool, wire.LENGTH.size, 2)
    if not prefix:
        return False
    fd, *outputs = descriptors
    try:
        prefix += _receive(pool, wire.LENGTH.size - len(prefix))
        request = wire.message(_receive(pool, wire.frame_length(prefix)))
        budget(fd)
        outcome = _outcome(jobs[request["job"]], fd, request["arguments"], outputs)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    for frame in wire.answer_frames({**outcome, wire.NUMBER: request[wire.NUMBER]}):
        pool.sendall(frame)
    return True


def _outcome(job: Job, fd: int, arguments: Mapping[str, Any], outputs: list[int]) -> dict[str, Any]:
    try:
        return job(fd, **arguments, **({"output": outputs[0]} if outputs else {}))
    except FileRefused as refused:
        return {wire.REFUSED: [refused.code, refused.reason]}


def _receive(pool: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        received += (more := pool.recv(size - len(received)))
        if not more:
            raise EOFError
    return received


if __name__ == "__main__":
    main()
