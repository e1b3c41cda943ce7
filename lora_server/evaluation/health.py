"""What can be evaluated at this moment, from facts that are known already."""

from dataclasses import dataclass
from typing import Literal

from lora_server.config import EvaluationConfig
from lora_server.evaluation.evaluator import Evaluator
from lora_server.evaluation.report import Tier
from lora_server.evaluation.worker.client import Worker

OFF = "evaluations are switched off on this server ([evaluation] enabled)"
NO_WORKER = "no evaluation worker answers; it may be starting"
NO_BASE_MODEL = "no base model is configured"
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class TierHealth:
    """Whether a tier can run, and why not."""

    available: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class QueueHealth:
    """What waits and what is at work."""

    depth: int
    limit: int
    oldest_s: int | None
    running: int


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """The worker, as of its last heartbeat."""

    state: Literal["idle", "busy", "away", "off"]
    last_heartbeat_s: float | None


@dataclass(frozen=True, slots=True)
class GpuHealth:
    """One GPU's memory; what is reserved stays free for inference."""

    free_mib: int
    total_mib: int
    reserved_mib: int


@dataclass(frozen=True, slots=True)
class EvaluationHealth:
    """The answer to whether evaluations can be run."""

    status: Literal["ok", "degraded", "unavailable"]
    tiers: dict[str, TierHealth]
    queue: QueueHealth
    worker: WorkerHealth
    gpus: tuple[GpuHealth, ...]
    gpu_reason: str
    versions: dict[str, str]


def health(
    config: EvaluationConfig, evaluator: Evaluator, worker: Worker, *, now: float
) -> EvaluationHealth:
    """Return what is known; asks nobody, so that it takes no time. `now` is since the epoch."""
    alive = config.enabled and worker.alive
    facts = worker.facts if alive else {}
    reason = "" if alive else NO_WORKER if config.enabled else OFF
    tiers = {tier.value: TierHealth(available=False, reason=NO_BASE_MODEL) for tier in Tier}
    tiers[Tier.WEIGHTS] = TierHealth(available=alive, reason=reason)
    oldest = evaluator.oldest
    queue = QueueHealth(
        depth=evaluator.depth,
        limit=config.max_queue,
        oldest_s=None if oldest is None else max(int(now) - oldest, 0),
        running=evaluator.busy,
    )
    full = queue.depth >= queue.limit
    return EvaluationHealth(
        status="unavailable" if not alive else "degraded" if full else "ok",
        tiers=tiers,
        queue=queue,
        worker=WorkerHealth(_state(config, evaluator, worker), _rounded(worker.silence_s)),
        gpus=tuple(
            GpuHealth(gpu["free"] // MIB, gpu["total"] // MIB, config.gpu_reserve // MIB)
            for gpu in facts.get("gpus", ())
        ),
        gpu_reason=facts.get("gpu_reason", reason),
        versions=dict(facts.get("versions", {})),
    )


def _state(
    config: EvaluationConfig, evaluator: Evaluator, worker: Worker
) -> Literal["idle", "busy", "away", "off"]:
    if not config.enabled:
        return "off"
    if not worker.alive:
        return "away"
    return "busy" if evaluator.busy else "idle"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
