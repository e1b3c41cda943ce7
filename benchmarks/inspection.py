"""What judging costs: `python -m benchmarks.inspection` prints a table of medians and ratios.

Runs that are compared are interleaved; every answer is checked.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from statistics import median
from typing import NamedTuple

import aiohttp

from benchmarks import measuring
from lora_server.catalog import Catalog
from lora_server.config import IngestConfig
from lora_server.door import Door
from lora_server.errors import FileRefused
from lora_server.filesystem import facts_of
from lora_server.judge import JudgePool
from lora_server.layout import Layout
from lora_server.records import Location, Override, Place, Source, StoredLora, Verdict
from lora_server.reinspect import reinspect
from tests.adapters import Named, adapter_tensors, alpha_bytes, placed, safetensors_header
from tests.daemon import settings_file
from tests.formats import hostile_safetensors, hostile_torch
from tests.formats.pickle_bytes import Raw
from tests.formats.torch_bytes import held, lora, tensor, torch_zip
from tests.server import bearer, form, make_config

MB = 1_000_000
FILE_BYTES = 500 * MB
PAIRS = 7  # uploads with and without judging, one after the other
PASSES = 3
FILES = 2_000
INODES = 20  # distinct files behind them, so that alphas do not take gigabytes
ROOM = 4_000 * MB


class Row(NamedTuple):
    """One line of the table."""

    what: str
    figure: str
    aim: str


def sdxl(size: int) -> list[Named]:
    """Return the tensors of an SDXL LoRA of at most `size` bytes, the largest rank that fits."""
    per_rank = sum(found.nbytes for found in placed(adapter_tensors("sdxl", rank=1)))
    return adapter_tensors("sdxl", rank=size // per_rank)


def write_sparse(path: Path, tensors: list[Named]) -> None:
    """Write header and alphas; the weights are a hole."""
    ordered = placed(tensors)
    header = safetensors_header(ordered, {"ss_base_model_version": "sdxl_base_v1-0"})
    with path.open("wb") as file:
        file.write(header)
        for found in ordered:
            if found.name.endswith(".alpha"):
                file.seek(len(header) + found.begin)
                file.write(alpha_bytes(found.dtype, 8.0))
        file.truncate(len(header) + ordered[-1].begin + ordered[-1].nbytes)


def torch_checkpoint(tensors: list[Named]) -> bytes:
    """Return a checkpoint of torch.save with a storage for each tensor."""
    root = {
        found.name: tensor(held(_weights(found.name, found.nbytes), "Half", str(at)), found.shape)
        for at, found in enumerate(placed(tensors))
    }
    return torch_zip(root)


def _weights(name: str, nbytes: int) -> bytes:
    return alpha_bytes("F16", 8.0) if name.endswith(".alpha") else bytes(nbytes)


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


async def _upload_cpu_s(path: Path, small: Path, module: str) -> float:
    """Return the CPU that a warm server and its children use up to the answer."""
    with measuring.folder(ROOM) as storage:
        async with _server(storage, module) as (pid, port):
            await _upload(small, port)
            await asyncio.sleep(0.3)  # what follows an answer is not asked for here
            pids = measuring.family(pid)
            before = measuring.cpu_s(*pids)
            await _upload(path, port)
            return measuring.cpu_s(*pids) - before


async def judging_share(path: Path, small: Path) -> float:
    """Return what judging adds to the CPU of an upload, as a share of it."""
    judged, unjudged = [], []
    for _ in range(PAIRS):
        judged.append(await _upload_cpu_s(path, small, "lora_server"))
        unjudged.append(await _upload_cpu_s(path, small, "benchmarks.unjudged"))
    return median(judged) / median(unjudged) - 1


def hostile() -> Iterator[tuple[str, str, bytes]]:
    """Yield name, extension and bytes of every hostile or odd file, and of three bombs."""
    for name, trick in hostile_safetensors.TRICKS.items():
        yield name, ".safetensors", trick.build()
    for name, build in hostile_safetensors.ODD_BUT_VALID.items():
        yield name, ".safetensors", build()
    for case in hostile_torch.corpus():
        yield case.name, ".pt", case.data
    for name, code in BOMBS.items():
        yield name, ".pt", torch_zip(lora() | {"x": Raw(code)})


BOMBS: Mapping[str, bytes] = {
    "millions of opcodes": b"]" + b"Na" * 2_600_000,
    "millions of collections": b"]" + b"]a" * 1_000_100,
    "tuples in tuples": b"N" + b"\x85" * 1_000_100,
}


def allowed_s(size: int) -> float:
    """Return the CPU that a file of this size may cost: 100 ms and 500 ms per MB."""
    return 0.1 + 0.5 * size / MB


async def _hostile_pass(pool: JudgePool, folder: Path) -> tuple[dict[str, float], float]:
    """Return each file's share of its allowance, and the longest stall."""
    shares = {}
    longest_s = 0.0
    for name, extension, content in hostile():
        path = folder / "hostile"
        await asyncio.to_thread(path.write_bytes, content)
        # Only the judging is watched: making the files holds the interpreter, too.
        async with measuring.watched_loop() as stall:
            shares[f"{extension} {name}"] = await _share(pool, path, extension)
        longest_s = max(longest_s, stall.longest_s)
    return shares, longest_s


async def _share(pool: JudgePool, path: Path, extension: str) -> float:
    with path.open("rb") as file:
        before = _children_s()
        with suppress(FileRefused):
            await pool.run("judge", file.fileno(), extension=extension)
        return (_children_s() - before) / allowed_s(os.fstat(file.fileno()).st_size)


def _children_s() -> float:
    return measuring.cpu_s(*measuring.family(os.getpid())[1:])


async def hostile_rows() -> list[Row]:
    """Judge the corpora and look for the worst of them."""
    with measuring.folder(ROOM) as folder:
        async with JudgePool(size=1, jobs_per_child=100_000) as pool:
            passes = [await _hostile_pass(pool, folder) for _ in range(PASSES)]
    shares = {name: median(found[name] for found, _ in passes) for name in passes[0][0]}
    worst = max(shares, key=lambda name: shares[name])
    stall_ms = 1000 * median(stall for _, stall in passes)
    return [
        Row(f"(c) {len(shares)} hostile files, worst: {worst}", f"{shares[worst]:.2f}", "< 1"),
        Row("(c) longest stall of the event loop", f"{stall_ms:.0f} ms", "<= 50 ms"),
    ]


def _stored(path: Path, name: str) -> StoredLora:
    facts = facts_of(path.stat())
    digest = "0" * 64
    return StoredLora(
        id=0, location=Location(Place.MODELS, "styles", name), home_name=name, filename=name,
        facts=facts, sha256=digest, uploaded_sha256=digest, uploaded_size=facts.size,
        uploaded_by=None, source=Source.FOUND, uploaded_at=0, judgement=None, tensors_sha256=None,
        override=Override(), deleted_at=None, deleted_by=None,
    )  # fmt: skip


def _fill(layout: Layout) -> list[StoredLora]:
    folder = layout.folder(Place.MODELS, "styles")
    folder.mkdir(parents=True)
    tensors = adapter_tensors("sdxl", rank=16)
    for at in range(FILES):
        path = folder / f"{at}.safetensors"
        if at < INODES:
            write_sparse(path, tensors)
        else:
            path.hardlink_to(folder / f"{at % INODES}.safetensors")
    return [_stored(folder / f"{at}.safetensors", f"{at}.safetensors") for at in range(FILES)]


async def reinspection_rows() -> list[Row]:
    """Judge a library again, as `lora-server reinspect` does."""
    with measuring.folder(ROOM) as folder:
        layout = Layout.of(make_config(folder).storage)
        found = await asyncio.to_thread(_fill, layout)
        layout.state.mkdir(parents=True)
        async with Catalog.opened(layout.catalog) as catalog, JudgePool(size=2) as pool:
            for lora in found:
                await catalog.add_found(lora)
            loras = list((await catalog.known_files()).values())
            door = Door(pool, IngestConfig())
            rates = [await _rate(loras, catalog, layout, door) for _ in range(PASSES)]
    what = f"(d) {FILES} SDXL LoRAs inspected again, 2 children, {measuring.processors()} CPUs"
    return [Row(what, f"{median(rates):.0f} files/s", "> 200 files/s")]


async def _rate(loras: list[StoredLora], catalog: Catalog, layout: Layout, door: Door) -> float:
    begun = time.perf_counter()
    results = [
        result async for result in reinspect(loras, catalog=catalog, layout=layout, door=door)
    ]
    seconds = time.perf_counter() - begun
    good = [r for r in results if r.after.verdict is Verdict.ACCEPTED and r.after.base_model]
    if {r.after.base_model for r in good} != {"SDXL"} or len(good) != len(loras):
        raise RuntimeError("not every file was found to be an SDXL LoRA")
    return len(loras) / seconds


async def upload_rows() -> list[Row]:
    """Upload 500 MB with and without judging, once a format."""
    rows = []
    with measuring.folder(ROOM) as folder:
        for letter, extension, aim in (("a", "safetensors", 10), ("b", "pt", 25)):
            large, small = folder / f"large.{extension}", folder / f"small.{extension}"
            for path, size in ((large, FILE_BYTES), (small, FILE_BYTES // 50)):
                await asyncio.to_thread(_write, path, sdxl(size))
            share = 100 * await judging_share(large, small)
            what = f"({letter}) what judging adds to the CPU of 500 MB, .{extension}"
            rows.append(Row(what, f"{share:.1f} %", f"<= {aim} %"))
            large.unlink()
    return rows


def _write(path: Path, tensors: list[Named]) -> None:
    if path.suffix == ".pt":
        path.write_bytes(torch_checkpoint(tensors))
    else:
        write_sparse(path, tensors)


PARTS: Mapping[str, Callable[[], Coroutine[None, None, list[Row]]]] = {
    "uploads": upload_rows,
    "hostile": hostile_rows,
    "reinspection": reinspection_rows,
}


def main() -> None:
    """Print the rows of the parts that are named, or of all."""
    for part in sys.argv[1:] or PARTS:
        for row in asyncio.run(PARTS[part]()):
            print(f"{row.what:75} {row.figure:>14} {row.aim:>14}", flush=True)


if __name__ == "__main__":
    main()
