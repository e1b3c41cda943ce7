"""`lora-server reinspect`, as a process, while a server runs."""

import asyncio
import json
import os
import pty
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from lora_server.uninterrupted import meanwhile
from tests.calls import LORA, lora_bytes
from tests.cli.conftest import ROOT, Run
from tests.daemon import Daemon, serving
from tests.formats.hostile_safetensors import TRICKS
from tests.server import ADMIN, form

NAMES = ("a.safetensors", "b.safetensors", "c.safetensors")


@pytest_asyncio.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    """Run a server with three LoRAs."""
    async with serving(tmp_path) as running_daemon:
        for seed, name in enumerate(NAMES):
            upload = form(lora_bytes(seed), name, entity_type="styles")
            assert (await _call(running_daemon, "POST", "/upload", upload))["sha256"]
        yield running_daemon


async def _call(daemon: Daemon, method: str, path: str = "", data: Any = None) -> Any:
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{daemon.port}") as session,
        session.request(method, LORA + path, data=data, headers=ADMIN) as got,
    ):
        return await got.json()


async def _shown(daemon: Daemon) -> dict[str, Any]:
    page = await _call(daemon, "GET")
    return {item["filename"]: (item["verdict"], item["inspection"]) for item in page["data"]}


def _tampered(daemon: Daemon, sql: str, *values: str) -> None:
    with sqlite3.connect(daemon.config.storage.state_dir / "catalog.sqlite3", timeout=5) as rows:
        assert rows.execute(sql, values).rowcount == 1
    rows.close()


async def _reinspected(run: Run, *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(run, "reinspect", "--config", "config.toml", *arguments)


async def test_nothing_new_is_said_of_what_is_known(daemon: Daemon, run: Run) -> None:
    """Every file is judged, nothing changes, and no progress bar is written to a pipe."""
    before = await _shown(daemon)
    done = await _reinspected(run)

    assert done.returncode == 0
    assert done.stdout == "3 files judged, 0 changed by hand and left to the server\n"
    assert done.stderr == ""
    assert await _shown(daemon) == before


async def test_old_verdicts_are_replaced(daemon: Daemon, run: Run) -> None:
    """What older rules said is found out again, shown by the running server, and told as JSON."""
    before = await _shown(daemon)
    change = "UPDATE loras SET summary = ?, adapter = 'old' WHERE name = ?"
    await asyncio.to_thread(_tampered, daemon, change, '{"adapter": "old"}', "a.safetensors")
    refuse = "UPDATE loras SET verdict = 'refused' WHERE name = ?"
    await asyncio.to_thread(_tampered, daemon, refuse, "b.safetensors")
    tampered = await _shown(daemon)
    done = await _reinspected(run, "--json")

    assert tampered != before
    assert done.returncode == 0
    assert json.loads(done.stdout) == {
        "files": 3,
        "skipped": 0,
        "changed": ["models/styles/a.safetensors", "models/styles/b.safetensors"],
        "refused": [],
    }
    assert done.stderr == ""
    assert await _shown(daemon) == before


async def _touched_again_and_again(path: Path) -> None:
    """Keep the server from taking a file for one that has come to rest."""
    while True:
        await asyncio.to_thread(path.touch)
        await asyncio.sleep(0.1)


async def test_files_changed_by_hand_are_left_to_the_server(daemon: Daemon, run: Run) -> None:
    """A file that is not the one in the catalogue is skipped, as is one that is gone."""
    path = daemon.config.storage.models_dir / "styles" / "a.safetensors"
    await asyncio.to_thread(path.write_bytes, b"changed a moment ago")
    async with meanwhile(_touched_again_and_again(path)):
        done = await _reinspected(run, "--json")

    assert json.loads(done.stdout)["files"] == 2
    assert json.loads(done.stdout)["skipped"] == 1


async def test_refused_files_are_named(daemon: Daemon, run: Run) -> None:
    """What would not come in today stays, and is named on stderr."""
    path = daemon.config.storage.models_dir / "styles" / "evil.safetensors"
    await asyncio.to_thread(path.write_bytes, TRICKS["dtype twice"].build())
    await asyncio.to_thread(os.utime, path, (1_600_000_000, 1_600_000_000))
    async with asyncio.timeout(10):
        while len(await _shown(daemon)) < 4:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.05)
    done = await _reinspected(run)

    assert done.stdout == "4 files judged, 0 changed by hand and left to the server\n"
    assert done.stderr == "would not come in today: models/styles/evil.safetensors\n"
    assert path.exists()


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        pytest.param((), True, id="for people"),
        pytest.param(("--json",), False, id="for programs"),
    ],
)
async def test_progress_is_shown_on_a_terminal(
    daemon: Daemon, arguments: tuple[str, ...], shown: object
) -> None:
    """Whoever watches sees a bar."""
    folder = daemon.config.storage.state_dir.parent
    written = await asyncio.to_thread(_on_a_terminal, folder, arguments)

    assert (b"Judging" in written) is shown


def _on_a_terminal(folder: Path, arguments: tuple[str, ...]) -> bytes:
    ours, theirs = pty.openpty()
    subprocess.run(
        [sys.executable, "-m", "lora_server", "reinspect", "--config", "config.toml", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        check=True,
        timeout=30,
    )
    os.write(theirs, b".")
    os.close(theirs)
    try:
        return os.read(ours, 65536)
    finally:
        os.close(ours)
