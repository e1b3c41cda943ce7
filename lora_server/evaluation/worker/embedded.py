"""A worker of the server's own, for where none is configured: started, restarted, ended."""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from lora_server.config import ENV_DELIMITER, ENV_PREFIX, Config
from lora_server.judge.process import ENVIRONMENT
from lora_server.uninterrupted import meanwhile, uninterrupted

log = structlog.get_logger(__name__)

RESTART_S = 1.0  # between two starts of a worker that ends by itself
END_S = 10.0  # that a worker may take to end
MODULE = "lora_server.evaluation.worker"

_OURS = {"CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}


@asynccontextmanager
async def embedded_worker(config: Config, *, module: str = MODULE) -> AsyncIterator[Path]:
    """Keep a worker running until the end of the block; yields its socket."""
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="lora-eval-"))
    path = folder / "worker.sock"
    try:
        async with meanwhile(_kept_running(_environment(config, path), module)):
            yield path
    finally:
        await uninterrupted(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))


async def _kept_running(environment: Mapping[str, str], module: str) -> None:
    while True:
        try:
            await _run(environment, module)
        except OSError as error:
            log.warning("worker.does_not_start", why=str(error))
        await asyncio.sleep(RESTART_S)


async def _run(environment: Mapping[str, str], module: str) -> None:
    """Run one worker to its end; it ends with us, since we hold its stdin."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-s", "-m", module),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        env=environment,
        start_new_session=True,  # a Ctrl-C is for the server, which ends its worker last
    )
    try:
        status = await process.wait()
        log.warning("worker.ended", status=status)
    finally:
        if process.returncode is None:
            process.terminate()
            await uninterrupted(_gone(process))


async def _gone(process: asyncio.subprocess.Process) -> None:
    """Wait for a worker's end, and make it one where a driver, say, holds it up."""
    try:
        async with asyncio.timeout(END_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _environment(config: Config, path: Path) -> dict[str, str]:
    """Return what a worker has to know: no key, nothing of the trees, no service manager."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(ENV_PREFIX) and name not in _OURS
    }
    told = {
        ("evaluation", "worker_socket"): str(path),
        ("evaluation", "weights_workers"): str(config.evaluation.weights_workers),
        ("logging", "level"): config.logging.level,
        ("logging", "format"): config.logging.format,
    }
    settings = {
        f"{ENV_PREFIX}{section}{ENV_DELIMITER}{key}".upper(): value
        for (section, key), value in told.items()
    }
    return {**inherited, **ENVIRONMENT, **settings}
