"""The rules run again over the whole tree, after they have been improved.

Any number of processes may read the catalogue, so this needs no server to stop; a file that is
changed meanwhile is left to the server, which notices that itself.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_server import names
from lora_server.catalog import Catalog
from lora_server.door import Door
from lora_server.filesystem import facts_of, opened_file
from lora_server.layout import Layout
from lora_server.records import Judgement, StoredLora, Verdict

BATCH = 64  # files that are judged between two writes to the catalogue


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


async def reinspect(
    loras: Sequence[StoredLora], *, catalog: Catalog, layout: Layout, door: Door
) -> AsyncIterator[Reinspected]:
    """Judge files again and note what is found; yields each that could be read.

    Raises:
        CatalogUnusable, JudgeUnavailable: the rest was not looked at.

    """
    for at in range(0, len(loras), BATCH):
        batch = loras[at : at + BATCH]
        found = await asyncio.gather(*(_judged(lora, layout, door) for lora in batch))
        done = [result for result in found if result]
        await catalog.set_judgements({result.lora.id: result.after for result in done})
        for result in done:
            yield result


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
