"""What becomes of an evaluation that is carried out: every way to end, in the catalogue's words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from lora_server.errors import LoraServerError, StorageFull
from lora_server.evaluation.worker.client import TaskFailed, WorkerAway
from lora_server.records import Evaluation, EvaluationStatus

log = structlog.get_logger(__name__)

MAX_ATTEMPTS = 3  # so that one which takes the worker or the server down cannot do so for ever


class Teller(Protocol):
    """Takes news of an evaluation: any of `status`, `stage` and `progress`."""

    def __call__(self, news: Mapping[str, Any]) -> None:
        """Pass the news on."""
        ...


class Evaluate(Protocol):
    """What carries an evaluation out; returns the verdict once the report is kept."""

    async def __call__(self, evaluation: Evaluation, tell: Teller) -> str:
        """Raise TaskFailed, WorkerAway or a LoraServerError where there is no report."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an evaluation ended, or that it is to be tried again (`interrupted`)."""

    status: EvaluationStatus
    verdict: str | None = None
    problem: str | None = None
    message: str | None = None


async def outcome_of(evaluate: Evaluate, evaluation: Evaluation, tell: Teller) -> Outcome:
    """Carry an evaluation out, and return what became of it."""
    try:
        verdict = await evaluate(evaluation, tell)
    except TaskFailed as failed:
        timed_out = failed.code == EvaluationStatus.TIMED_OUT
        status = EvaluationStatus.TIMED_OUT if timed_out else EvaluationStatus.FAILED
        return Outcome(status, problem=failed.code, message=failed.message)
    except WorkerAway as away:
        if evaluation.attempts < MAX_ATTEMPTS:
            return Outcome(EvaluationStatus.INTERRUPTED, message=str(away))
        return _failed("worker_away", "The worker went away again and again; see its log.")
    except StorageFull as full:
        return _failed("storage_full", str(full))
    except LoraServerError as error:
        why = str(error.__cause__ or getattr(error, "why", error))
        log.warning("evaluation.failed", evaluation=evaluation.id, why=why)
        return _failed("server_failed", str(error))
    return Outcome(EvaluationStatus.SUCCEEDED, verdict=verdict)


async def abandoned() -> Outcome:
    """Return the outcome of one during which the server has ended too often."""
    return _failed("server_failed", "The server ended during it again and again.")


def fault(evaluation: Evaluation, error: BaseException) -> Outcome:
    """Return the outcome of a fault of ours; the log has it whole."""
    log.error("evaluation.fault", evaluation=evaluation.id, exc_info=error)
    return _failed("server_failed", "The server has a fault there; the operator's log says more.")


def _failed(problem: str, message: str) -> Outcome:
    return Outcome(EvaluationStatus.FAILED, problem=problem, message=message)
