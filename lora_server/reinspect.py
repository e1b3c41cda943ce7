"""The rules run again over the whole tree, after they have been improved.

Any number of processes may read the catalogue, so this needs no server to stop; a file that is
changed meanwhile is left to the server, which notices that itself.
"""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from lora_server import names
from lora_server.catalog import Catalog
from lora_server.door import Door
from lora_server.filesystem import facts_of, opened_file
from lora_server.judge import JudgePool
from lora_server.layout import Layout
from lora_server.records import Judgement, StoredLora, Verdict

BATCH = 64  # files that are judged between two writes to the catalogue
JOBS_PER_CHILD = 5_000  # starting one takes as long as judging fifty files
AHEAD = 2  # batches in hand, so that nobody is idle while the catalogue writes


@dataclass(frozen=True, slots=True)
class Reinspected:
    """One file, what was known of it and what is found now."""

    lora: StoredLora
    before: Judgement | None
    after: Judgement

    @property
    def changed(self) -> bool:
        """Tell whether anything that a listing shows is different."""
        before = self.before
        return before is None or (before.verdict, before.summary) != (
            self.after.verdict,
            self.after.summary,
        )


def judges() -> JudgePool:
    """Return the children for a whole tree: one more than there are CPUs, so that none is idle."""
    return JudgePool(size=(os.cpu_count() or 1) + 1, jobs_per_child=JOBS_PER_CHILD)


async def reinspect(
    loras: Sequence[StoredLora], *, catalog: Catalog, layout: Layout, door: Door
) -> AsyncIterator[Reinspected]:
    """Judge files again and note what is found; yields each that could be read.

    Raises:
        CatalogUnusable, JudgeUnavailable: the rest was not looked at.

    """
    batches = (loras[at : at + BATCH] for at in range(0, len(loras), BATCH))
    ahead = deque(_judging(batch, layout, door) for batch in islice(batches, AHEAD))
    try:
        while ahead:
            found = await ahead.popleft()
            ahead.extend(_judging(batch, layout, door) for batch in islice(batches, 1))
            done = [result for result in found if result]
            await catalog.set_judgements({result.lora.id: result.after for result in done})
            for result in done:
                yield result
    finally:
        for judging in ahead:
            judging.cancel()
        await asyncio.gather(*ahead, return_exceptions=True)


def _judging(
    batch: Sequence[StoredLora], layout: Layout, door: Door
) -> "asyncio.Future[list[Reinspected | None]]":
    return asyncio.gather(*(_judged(lora, layout, door) for lora in batch))


async def _judged(lora: StoredLora, layout: Layout, door: Door) -> Reinspected | None:
    path = layout.path(lora.location)
    try:
        fd = await asyncio.to_thread(_open_unchanged, path, lora)
    except OSError:
        return None
    if fd is None:
        return None
    try:
        extension = names.extension(lora.location.name)
        after = await door.judge_found(fd, extension, accepted_before=_is_accepted(lora))
    finally:
        os.close(fd)
    return Reinspected(lora, lora.judgement, after)


def _is_accepted(lora: StoredLora) -> bool:
    return lora.judgement is not None and lora.judgement.verdict is Verdict.ACCEPTED


def _open_unchanged(path: Path, lora: StoredLora) -> int | None:
    with opened_file(path) as file:
        if facts_of(os.fstat(file.fileno())) != lora.facts:
            return None
        return os.dup(file.fileno())
