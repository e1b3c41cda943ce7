"""The queue of evaluations and the hands that work it off, one life of the server at a time.

What was asked for is in the catalogue before anybody is told, so that a restart takes it up
again; what happens meanwhile is told to whoever follows (`feeds`).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import structlog

from lora_server.catalog.evaluations import EvaluationCatalog, EvaluationPage, EvaluationQuery
from lora_server.errors import (
    CatalogUnusable,
    EvaluationNotFound,
    EvaluationQueueFull,
    StorageFull,
)
from lora_server.evaluation.feeds import DONE, PROGRESS, STATE, Feeds
from lora_server.evaluation.outcomes import (
    MAX_ATTEMPTS,
    Evaluate,
    Outcome,
    abandoned,
    fault,
    outcome_of,
)
from lora_server.evaluation.report import Tier
from lora_server.records import Evaluation, EvaluationStatus
from lora_server.uninterrupted import meanwhile

T = TypeVar("T")

log = structlog.get_logger(__name__)

_WITHOUT_GPU = tuple(tier for tier in Tier if not tier.needs_gpu)
_WITH_GPU = tuple(tier for tier in Tier if tier.needs_gpu)

RETRY_S = 1.0
MESSAGE_CHARS = 500  # of a reason, in the catalogue


class Evaluator:
    """Takes evaluations in, and carries them out one after the other in each of its lanes.

    `lanes` of them are for the tier `weights`; the tiers that need a GPU share one.
    """

    def __init__(
        self, catalog: EvaluationCatalog, evaluate: Evaluate, *, lanes: int, max_queue: int
    ) -> None:
        self.feeds = Feeds()
        self._catalog = catalog
        self._evaluate = evaluate
        self._lanes = lanes
        self._max_queue = max_queue
        self._waiting: dict[str, int] = {}  # since when, by id
        self._at_work: dict[str, Evaluation] = {}
        self._tasks: dict[str, asyncio.Task[Outcome]] = {}
        self._unwanted = set[str]()  # cancelled while at work
        self._entering = asyncio.Lock()
        self._turn = asyncio.Lock()  # over each step from one status to the next
        self._news = set[asyncio.Event]()  # one for each lane

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Take up what an earlier life has left, and work until the end of the block.

        What is at work then is interrupted, and taken up by the next life.
        """
        await self._catalog.interrupt_all()
        for evaluation in await self._catalog.waiting():
            self._waiting[evaluation.id] = evaluation.created_at
            self._tell_waiting(evaluation)
        async with AsyncExitStack() as stack:
            for tiers in [*[_WITHOUT_GPU] * self._lanes, _WITH_GPU]:
                await stack.enter_async_context(meanwhile(self._work(tiers)))
            yield

    @property
    def depth(self) -> int:
        """How many evaluations wait."""
        return len(self._waiting)

    @property
    def oldest(self) -> int | None:
        """When the one that has waited longest was asked for; None when none waits."""
        return min(self._waiting.values(), default=None)

    @property
    def busy(self) -> int:
        """How many evaluations are at work."""
        return len(self._at_work)

    async def submit(self, evaluation: Evaluation, *, force: bool = False) -> Evaluation:
        """Enter an evaluation; one of the same plan that is on its way is returned instead.

        So is one that has succeeded, unless `force` asks for another.

        Raises:
            EvaluationQueueFull: too many wait already.
            CatalogUnusable, StorageFull: it could not be entered.

        """
        async with self._entering:
            same = await self._catalog.latest(evaluation.plan_key)
            if same and not (force and same.ended):
                return self._at_work.get(same.id, same)
            if self.depth >= self._max_queue:
                raise EvaluationQueueFull(self._max_queue)
            self._waiting[evaluation.id] = evaluation.created_at  # a lane may take it at once
            try:
                await self._catalog.add(evaluation)
            except (CatalogUnusable, StorageFull):
                del self._waiting[evaluation.id]
                raise
        self._tell_waiting(evaluation)
        return evaluation

    async def get(self, evaluation_id: str) -> Evaluation:
        """Return an evaluation as it is at this moment.

        Raises:
            EvaluationNotFound: no such evaluation.

        """
        evaluation = self._at_work.get(evaluation_id) or await self._catalog.get(evaluation_id)
        if evaluation is None:
            raise EvaluationNotFound
        return evaluation

    async def page(self, query: EvaluationQuery) -> EvaluationPage:
        """Return a page of evaluations, newest first, each as it is at this moment."""
        page = await self._catalog.page(query)
        items = tuple(self._at_work.get(item.id, item) for item in page.items)
        return replace(page, items=items)

    async def ended(
        self, evaluation_id: str, within_s: float, *, given_up: Callable[[], bool] = bool
    ) -> Evaluation:
        """Return an evaluation once it has ended, or as it is when the time is up.

        `given_up` is asked about every second whether to wait no longer.

        Raises:
            EvaluationNotFound: no such evaluation.

        """
        deadline = time.monotonic() + within_s
        if not (evaluation := await self.get(evaluation_id)).ended and within_s:
            async for event in self.feeds.follow(evaluation_id, 0, silence_s=min(within_s, 1.0)):
                if (event and event.name == DONE) or time.monotonic() >= deadline or given_up():
                    break
            return await self.get(evaluation_id)
        return evaluation

    async def cancel(self, evaluation_id: str) -> Evaluation:
        """End an evaluation, whether it waits or is at work; one that has ended stays.

        Raises:
            EvaluationNotFound: no such evaluation.

        """
        async with self._turn:
            evaluation = await self.get(evaluation_id)
            if evaluation.ended:
                return evaluation
            task = self._tasks.get(evaluation_id)
            if task is None:
                return await self._conclude(evaluation, Outcome(EvaluationStatus.CANCELLED))
            self._unwanted.add(evaluation_id)
        task.cancel()
        return await self.ended(evaluation_id, within_s=30.0)

    async def _work(self, tiers: Collection[Tier]) -> None:
        """Be a lane: carry out evaluations of these tiers, one after the other."""
        news = asyncio.Event()
        self._news.add(news)
        while True:
            evaluation, task = await self._insisting(partial(self._begun, tiers, news))
            outcome = await self._outcome(evaluation, task)
            if await self._insisting(partial(self._settled, evaluation, outcome)):
                await asyncio.sleep(RETRY_S)  # whoever takes it up again, it is not at once

    async def _insisting(self, step: Callable[[], Awaitable[T]]) -> T:
        """Take a step, again and again while the catalogue fails."""
        while True:
            try:
                return await step()
            except (CatalogUnusable, StorageFull) as error:
                log.warning("evaluation.catalogue_failed", why=error.why)
                await asyncio.sleep(RETRY_S)

    async def _begun(
        self, tiers: Collection[Tier], news: asyncio.Event
    ) -> tuple[Evaluation, asyncio.Task[Outcome]]:
        """Wait for an evaluation of these tiers that can be begun, and begin it."""
        while True:
            news.clear()
            async with self._turn:
                if self._waiting and (
                    claimed := await self._catalog.claim(tiers, int(time.time()))
                ):
                    return self._started(replace(claimed, status=EvaluationStatus.STARTING))
            await news.wait()

    def _started(self, evaluation: Evaluation) -> tuple[Evaluation, asyncio.Task[Outcome]]:
        self._waiting.pop(evaluation.id, None)
        self._at_work[evaluation.id] = evaluation
        if evaluation.attempts > MAX_ATTEMPTS:
            carrying = abandoned()
        else:
            tell = partial(self._tell, evaluation.id)
            carrying = outcome_of(self._evaluate, evaluation, tell)
        task = self._tasks[evaluation.id] = asyncio.create_task(carrying)
        return evaluation, task

    async def _outcome(self, evaluation: Evaluation, task: asyncio.Task[Outcome]) -> Outcome:
        """Wait for the end of an evaluation; a cancelled lane ends it."""
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
            await asyncio.wait({task})
        if task.cancelled():
            return Outcome(EvaluationStatus.CANCELLED)
        if error := task.exception():
            return fault(evaluation, error)
        return task.result()

    def _tell(self, evaluation_id: str, news: Mapping[str, Any]) -> None:
        known = {key: news[key] for key in ("stage", "progress") if key in news}
        if "status" in news:
            known["status"] = EvaluationStatus(news["status"])
        self._at_work[evaluation_id] = replace(self._at_work[evaluation_id], **known)
        self.feeds.publish(evaluation_id, STATE if "status" in news else PROGRESS, dict(news))

    async def _settled(self, evaluation: Evaluation, outcome: Outcome) -> bool:
        """Note what became of one at work; tells whether it waits for its next try."""
        async with self._turn:
            again = outcome.status is EvaluationStatus.INTERRUPTED
            if again and evaluation.id in self._unwanted:
                again, outcome = False, Outcome(EvaluationStatus.CANCELLED)
            if again:
                log.info("evaluation.interrupted", evaluation=evaluation.id, why=outcome.message)
                interrupted = await self._catalog.set(evaluation.id, status=outcome.status)
                self._at_work.pop(evaluation.id, None)
                self._waiting[evaluation.id] = evaluation.created_at
                self._tell_waiting(interrupted or evaluation)
            else:
                await self._conclude(evaluation, outcome)
            del self._tasks[evaluation.id]
            self._unwanted.discard(evaluation.id)
        return again

    def _tell_waiting(self, evaluation: Evaluation) -> None:
        self.feeds.publish(evaluation.id, STATE, {"status": evaluation.status})
        self.look_again()

    def look_again(self) -> None:
        """Have every lane look whether there is something for it."""
        for news in self._news:
            news.set()

    async def _conclude(self, evaluation: Evaluation, outcome: Outcome) -> Evaluation:
        """Note how an evaluation ended, and tell."""
        last = self._at_work.get(evaluation.id, evaluation)
        succeeded = outcome.status is EvaluationStatus.SUCCEEDED
        ended = await self._catalog.set(
            evaluation.id,
            status=outcome.status,
            verdict=outcome.verdict,
            problem=outcome.problem,
            message=outcome.message and outcome.message[:MESSAGE_CHARS],
            stage="" if succeeded else last.stage,
            progress=1.0 if succeeded else last.progress,
            finished_at=int(time.time()),
        )
        self._at_work.pop(evaluation.id, None)
        self._waiting.pop(evaluation.id, None)
        told = {"status": outcome.status, "verdict": outcome.verdict, "problem": outcome.problem}
        self.feeds.publish(evaluation.id, DONE, told)
        log.info("evaluation.ended", evaluation=evaluation.id, **told)
        return ended or evaluation
