"""The server's own worker: it goes with the server, whatever it is held up by."""

import asyncio
from pathlib import Path

import pytest

from lora_server.evaluation.worker.embedded import embedded_worker
from tests.evaluation.workers import is_running, until
from tests.server import make_config


async def test_a_worker_that_does_not_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that goes down waits for it a while and not for ever; nothing is left of it."""
    monkeypatch.setattr("lora_server.evaluation.worker.embedded.END_S", 0.1)
    config = make_config(tmp_path)
    async with asyncio.timeout(20):
        async with embedded_worker(config, module="tests.evaluation.deaf_worker") as path:
            await until(path.exists)
            pid = int(await asyncio.to_thread(path.read_text, encoding="utf-8"))
            assert is_running(pid)

    assert not is_running(pid)
    assert not await asyncio.to_thread(path.parent.exists)
