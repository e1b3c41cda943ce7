"""How fast a library of LoRAs is inspected again, and what CPU that takes."""

import asyncio
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks import measuring
from benchmarks.inspection.adapters import write_sparse
from benchmarks.inspection.row import Row
from lora_server.catalog import Catalog
from lora_server.config import IngestConfig
from lora_server.door import Door
from lora_server.filesystem import facts_of
from lora_server.layout import Layout
from lora_server.records import Judgement, Location, Override, Place, Source, StoredLora, Verdict
from lora_server.reinspect import judges, reinspect
from tests.adapters import adapter_tensors
from tests.server import make_config

FILES = 2_000
PASSES = 3
INODES = 20  # distinct files behind them, so that alphas do not take gigabytes
ACCEPTED = Judgement(Verdict.ACCEPTED, summary={}, inspection=None)


async def reinspection_rows() -> list[Row]:
    """Judge a library again, as `lora-server reinspect` does."""
    with measuring.folder(measuring.ROOM) as folder:
        layout = Layout.of(make_config(folder).storage)
        found = await asyncio.to_thread(_fill, layout)
        layout.state.mkdir(parents=True)
        async with Catalog.opened(layout.catalog) as catalog, judges() as pool:
            for lora in found:
                await catalog.add_found(lora)
            loras = list((await catalog.known_files()).values())
            door = Door(pool, IngestConfig())
            passes = [await _pass(loras, catalog, layout, door) for _ in range(PASSES)]
    what = f"{FILES} SDXL LoRAs inspected again, {measuring.processors()} CPUs"
    rate, judging_ms, rest_ms = (median(figures) for figures in zip(*passes, strict=True))
    return [
        Row(f"(d) {what}", f"{rate:.0f} files/s", "> 200 files/s"),
        Row(
            "(d) CPU a file, of children and of the rest",
            f"{judging_ms:.1f} + {rest_ms:.1f} ms",
            "",
        ),
    ]


class _Pass(NamedTuple):
    rate: float  # files per second
    judging_ms: float  # CPU of the children, per file
    rest_ms: float  # CPU of opening, asking and noting, per file


async def _pass(loras: list[StoredLora], catalog: Catalog, layout: Layout, door: Door) -> _Pass:
    begun, judging_s, own_s = time.perf_counter(), measuring.children_s(), time.process_time()
    results = [
        result async for result in reinspect(loras, catalog=catalog, layout=layout, door=door)
    ]
    seconds = time.perf_counter() - begun
    judging_s, own_s = measuring.children_s() - judging_s, time.process_time() - own_s
    good = [r for r in results if r.after.verdict is Verdict.ACCEPTED and r.after.base_model]
    if {r.after.base_model for r in good} != {"SDXL"} or len(good) != len(loras):
        raise RuntimeError("not every file was found to be an SDXL LoRA")
    return _Pass(FILES / seconds, 1000 * judging_s / FILES, 1000 * own_s / FILES)


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


def _stored(path: Path, name: str) -> StoredLora:
    facts = facts_of(path.stat())
    digest = "0" * 64
    return StoredLora(
        id=0, location=Location(Place.MODELS, "styles", name), home_name=name, filename=name,
        facts=facts, sha256=digest, uploaded_sha256=digest, uploaded_size=facts.size,
        uploaded_by=None, source=Source.FOUND, uploaded_at=0, judgement=ACCEPTED,
        tensors_sha256=None,
        override=Override(), deleted_at=None, deleted_by=None,
    )  # fmt: skip
