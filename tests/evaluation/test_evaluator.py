"""The queue of evaluations: each one asked for comes to an end, whatever happens meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from lora_server.catalog import Catalog
from lora_server.catalog.evaluations import EvaluationCatalog, EvaluationQuery
from lora_server.errors import (
    CatalogUnusable,
    EvaluationNotFound,
    EvaluationQueueFull,
    StorageFull,
    StorageUnusable,
)
from lora_server.evaluation.evaluator import Evaluator
from lora_server.evaluation.outcomes import MAX_ATTEMPTS, Teller
from lora_server.evaluation.plans import Plan
from lora_server.evaluation.report import EVALUATOR, Tier
from lora_server.evaluation.worker.client import TaskFailed, WorkerAway
from lora_server.records import Evaluation, EvaluationStatus, PartialPath
from tests.evaluation.workers import until


def asked(
    number: int, *, requested_by: str | None = "tester", sha256: str | None = None
) -> Evaluation:
    """Return an evaluation that was just asked for; another number, another content."""
    content = sha256 or f"{number:064x}"
    plan = Plan(Tier.WEIGHTS, "styles", "SDXL")
    return Evaluation(
        id=f"ev_{number:024x}",
        sha256=content,
        partial_path=PartialPath(f"styles/{number}.safetensors"),
        tier=plan.tier,
        plan=plan.to_json(),
        plan_key=plan.key(content),
        evaluator=EVALUATOR,
        requested_by=requested_by,
        status=EvaluationStatus.QUEUED,
        stage="",
        progress=0.0,
        attempts=0,
        timeout_s=60,
        verdict=None,
        problem=None,
        message=None,
        created_at=1_700_000_000 + number,
        started_at=None,
        finished_at=None,
    )


@dataclass
class Hands:
    """What carries evaluations out, as a test says."""

    act: Callable[[Evaluation, Teller], Awaitable[str]]
    begun: list[str] = field(default_factory=list)

    async def __call__(self, evaluation: Evaluation, tell: Teller) -> str:
        """Note that an evaluation was begun, and do what the test wants."""
        self.begun.append(evaluation.id)
        return await self.act(evaluation, tell)


async def passing(_evaluation: Evaluation, _tell: Teller) -> str:
    """Come to a verdict at once."""
    return "pass"


async def endless(_evaluation: Evaluation, tell: Teller) -> str:
    """Come to no end."""
    tell({"stage": "weights", "progress": 0.5})
    await asyncio.Event().wait()
    return "pass"


@pytest.fixture
async def catalog(tmp_path: Path) -> AsyncIterator[EvaluationCatalog]:
    """Open an empty catalogue."""
    async with Catalog.opened(tmp_path / "catalog.sqlite3") as opened:
        yield opened.evaluations


@asynccontextmanager
async def working(
    catalog: EvaluationCatalog, hands: Hands, *, lanes: int = 1, max_queue: int = 10
) -> AsyncIterator[Evaluator]:
    """Run an evaluator until the end of the block."""
    evaluator = Evaluator(catalog, hands, lanes=lanes, max_queue=max_queue)
    async with evaluator.running():
        yield evaluator


async def test_an_evaluation_comes_to_its_verdict(catalog: EvaluationCatalog) -> None:
    """It is listed with its verdict, and nothing waits any more."""
    async with working(catalog, Hands(passing)) as evaluator:
        submitted = await evaluator.submit(asked(1))
        ended = await evaluator.ended(submitted.id, within_s=10)

        assert (submitted.status, ended.status) == ("queued", "succeeded")
        assert (ended.verdict, ended.progress, ended.attempts) == ("pass", 1.0, 1)
        assert ended.started_at is not None
        assert ended.finished_at is not None
        assert (evaluator.depth, evaluator.busy, evaluator.oldest) == (0, 0, None)


@pytest.mark.parametrize(
    ("error", "status", "problem"),
    [
        (TaskFailed("lora_corrupt", "it makes no sense"), "failed", "lora_corrupt"),
        (TaskFailed("timed_out", "it took too long"), "timed_out", "timed_out"),
        (TaskFailed("worker_crashed", "SIGKILL"), "failed", "worker_crashed"),
        (StorageFull(), "failed", "storage_full"),
        (StorageUnusable("fire"), "failed", "server_failed"),
        (LookupError("a fault of ours"), "failed", "server_failed"),
    ],
)
async def test_whatever_goes_wrong_is_a_status(
    catalog: EvaluationCatalog, error: Exception, status: str, problem: str
) -> None:
    """The evaluation ends with a code and a sentence, and the next one is carried out."""

    async def act(evaluation: Evaluation, _tell: Teller) -> str:
        if evaluation.id == asked(1).id:
            raise error
        return "pass"

    with capture_logs():  # drawing a traceback on a terminal reads files
        async with working(catalog, Hands(act)) as evaluator:
            await evaluator.submit(asked(1))
            await evaluator.submit(asked(2))
            failed = await evaluator.ended(asked(1).id, within_s=10)
            fine = await evaluator.ended(asked(2).id, within_s=10)

    assert (failed.status, failed.problem, failed.verdict) == (status, problem, None)
    assert failed.message
    assert "fire" not in failed.message
    assert fine.status == "succeeded"


async def test_a_worker_that_goes_away_is_tried_again(
    catalog: EvaluationCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker's restart costs nobody a report; one that never comes back ends the evaluation."""
    monkeypatch.setattr("lora_server.evaluation.evaluator.RETRY_S", 0.01)
    away = 1

    async def act(_evaluation: Evaluation, _tell: Teller) -> str:
        if len(hands.begun) <= away:
            raise WorkerAway("nobody there")
        return "pass"

    hands = Hands(act)
    async with working(catalog, hands) as evaluator:
        await evaluator.submit(asked(1))
        healed = await evaluator.ended(asked(1).id, within_s=10)
        away = 100
        await evaluator.submit(asked(2))
        lost = await evaluator.ended(asked(2).id, within_s=10)

    assert (healed.status, healed.attempts) == ("succeeded", 2)
    assert (lost.status, lost.problem, lost.attempts) == ("failed", "worker_away", MAX_ATTEMPTS)


async def test_a_restart_takes_up_what_was_at_work(catalog: EvaluationCatalog) -> None:
    """What ran is interrupted by the end of the server, and carried out by the next one."""
    async with working(catalog, Hands(endless)) as evaluator:
        await evaluator.submit(asked(1))
        await evaluator.submit(asked(2))
        await until(lambda: evaluator.busy)

    async with working(catalog, Hands(endless), lanes=0) as evaluator:
        statuses = [(await evaluator.get(asked(n).id)).status for n in (1, 2)]
        assert statuses == ["interrupted", "queued"]
        assert evaluator.depth == 2

    hands = Hands(passing)
    async with working(catalog, hands) as evaluator:
        again = [await evaluator.ended(asked(n).id, within_s=10) for n in (1, 2)]

    assert [one.status for one in again] == ["succeeded", "succeeded"]
    assert [one.attempts for one in again] == [2, 1]
    assert hands.begun == [asked(1).id, asked(2).id]


async def test_equal_evaluations_are_one(catalog: EvaluationCatalog) -> None:
    """Who asks for what is on its way, or done, gets that; `force` has it done again."""
    same = asked(1).sha256
    release = asyncio.Event()

    async def act(_evaluation: Evaluation, _tell: Teller) -> str:
        await release.wait()
        return "pass"

    hands = Hands(act)
    async with working(catalog, hands) as evaluator:
        await evaluator.submit(asked(1))
        on_its_way = await evaluator.submit(asked(2, sha256=same), force=True)
        release.set()
        await evaluator.ended(asked(1).id, within_s=10)
        done = await evaluator.submit(asked(3, sha256=same))
        forced = await evaluator.submit(asked(4, sha256=same), force=True)
        await evaluator.ended(forced.id, within_s=10)

    assert on_its_way.id == done.id == asked(1).id
    assert (on_its_way.ended, done.ended) == (False, True)
    assert hands.begun == [asked(1).id, asked(4).id]


async def test_equal_evaluations_at_the_same_moment_are_one(catalog: EvaluationCatalog) -> None:
    """A crowd that asks for the same at once gets the same one, and one place of the queue."""
    crowd = [asked(number, sha256="a" * 64) for number in range(1, 9)]
    async with working(catalog, Hands(endless), max_queue=1) as evaluator:
        submitted = await asyncio.gather(*map(evaluator.submit, crowd))

        assert len({evaluation.id for evaluation in submitted}) == 1


async def test_one_that_was_written_after_all_is_carried_out(catalog: EvaluationCatalog) -> None:
    """A row whose writing was told to have failed is done in its turn, and so is the next one."""
    async with working(catalog, Hands(passing)) as evaluator:
        await catalog.add(asked(1))
        await evaluator.submit(asked(2))
        ended = await evaluator.ended(asked(2).id, within_s=5)

        assert ended.status == "succeeded"


async def test_a_failure_is_not_given_back_as_a_result(catalog: EvaluationCatalog) -> None:
    """Asking again after a failure tries again."""

    async def act(evaluation: Evaluation, _tell: Teller) -> str:
        if evaluation.id == asked(1).id:
            raise TaskFailed("worker_crashed", "SIGKILL")
        return "pass"

    async with working(catalog, Hands(act)) as evaluator:
        await evaluator.submit(asked(1))
        await evaluator.ended(asked(1).id, within_s=10)
        again = await evaluator.submit(asked(2, sha256=asked(1).sha256))
        ended = await evaluator.ended(again.id, within_s=10)

    assert (again.id, ended.status) == (asked(2).id, "succeeded")


async def test_people_go_before_the_server_itself(catalog: EvaluationCatalog) -> None:
    """What an upload caused waits until nobody else does."""
    hands = Hands(passing)
    for evaluation in (asked(1, requested_by=None), asked(2), asked(3, requested_by=None)):
        await catalog.add(evaluation)
    async with working(catalog, hands) as evaluator:
        for number in (1, 2, 3):
            await evaluator.ended(asked(number).id, within_s=10)

    assert hands.begun == [asked(number).id for number in (2, 1, 3)]


async def test_the_queue_is_bounded(catalog: EvaluationCatalog) -> None:
    """One more than may wait is refused; an equal one is not one more."""
    async with working(catalog, Hands(passing), lanes=0, max_queue=2) as evaluator:
        await evaluator.submit(asked(1))
        await evaluator.submit(asked(2))
        with pytest.raises(EvaluationQueueFull, match="2 evaluations wait"):
            await evaluator.submit(asked(3))
        equal = await evaluator.submit(asked(4, sha256=asked(1).sha256))

        assert equal.id == asked(1).id
        assert (evaluator.depth, evaluator.oldest) == (2, asked(1).created_at)


@pytest.mark.parametrize("lanes", [0, 1], ids=["while it waits", "while it runs"])
async def test_an_evaluation_can_be_cancelled(catalog: EvaluationCatalog, lanes: int) -> None:
    """It ends as cancelled, and the next one is carried out; cancelling twice changes nothing."""
    async with working(catalog, Hands(endless), lanes=lanes) as evaluator:
        await evaluator.submit(asked(1))
        if lanes:
            await until(lambda: evaluator.busy)
        cancelled = await evaluator.cancel(asked(1).id)
        twice = await evaluator.cancel(asked(1).id)

        assert cancelled.status == twice.status == "cancelled"
        assert (evaluator.depth, evaluator.busy) == (0, 0)


async def test_the_progress_is_seen(catalog: EvaluationCatalog) -> None:
    """Who polls sees the stage, and who follows hears each step."""
    async with working(catalog, Hands(endless)) as evaluator:
        await evaluator.submit(asked(1))
        await until(lambda: evaluator.busy)
        await asyncio.sleep(0)
        now = await evaluator.get(asked(1).id)
        heard = []
        async for event in evaluator.feeds.follow(asked(1).id, 0, silence_s=0.05):
            if event is None:
                break
            heard.append((event.id, event.name))

    assert (now.status, now.stage, now.progress) == ("starting", "weights", 0.5)
    assert heard == [(1, "state"), (2, "progress")]


async def test_waiting_ends_when_the_time_is_up(catalog: EvaluationCatalog) -> None:
    """Who waits for too long gets the evaluation as it is."""
    async with working(catalog, Hands(endless)) as evaluator:
        await evaluator.submit(asked(1))

        assert not (await evaluator.ended(asked(1).id, within_s=0.1)).ended


async def test_what_nobody_asked_for_is_not_found(catalog: EvaluationCatalog) -> None:
    """An unknown id is told as such, by every operation."""
    async with working(catalog, Hands(passing)) as evaluator:
        for operation in (evaluator.get, evaluator.cancel):
            with pytest.raises(EvaluationNotFound):
                await operation("ev_0")


async def test_a_catalogue_that_fails_for_a_while_loses_nothing(
    catalog: EvaluationCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end is noted as soon as the catalogue takes it."""
    monkeypatch.setattr("lora_server.evaluation.evaluator.RETRY_S", 0.01)
    noting, failures = catalog.set, iter([True, True])

    async def failing(*args: object, **changes: object) -> Evaluation | None:
        if next(failures, False):
            raise CatalogUnusable("locked")
        return await noting(*args, **changes)  # type: ignore[arg-type]

    monkeypatch.setattr(catalog, "set", failing)
    async with working(catalog, Hands(passing)) as evaluator:
        await evaluator.submit(asked(1))

        assert (await evaluator.ended(asked(1).id, within_s=10)).status == "succeeded"


async def test_a_full_disk_of_the_catalogue_loses_nothing(
    catalog: EvaluationCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked for is refused, what waits is carried out as soon as there is room."""
    monkeypatch.setattr("lora_server.evaluation.evaluator.RETRY_S", 0.01)
    claiming, failures = catalog.claim, iter([True, True])

    async def failing(*args: object) -> Evaluation | None:
        if next(failures, False):
            raise StorageFull("no room")
        return await claiming(*args)  # type: ignore[arg-type]

    async def full(_evaluation: Evaluation) -> None:
        raise StorageFull("no room")

    async with working(catalog, Hands(passing)) as evaluator:
        with monkeypatch.context() as patched:
            patched.setattr(catalog, "add", full)
            with pytest.raises(StorageFull):
                await evaluator.submit(asked(1))
        assert evaluator.depth == 0

        monkeypatch.setattr(catalog, "claim", failing)
        await evaluator.submit(asked(2))
        assert (await evaluator.ended(asked(2).id, within_s=5)).status == "succeeded"


async def test_what_is_to_be_tried_again_may_be_taken_by_any_lane(
    catalog: EvaluationCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lane that looks while another one's work was interrupted goes on, and counts are right."""
    monkeypatch.setattr("lora_server.evaluation.evaluator.RETRY_S", 0.2)
    interrupted = asyncio.Event()

    async def act(evaluation: Evaluation, _tell: Teller) -> str:
        if evaluation.id == asked(1).id and evaluation.attempts == 1:
            interrupted.set()
            raise WorkerAway("nobody there")
        await asyncio.wait_for(interrupted.wait(), 5)
        await asyncio.sleep(0.02)
        return "pass"

    async with working(catalog, Hands(act), lanes=2) as evaluator:
        for number in range(1, 6):
            await evaluator.submit(asked(number))
        ended = [await evaluator.ended(asked(n).id, within_s=5) for n in range(1, 6)]

        assert [one.status for one in ended] == ["succeeded"] * 5
        assert (evaluator.depth, evaluator.busy) == (0, 0)


async def test_what_was_interrupted_can_be_cancelled(
    catalog: EvaluationCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its next try it ends as cancelled, is not tried again and waits no longer."""
    monkeypatch.setattr("lora_server.evaluation.evaluator.RETRY_S", 0.1)

    async def act(_evaluation: Evaluation, _tell: Teller) -> str:
        raise WorkerAway("nobody there")

    hands = Hands(act)
    async with working(catalog, hands) as evaluator:
        await evaluator.submit(asked(1))
        async for event in evaluator.feeds.follow(asked(1).id, 0, silence_s=1):
            if event and event.data.get("status") == "interrupted":
                break
        cancelled = await evaluator.cancel(asked(1).id)
        await asyncio.sleep(0.2)

        assert cancelled.status == (await evaluator.get(asked(1).id)).status == "cancelled"
        assert (evaluator.depth, len(hands.begun)) == (0, 1)


@pytest.mark.parametrize("error", [None, WorkerAway("nobody there")])
async def test_an_end_that_is_being_noted_is_not_overwritten(
    catalog: EvaluationCatalog, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    """Who cancels at the last moment is told the end that stays, and it is told but once."""
    noting, noted = catalog.set, list[object]()
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def slow(evaluation_id: str, **changes: object) -> Evaluation | None:
        noted.append(changes["status"])
        reached.set()
        await go_on.wait()
        return await noting(evaluation_id, **changes)

    async def act(_evaluation: Evaluation, _tell: Teller) -> str:
        if error:
            raise error
        return "pass"

    monkeypatch.setattr(catalog, "set", slow)
    async with working(catalog, Hands(act)) as evaluator:
        await evaluator.submit(asked(1))
        await reached.wait()
        cancelling = asyncio.create_task(evaluator.cancel(asked(1).id))
        await asyncio.sleep(0.05)
        go_on.set()
        told = await cancelling
        await asyncio.sleep(0.05)
        stays = await evaluator.get(asked(1).id)

    assert told.status == stays.status == ("cancelled" if error else "succeeded")
    assert noted == (["interrupted", "cancelled"] if error else ["succeeded"])


async def test_equal_evaluations_asked_for_at_once_are_one(catalog: EvaluationCatalog) -> None:
    """Two people who ask in the same moment get the same evaluation."""
    async with working(catalog, Hands(passing), lanes=0) as evaluator:
        same = asked(1).sha256
        both = await asyncio.gather(
            evaluator.submit(asked(1)), evaluator.submit(asked(2, sha256=same))
        )

        assert len({one.id for one in both}) == evaluator.depth == 1


async def test_what_takes_the_server_down_is_not_tried_for_ever(
    catalog: EvaluationCatalog,
) -> None:
    """After some lives of the server that ended during it, it fails and says why."""
    for _ in range(MAX_ATTEMPTS):
        async with working(catalog, Hands(endless)) as evaluator:
            if not await catalog.get(asked(1).id):
                await evaluator.submit(asked(1))
            await until(partial(getattr, evaluator, "busy"))

    hands = Hands(passing)
    async with working(catalog, hands) as evaluator:
        ended = await evaluator.ended(asked(1).id, within_s=5)

    assert (ended.status, ended.problem, hands.begun) == ("failed", "server_failed", [])
    assert "again and again" in (ended.message or "")


async def test_lists_tell_what_is_at_work(catalog: EvaluationCatalog) -> None:
    """A list shows stage and progress as a poll does, and can be of what runs."""
    async with working(catalog, Hands(endless)) as evaluator:
        await evaluator.submit(asked(1))
        await evaluator.submit(asked(2))
        await until(lambda: evaluator.busy)
        await asyncio.sleep(0)
        page = await evaluator.page(EvaluationQuery(status="running"))

        assert [(one.id, one.progress) for one in page.items] == [(asked(1).id, 0.5)]
