"""The server as a process of its own, started by its command."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_server.config import Config
from tests.server import KEY, make_config


@dataclass
class Daemon:
    """A running process, and everything that it logged."""

    process: asyncio.subprocess.Process
    config: Config
    lines: list[dict[str, Any]] = field(default_factory=list)
    port: int = 0

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    async def ended(self, within: float = 15) -> int:
        """Wait for the exit status."""
        async with asyncio.timeout(within):
            return await self.process.wait()

    async def logged(self, event: str, within: float = 20) -> dict[str, Any]:
        """Wait for a log line."""
        async with asyncio.timeout(within):
            while True:
                for line in self.lines:
                    if line["event"] == event:
                        return line
                if self.process.returncode is not None:
                    raise ChildProcessError(f"ended with {self.process.returncode}: {self.lines}")
                await asyncio.sleep(0.01)

    def files(self) -> list[Path]:
        """Return every file in the three trees."""
        storage = self.config.storage
        roots = (storage.models_dir, storage.bin_dir, storage.staging_dir)
        return sorted(path for root in roots for path in root.rglob("*") if path.is_file())

    def memory(self, what: str) -> int:
        """Return a size out of the process's status (`VmRSS`, `VmHWM`), in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        (line,) = (line for line in status.splitlines() if line.startswith(what))
        return int(line.split()[1]) * 1024

    def forget_peak(self) -> None:
        """Have `VmHWM` start from what is used now."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5", encoding="utf-8")


def settings_file(folder: Path, **sections: dict[str, Any]) -> Path:
    """Write a config.toml with everything under `folder`, and its key."""
    key = folder / "jwt.key"
    key.touch(mode=0o600)
    key.write_bytes(bytes(KEY.material) if isinstance(KEY.material, bytes) else b"")
    tables = make_config(folder, **sections).model_dump(
        mode="json", include={"storage", "server", "evaluation"}, exclude_none=True
    )
    tables["storage"] |= {"file_mode": "0644", "dir_mode": "0755"}
    tables["auth"] = {"key_file": str(key)}
    tables["logging"] = {"format": "json"}
    for name, section in sections.items():
        tables[name] = tables.get(name, {}) | section
    lines = []
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    path = folder / "config.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


async def start(settings: Path) -> asyncio.subprocess.Process:
    """Start `lora-server serve` with these settings."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lora_server", "serve", "--config", str(settings)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )


@asynccontextmanager
async def serving(folder: Path, **sections: dict[str, Any]) -> AsyncIterator[Daemon]:
    """Run a daemon until the end of the block; it is killed if it did not end by itself."""
    settings = await asyncio.to_thread(settings_file, folder, **sections)
    daemon = Daemon(await start(settings), make_config(folder, **sections))
    reading = asyncio.create_task(_read_log(daemon))
    try:
        daemon.port = (await daemon.logged("server.listening"))["port"]
        yield daemon
    finally:
        if daemon.process.returncode is None:
            daemon.process.kill()
        await daemon.process.wait()
        await reading


async def _read_log(daemon: Daemon) -> None:
    assert daemon.process.stderr is not None
    while line := await daemon.process.stderr.readline():
        if line.startswith(b"{"):
            daemon.lines.append(json.loads(line))
        else:
            daemon.lines.append({"event": line.decode()})
