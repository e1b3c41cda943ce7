"""The tier `weights`, step by step: measure, find who is near, compare, report, keep.

The worker's tasks do the arithmetic and write the report; here files are opened and what is
known of other LoRAs is looked up. The texts that come back are kept unread, since decoding
megabytes would hold up the event loop whatever thread it ran in.
"""

import io
import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from lora_server import names
from lora_server.evaluation.outcomes import Teller
from lora_server.evaluation.plans import Plan
from lora_server.evaluation.report import EVALUATOR
from lora_server.evaluation.reports import PAGE, REPORT, Reports
from lora_server.evaluation.surroundings import Surroundings
from lora_server.evaluation.worker.client import TaskFailed, Worker, believing
from lora_server.evaluation.worker.saying import MeasureFacts, ReportFacts, believed
from lora_server.evaluation.worker.tasks import Answer
from lora_server.filesystem import facts_of
from lora_server.library import Library
from lora_server.records import Evaluation, StoredLora

CANDIDATES = 12  # the nearest by their sketches; with those stacked with it, 17 are compared


class WeightsTier:
    """Evaluates the files of one library by their weights."""

    def __init__(self, library: Library, worker: Worker, reports: Reports) -> None:
        self._library = library
        self._worker = worker
        self._reports = reports
        self._surroundings = Surroundings(library)

    async def __call__(self, evaluation: Evaluation, tell: Teller) -> str:
        """Evaluate a content, keep the report, and return its verdict.

        Raises:
            TaskFailed, WorkerAway: there is no report, and why.
            StorageFull, StorageUnusable, CatalogUnusable: it could not be kept.

        """
        await self._worker.there(evaluation.timeout_s)
        ask = _Asking(self._worker, evaluation.timeout_s, tell)
        async with AsyncExitStack() as files:
            subject = await self._opened(files, evaluation)
            measured, near = await self._measured(ask, subject)
            report = await self._reported(ask, subject, measured, near)
        with believing():
            facts = believed(ReportFacts, report.facts)
            text, page = facts.texts(report.text)
        tell({"stage": "keeping the report", "progress": 1.0})
        texts = {REPORT: text, PAGE: page}
        await self._library.store.run(self._reports.write, evaluation.id, texts)
        return facts.verdict.value

    async def _measured(self, ask: "_Asking", subject: "_Subject") -> tuple[Answer, Sequence[str]]:
        """Measure a file; returns what was measured, and the digests of the nearest contents."""
        lora, digests = subject.lora, list[str]()
        with _memory("sketches") as bundle:
            async for batch, sketches in self._surroundings.sketches(lora.sha256):
                digests += batch
                await self._library.store.run(bundle.write, sketches)
            extension = names.extension(lora.location.name)
            fds = [subject.fd, bundle.fileno()]
            measured = await ask("measure", fds, extension=extension, count=CANDIDATES)
        with believing():
            facts = believed(MeasureFacts, measured.facts)
            sketch = facts.sketch_bytes(len(digests))
        await self._refuse_changed(subject)
        await self._library.catalog.measurements.put(
            lora.sha256,
            evaluator=EVALUATOR,
            features=facts.features,
            sketch=sketch,
        )
        return measured, [digests[position] for position in facts.nearest]

    async def _reported(
        self, ask: "_Asking", subject: "_Subject", measured: Answer, near: Sequence[str]
    ) -> Answer:
        """Compare a file with those near to it, and have the report written."""
        compare_to = Plan.from_json(subject.evaluation.plan).compare_to
        wanted = dict.fromkeys([compare_to, *near] if compare_to else near)
        candidates = await self._surroundings.candidates(subject.lora, list(wanted))
        async with AsyncExitStack() as files:
            others = await self._all_opened(files, candidates)
            about = await self._surroundings.about(
                subject.evaluation, subject.lora, [other for other, _ in others]
            )
            text = await self._in_memory(files, measured.text)
            fds = [text, subject.fd, *(fd for _, fd in others)]
            return await ask("report", fds, about=about)

    async def _opened(self, files: AsyncExitStack, evaluation: Evaluation) -> "_Subject":
        """Open a live file with the evaluated content, where it stood if it still does."""
        found = await self._library.catalog.find_content(evaluation.sha256)
        found = sorted(found, key=lambda one: one.location.partial_path != evaluation.partial_path)
        fitting = [lora for lora in found if lora.sha256 == evaluation.sha256]
        if not (opened := await self._all_opened(files, fitting[:1])):
            message = "The LoRA was deleted or changed meanwhile; evaluate what stands there now."
            raise TaskFailed("lora_gone", message)
        return _Subject(evaluation, *opened[0])

    async def _all_opened(
        self, files: AsyncExitStack, loras: Sequence[StoredLora]
    ) -> list[tuple[StoredLora, int]]:
        """Open those of the files that are there and are what is known of them."""
        opened = []
        for lora in loras:
            reading = self._library.store.opened_for_reading(lora.location)
            try:
                fd = await files.enter_async_context(reading)
            except FileNotFoundError:
                continue
            if await self._is_unchanged(lora, fd):
                opened.append((lora, fd))
        return opened

    async def _is_unchanged(self, lora: StoredLora, fd: int) -> bool:
        return facts_of(await self._library.store.run(os.fstat, fd)) == lora.facts

    async def _refuse_changed(self, subject: "_Subject") -> None:
        if not await self._is_unchanged(subject.lora, subject.fd):
            message = "The file was written to while it was measured; evaluate it again."
            raise TaskFailed("lora_changed", message)

    async def _in_memory(self, files: AsyncExitStack, text: str) -> int:
        memory = files.enter_context(_memory("text"))
        await self._library.store.run(memory.write, text.encode())
        return memory.fileno()


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is evaluated: the content, and a file that holds it."""

    evaluation: Evaluation
    lora: StoredLora
    fd: int


class _Asking:
    """The worker, asked for the tasks of one evaluation; all of them share its time."""

    def __init__(self, worker: Worker, timeout_s: float, tell: Teller) -> None:
        self._worker = worker
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._tell = tell

    async def __call__(self, task: str, fds: Sequence[int], **arguments: Any) -> Answer:
        left = max(self._deadline - time.monotonic(), 0.001)
        return await self._worker.ask(task, fds, arguments, timeout_s=left, on_event=self._tell)


def _memory(name: str) -> io.FileIO:
    """Return an anonymous file that is gone when it is closed; a worker reads it by offset."""
    return io.FileIO(os.memfd_create(name, os.MFD_CLOEXEC), "r+")
