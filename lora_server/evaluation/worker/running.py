"""The life of the worker process: listen on a socket, serve, go with the parent or a signal."""

import asyncio
import os
import signal
import socket
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

import structlog

from lora_server import logs, systemd
from lora_server.config import Config
from lora_server.errors import ConfigInvalid
from lora_server.evaluation.report import EVALUATOR
from lora_server.evaluation.worker import gpu
from lora_server.evaluation.worker.process import MODULE
from lora_server.evaluation.worker.supervisor import Supervisor

log = structlog.get_logger(__name__)

SOCKET_MODE = 0o660
BACKLOG = 64


def run(config: Config, *, until_stdin_closes: bool = False, module: str = MODULE) -> None:
    """Serve evaluation tasks until a signal, or until whoever holds our stdin is gone.

    Listens on a socket that systemd passes; without one, on the one that is configured.

    Raises:
        ConfigInvalid: no socket is configured, or it cannot be listened on.

    """
    logs.configure(config.logging)
    path = config.evaluation.worker_socket
    if path is None:
        raise ConfigInvalid("evaluation.worker_socket: say where to listen")
    supervisor = Supervisor(config.evaluation.weights_workers, facts, module)
    passed = [taken for named in systemd.listening_sockets().values() for taken in named]
    with passed[0] if passed else _listening(path) as listener:
        log.info("worker.listening", socket=str(path))
        asyncio.run(_serve(supervisor, listener, until_stdin_closes=until_stdin_closes))
    log.info("worker.stopped")


def facts() -> Mapping[str, Any]:
    """Return what the front end's health page tells of this worker and its host."""
    versions = {
        "evaluator": EVALUATOR,
        "python": python_version(),
        "numpy": version("numpy"),
        "safetensors": version("safetensors"),
    }
    return {"versions": versions, **gpu.facts()}


@contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            _remove_stale(path)
            listener.bind(str(path))
            path.chmod(SOCKET_MODE)
            listener.listen(BACKLOG)
        except OSError as error:
            raise ConfigInvalid(f"evaluation.worker_socket: {path}: {error}") from error
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens on any more; one in use stays, and bind says so."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.stat().st_mode):
            return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except FileNotFoundError:
            return


async def _serve(
    supervisor: Supervisor, listener: socket.socket, *, until_stdin_closes: bool
) -> None:
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    if until_stdin_closes:
        loop.add_reader(sys.stdin.fileno(), _at_end, sys.stdin.fileno(), ending.set)
    async with systemd.supervised(partial(_report, supervisor)):
        serving = asyncio.create_task(supervisor.serve(listener))
        waiting = asyncio.create_task(ending.wait())
        systemd.notify(READY=1, **await _report(supervisor))
        await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        systemd.notify(STOPPING=1)
        serving.cancel()
        waiting.cancel()
        await asyncio.gather(serving, waiting, return_exceptions=True)


async def _report(supervisor: Supervisor) -> Mapping[str, str | int]:
    number = supervisor.running
    tasks = "1 task" if number == 1 else f"{number or 'no'} tasks"
    return {"STATUS": f"Ready: {tasks} at work"}


def _at_end(fd: int, then: Callable[[], None]) -> None:
    if not os.read(fd, 4096):
        then()
