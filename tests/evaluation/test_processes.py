"""A worker of its own beside a server: two processes that start, die and come back as they like."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.calls import API, LORA, lora_bytes
from tests.daemon import Daemon, serving, settings_file
from tests.server import ADMIN, form

ROOT = Path(__file__).parents[2]
EVALUATION = f"{API}/evaluation/"


@asynccontextmanager
async def worker(settings: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `lora-server evaluation-worker` until the end of the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lora_server", "evaluation-worker", "--config", str(settings)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def until(condition: Callable[[], Awaitable[bool]], within_s: float = 20) -> None:
    """Wait for what another process does."""
    async with asyncio.timeout(within_s):
        while not await condition():  # noqa: ASYNC110 - no event crosses over
            await asyncio.sleep(0.05)


class Client:
    """Short words for a daemon's routes."""

    def __init__(self, daemon: Daemon, session: aiohttp.ClientSession) -> None:
        self._origin = f"http://127.0.0.1:{daemon.port}"
        self._session = session

    async def call(self, method: str, path: str, **sent: Any) -> tuple[int, Any]:
        """Return status and body of an answer."""
        url = self._origin + path
        async with self._session.request(method, url, headers=ADMIN, **sent) as response:
            return response.status, json.loads(await response.read())

    async def upload(self, name: str, seed: int) -> str:
        """Upload a LoRA and return its path."""
        sent = form(lora_bytes(seed), f"{name}.safetensors", entity_type="styles")
        status, body = await self.call("POST", f"{LORA}/upload", data=sent)
        assert status == 200, body
        return str(body["partial_path"])

    async def evaluate(self, path: str) -> tuple[int, Any]:
        """Ask for an evaluation."""
        return await self.call("POST", EVALUATION, json={"partial_path": path})

    async def health(self) -> tuple[int, str]:
        """Return the status of the health page, and the worker's state there."""
        status, body = await self.call("GET", f"{EVALUATION}health")
        return status, body["worker"]["state"]

    async def is_well(self) -> bool:
        """Tell whether a worker is there."""
        return await self.health() == (200, "idle")

    async def is_alone(self) -> bool:
        """Tell whether no worker is there."""
        return await self.health() == (503, "away")


async def test_a_worker_of_its_own_comes_and_goes(tmp_path: Path) -> None:
    """Without it uploads work and health says 503; killed and started again, it evaluates on."""
    socket = tmp_path / "worker.sock"
    evaluation = {"enabled": True, "on_upload": "off", "worker_socket": str(socket)}
    settings = tmp_path / "config.toml"
    async with (
        serving(tmp_path, evaluation=evaluation) as daemon,
        aiohttp.ClientSession() as session,
    ):
        client = Client(daemon, session)
        assert await client.is_alone()
        paths = [await client.upload(f"ink-{number}", seed=number) for number in (1, 2, 3)]

        async with worker(settings) as first:
            await until(client.is_well)
            status, body = await client.evaluate(paths[0])
            assert (status, body["status"]) == (200, "succeeded")
            first.kill()
            await first.wait()
            await until(client.is_alone, within_s=5)

        assert socket.is_socket()  # stale, and no obstacle
        waiting = asyncio.create_task(client.evaluate(paths[1]))  # asked for while nobody is there
        await asyncio.sleep(0.2)
        async with worker(settings) as second:
            assert [(await waiting)[1]["status"]] == ["succeeded"]
            assert (await client.evaluate(paths[2]))[1]["status"] == "succeeded"
            second.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(second.wait(), 10) == 0
            assert not socket.exists()
        await until(client.is_alone, within_s=5)


async def test_a_worker_says_why_it_does_not_start(tmp_path: Path) -> None:
    """Settings without a socket, or with one that another worker has, end it with status 78."""
    unset = await asyncio.to_thread(settings_file, tmp_path)
    async with worker(unset) as process:
        _, said = await asyncio.wait_for(process.communicate(), 20)
        assert (process.returncode, b"evaluation.worker_socket" in said) == (78, True)

    taken = str(tmp_path / "taken.sock")
    evaluation = {"enabled": True, "worker_socket": taken}
    settings = await asyncio.to_thread(settings_file, tmp_path, evaluation=evaluation)
    listening = await asyncio.start_unix_server(lambda _, writer: writer.close(), taken)
    async with listening, worker(settings) as process:
        _, said = await asyncio.wait_for(process.communicate(), 20)
        assert (process.returncode, b"taken.sock" in said) == (78, True)
        assert (tmp_path / "taken.sock").is_socket()
