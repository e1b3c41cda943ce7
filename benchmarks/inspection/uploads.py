"""What judging adds to the CPU of an upload, on servers with and without it."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from statistics import median

import aiohttp

from benchmarks import measuring
from benchmarks.inspection.adapters import sdxl, write
from benchmarks.inspection.row import Row
from tests.daemon import settings_file
from tests.server import bearer, form

FILE_BYTES = 500 * measuring.MB
PAIRS = 7  # uploads with and without judging, one after the other


async def upload_rows() -> list[Row]:
    """Upload 500 MB with and without judging, once a format."""
    rows = []
    with measuring.folder(measuring.ROOM) as folder:
        for letter, extension, aim in (("a", "safetensors", 10), ("b", "pt", 25)):
            large, small = folder / f"large.{extension}", folder / f"small.{extension}"
            for path, size in ((large, FILE_BYTES), (small, FILE_BYTES // 50)):
                await asyncio.to_thread(write, path, sdxl(size))
            share = 100 * await _judging_share(large, small)
            what = f"({letter}) what judging adds to the CPU of 500 MB, .{extension}"
            rows.append(Row(what, f"{share:.1f} %", f"<= {aim} %"))
            large.unlink()
    return rows


async def _judging_share(path: Path, small: Path) -> float:
    """Return what judging adds to the CPU of an upload, as a share of it."""
    judged, unjudged = [], []
    for _ in range(PAIRS):
        judged.append(await _upload_cpu_s(path, small, "lora_server"))
        unjudged.append(await _upload_cpu_s(path, small, "benchmarks.unjudged"))
    return median(judged) / median(unjudged) - 1


async def _upload_cpu_s(path: Path, small: Path, module: str) -> float:
    """Return the CPU that a warm server and its children use up to the answer."""
    with measuring.folder(measuring.ROOM) as storage:
        async with _server(storage, module) as (pid, port):
            await _upload(small, port)
            await asyncio.sleep(0.3)  # what follows an answer is not asked for here
            pids = measuring.family(pid)
            before = measuring.cpu_s(*pids)
            await _upload(path, port)
            return measuring.cpu_s(*pids) - before


@asynccontextmanager
async def _server(folder: Path, module: str) -> AsyncIterator[tuple[int, int]]:
    """Run a server of its own; lends its process id and its port."""
    settings = settings_file(folder)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, "serve", "--config", str(settings)),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        line = b""
        while b'"server.listening"' not in line:
            line = await process.stderr.readline()
        port = int(line.partition(b'"port": ')[2].partition(b",")[0].strip(b"} \n"))
        yield process.pid, port
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.communicate()


async def _upload(path: Path, port: int) -> None:
    url = f"http://127.0.0.1:{port}/api/v1/lora/upload"
    with path.open("rb") as file:
        data = form(file, path.name, entity_type="styles")  # type: ignore[arg-type]
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, data=data, headers=bearer()) as answer,
        ):
            if answer.status != 200:
                raise RuntimeError(await answer.text())
