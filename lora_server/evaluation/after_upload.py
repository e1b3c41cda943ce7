"""New files are evaluated soon after they came in, and reports that nobody is given dropped."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from lora_server.errors import EvaluationQueueFull, LoraServerError
from lora_server.evaluation.evaluator import Evaluator
from lora_server.evaluation.plans import Plan, asked
from lora_server.evaluation.report import EVALUATOR, Tier
from lora_server.evaluation.reports import Reports
from lora_server.library import Library
from lora_server.uninterrupted import meanwhile

log = structlog.get_logger(__name__)

POLL_S = 1.0  # how soon after the answer to an upload its weights are evaluated
TIDY_ROUNDS = 600  # polls between two looks for reports of contents that are gone


class AfterUpload:
    """Asks for the weights of whatever is listed without an evaluation, one file at a time."""

    def __init__(
        self, library: Library, evaluator: Evaluator, reports: Reports, *, timeout_s: float
    ) -> None:
        self._library = library
        self._evaluator = evaluator
        self._reports = reports
        self._timeout_s = timeout_s

    @asynccontextmanager
    async def running(self, *, evaluate: bool) -> AsyncIterator[None]:
        """Go on until the end of the block; without `evaluate`, only tidy up."""
        async with meanwhile(self._run(evaluate=evaluate)):
            yield

    async def _run(self, *, evaluate: bool) -> None:
        rounds = 0
        while True:
            try:
                if evaluate:
                    await self.catch_up()
                if rounds % TIDY_ROUNDS == 0:
                    await self.tidy()
            except LoraServerError as error:
                log.warning("after_upload.failed", why=str(error.__cause__ or error))
            rounds += 1
            await asyncio.sleep(POLL_S)

    async def catch_up(self) -> None:
        """Evaluate all that is listed, the newest first; people who ask meanwhile come before."""
        catalog = self._library.catalog
        while lora := await catalog.measurements.next_unevaluated(EVALUATOR):
            wanted = asked(
                lora, Plan.of(Tier.WEIGHTS, lora), requested_by=None, timeout_s=self._timeout_s
            )
            try:
                evaluation = await self._evaluator.submit(wanted)
            except EvaluationQueueFull:
                return
            await self._evaluator.ended(evaluation.id, within_s=2 * self._timeout_s)

    async def tidy(self) -> None:
        """Drop what nobody is given any more.

        That is of contents that are gone for good, and what newer reports have replaced.
        """
        catalog = self._library.catalog
        for unwanted in (catalog.evaluations.orphaned, catalog.evaluations.replaced):
            while evaluation_ids := await unwanted():
                for evaluation_id in evaluation_ids:
                    await self._library.store.run(self._reports.remove, evaluation_id)
                await catalog.evaluations.forget(evaluation_ids)
        await catalog.measurements.forget_orphans()
