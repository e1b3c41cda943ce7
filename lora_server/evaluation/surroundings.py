"""What is known around a LoRA: the sketches of all others, twins, candidates, the cohort."""

import base64
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

from lora_server import names
from lora_server.evaluation.plans import base_model_of
from lora_server.evaluation.report import EVALUATOR
from lora_server.library import Library
from lora_server.records import Evaluation, StoredLora

MAX_SKETCHES = 20_000  # more would not be searched in a moment
MAX_COHORT = 1_000  # the newest; more would not move a median
MAX_MATES = 4  # LoRAs of other types, as many as are stacked on one another
_BATCH = 500


class Surroundings:
    """Looks things up in the catalogue of one library."""

    def __init__(self, library: Library) -> None:
        self._catalog = library.catalog

    async def sketches(self, besides: str) -> AsyncIterator[tuple[list[str], bytes]]:
        """Yield the sketches of all live contents but one, in batches, with their digests."""
        last = ""
        for _ in range(0, MAX_SKETCHES, _BATCH):
            batch = await self._catalog.measurements.sketches(
                EVALUATOR, besides=besides, after=last, limit=_BATCH
            )
            if not batch:
                return
            yield [digest for digest, _ in batch], b"".join(sketch for _, sketch in batch)
            last = batch[-1][0]

    async def candidates(self, lora: StoredLora, digests: Sequence[str]) -> Sequence[StoredLora]:
        """Return a live file for each content that is near, and what a LoRA is stacked with.

        That is the newest of each other type on the same base: people load one of each, and two
        that write to the same directions get in each other's way however little they are alike.
        """
        found: dict[int, StoredLora] = {}
        for digest in digests:
            same = await self._catalog.find_content(digest)
            found |= {one.id: one for one in same if one.sha256 == digest}
        if base_model := base_model_of(lora):
            mates = await self._catalog.measurements.stack_mates(
                entity_type=lora.location.entity_type, base_model=base_model, limit=MAX_MATES
            )
            found |= {mate.id: mate for mate in mates}
        by_content = {one.sha256: one for one in reversed(found.values())}
        by_content.pop(lora.sha256, None)
        return list(by_content.values())[::-1]

    async def about(
        self, evaluation: Evaluation, lora: StoredLora, candidates: Sequence[StoredLora]
    ) -> dict[str, Any]:
        """Return all that a report tells besides what is in the files, as plain data."""
        base_model = base_model_of(lora)
        cohort = await self._catalog.measurements.cohort(
            EVALUATOR,
            entity_type=lora.location.entity_type,
            base_model=base_model,
            besides=lora.sha256,
            limit=MAX_COHORT,
        )
        sketches = await self._catalog.measurements.sketches_of([c.sha256 for c in candidates])
        known = await self._catalog.measurements.count(EVALUATOR, besides=lora.sha256)
        return {
            "extension": names.extension(lora.location.name),
            "searched": min(known, MAX_SKETCHES),
            "id": evaluation.id,
            "tier": evaluation.tier,
            "created_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "lora": {
                **_named(lora),
                "file_size": lora.facts.size,
                "adapter": lora.judgement.adapter if lora.judgement else None,
                "base_model": base_model,
                "trigger_words": _trigger_words(lora),
            },
            "twins": await self._twins(lora),
            "candidates": [
                {
                    **_named(candidate),
                    "extension": names.extension(candidate.location.name),
                    "sketch": base64.b64encode(sketches.get(candidate.sha256, b"")).decode(),
                }
                for candidate in candidates
            ],
            "cohort": [dict(features) for features in cohort],
        }

    async def _twins(self, lora: StoredLora) -> list[dict[str, Any]]:
        """Return other files with the same bytes, or the same tensors under another header."""
        same_bytes = await self._catalog.find_content(lora.sha256)
        digest = lora.tensors_sha256
        same_weights = await self._catalog.find_tensors(digest) if digest else ()
        kinds = {twin.id: (twin, "same weights") for twin in same_weights}
        kinds |= {twin.id: (twin, "same bytes") for twin in same_bytes}
        kinds.pop(lora.id, None)
        return [{**_named(twin), "kind": kind} for twin, kind in kinds.values()]


def _named(lora: StoredLora) -> dict[str, Any]:
    return {
        "partial_path": lora.location.partial_path,
        "sha256": lora.sha256,
        "entity_type": lora.location.entity_type,
    }


def _trigger_words(lora: StoredLora) -> list[str]:
    if lora.override.trigger_words is not None:
        return list(lora.override.trigger_words)
    summary = lora.judgement.summary if lora.judgement else {}
    return list(dict.fromkeys(entry["word"] for entry in summary.get("trigger_words", ())))
