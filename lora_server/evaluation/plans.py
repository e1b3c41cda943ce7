"""What exactly is to be evaluated, and the key under which equal work is found again."""

import hashlib
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lora_server.evaluation.report import EVALUATOR, Tier
from lora_server.records import Evaluation, EvaluationStatus, StoredLora

DEFAULT_GATE = "default"


@dataclass(frozen=True, slots=True)
class Plan:
    """An evaluation that can be carried out: everything named in it is known."""

    tier: Tier
    entity_type: str
    base_model: str | None  # the adapter's, as an admin says or as detected
    gate: str = DEFAULT_GATE
    compare_to: str | None = None  # the SHA-256 of another stored LoRA

    @classmethod
    def of(cls, tier: Tier, lora: StoredLora, compare_to: str | None = None) -> "Plan":
        """Return the plan for a LoRA that names nothing else; it is judged beside its like."""
        return cls(tier, lora.location.entity_type, base_model_of(lora), compare_to=compare_to)

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Plan":
        """Restore what `to_json` gave."""
        return cls(**{**data, "tier": Tier(data["tier"])})

    def key(self, sha256: str) -> str:
        """Return the digest that equal plans on equal content share, under equal rules."""
        facts = [EVALUATOR, sha256, self.to_json()]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def base_model_of(lora: StoredLora) -> str | None:
    """Return what an admin says, else what was detected."""
    detected = lora.judgement.base_model if lora.judgement else None
    return lora.override.base_model or detected


# Seconds of one core: measured, see benchmarks/README.md.
_START_S = 0.4
_BYTES_PER_S = 250e6


def cost_of(plan: Plan, file_size: int) -> Mapping[str, Any]:
    """Return what a plan is expected to take."""
    return {
        "gpu": plan.tier.needs_gpu,
        "images": 0,
        "estimated_seconds": round(_START_S + file_size / _BYTES_PER_S, 1),
    }


def asked(
    lora: StoredLora, plan: Plan, *, requested_by: str | None, timeout_s: float
) -> Evaluation:
    """Return the evaluation of a LoRA that was just asked for."""
    milliseconds = time.time_ns() // 1_000_000
    return Evaluation(
        id=f"ev_{milliseconds:012x}{secrets.token_hex(6)}",
        sha256=lora.sha256,
        partial_path=lora.location.partial_path,
        tier=plan.tier,
        plan=plan.to_json(),
        plan_key=plan.key(lora.sha256),
        evaluator=EVALUATOR,
        requested_by=requested_by,
        status=EvaluationStatus.QUEUED,
        stage="",
        progress=0.0,
        attempts=0,
        timeout_s=timeout_s,
        verdict=None,
        problem=None,
        message=None,
        created_at=milliseconds // 1000,
        started_at=None,
        finished_at=None,
    )
