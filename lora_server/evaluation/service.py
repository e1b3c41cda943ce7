"""The evaluation service as the server holds it: the worker, the queue, the reports, one life."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from lora_server.config import Config
from lora_server.errors import EvaluatorUnavailable
from lora_server.evaluation.after_upload import AfterUpload
from lora_server.evaluation.evaluator import Evaluator
from lora_server.evaluation.health import OFF, EvaluationHealth, health
from lora_server.evaluation.plans import Plan, asked
from lora_server.evaluation.reports import REPORT, Reports
from lora_server.evaluation.weights_tier import WeightsTier
from lora_server.evaluation.worker.client import Worker
from lora_server.evaluation.worker.embedded import embedded_worker
from lora_server.library import Library
from lora_server.records import Evaluation, EvaluationStatus, StoredLora

NOWHERE = Path("/nonexistent")  # where nobody listens


class EvaluationService:
    """Evaluates the LoRAs of one library; made by `opened`."""

    def __init__(self, library: Library, config: Config, worker: Worker) -> None:
        settings = config.evaluation
        self.reports = Reports(library.store.layout.evaluations)
        self.evaluator = Evaluator(
            library.catalog.evaluations,
            WeightsTier(library, worker, self.reports),
            lanes=settings.weights_workers,
            max_queue=settings.max_queue,
        )
        self.after_upload = AfterUpload(
            library, self.evaluator, self.reports, timeout_s=settings.weights_timeout
        )
        self._library = library
        self._config = settings
        self.worker = worker

    @classmethod
    @asynccontextmanager
    async def opened(cls, library: Library, config: Config) -> AsyncIterator["EvaluationService"]:
        """Run the service until the end of the block, with a worker of its own if need be."""
        settings = config.evaluation
        if not settings.enabled:
            yield cls(library, config, Worker(NOWHERE))
            return
        async with AsyncExitStack() as stack:
            path = settings.worker_socket
            if path is None:
                path = await stack.enter_async_context(embedded_worker(config))
            worker = Worker(path)
            service = cls(library, config, worker)
            await stack.enter_async_context(worker.watched())
            await stack.enter_async_context(service.evaluator.running())
            evaluate = settings.on_upload == "weights"
            await stack.enter_async_context(service.after_upload.running(evaluate=evaluate))
            yield service

    def health(self) -> EvaluationHealth:
        """Return what can be evaluated at this moment."""
        return health(self._config, self.evaluator, self.worker, now=time.time())

    async def submit(
        self,
        lora: StoredLora,
        plan: Plan,
        *,
        requested_by: str,
        timeout_s: float | None = None,
        force: bool = False,
    ) -> Evaluation:
        """Have a LoRA evaluated; an equal evaluation that is there, or on its way, is returned.

        Raises:
            EvaluatorUnavailable: evaluations are switched off.
            EvaluationQueueFull: too many wait already.

        """
        if not self._config.enabled:
            raise EvaluatorUnavailable(OFF)
        most_s = self._config.weights_timeout
        evaluation = asked(
            lora, plan, requested_by=requested_by, timeout_s=min(timeout_s or most_s, most_s)
        )
        submitted = await self.evaluator.submit(evaluation, force=force)
        if submitted.status is EvaluationStatus.SUCCEEDED and not await self._has_report(submitted):
            submitted = await self.evaluator.submit(evaluation, force=True)  # lost by other hands
        return submitted

    async def _has_report(self, evaluation: Evaluation) -> bool:
        path = self.reports.path(evaluation.id, REPORT)
        return await self._library.store.run(path.exists)
