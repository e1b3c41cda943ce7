"""What the worst file costs, against what its size allows."""

import asyncio
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from statistics import median

from benchmarks import measuring
from benchmarks.inspection.row import Row
from lora_server.errors import FileRefused
from lora_server.judge import JudgePool
from tests.formats import hostile_safetensors, hostile_torch
from tests.formats.pickle_bytes import Raw
from tests.formats.torch_bytes import lora, torch_zip

PASSES = 3

BOMBS: Mapping[str, bytes] = {
    "millions of opcodes": b"]" + b"Na" * 2_600_000,
    "millions of collections": b"]" + b"]a" * 1_000_100,
    "tuples in tuples": b"N" + b"\x85" * 1_000_100,
}


async def hostile_rows() -> list[Row]:
    """Judge the corpora and look for the worst of them."""
    with measuring.folder(measuring.ROOM) as folder:
        async with JudgePool(size=1, jobs_per_child=100_000) as pool:
            passes = [await _hostile_pass(pool, folder) for _ in range(PASSES)]
    shares = {name: median(found[name] for found, _ in passes) for name in passes[0][0]}
    worst = max(shares, key=lambda name: shares[name])
    stall_ms = 1000 * median(stall for _, stall in passes)
    return [
        Row(f"(c) {len(shares)} hostile files, worst: {worst}", f"{shares[worst]:.2f}", "< 1"),
        Row("(c) longest stall of the event loop", f"{stall_ms:.0f} ms", "<= 50 ms"),
    ]


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


def allowed_s(size: int) -> float:
    """Return the CPU that a file of this size may cost: 100 ms and 500 ms per MB."""
    return 0.1 + 0.5 * size / measuring.MB


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
        before = measuring.children_s()
        with suppress(FileRefused):
            await pool.run("judge", file.fileno(), extension=extension)
        return (measuring.children_s() - before) / allowed_s(os.fstat(file.fileno()).st_size)
