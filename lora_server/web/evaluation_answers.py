"""Evaluations become the shapes of the wire."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import web

from lora_server.evaluation.plans import Plan
from lora_server.evaluation.report import Tier, Verdict
from lora_server.records import Evaluation, StoredLora
from lora_server.web.answers import timestamp
from lora_server.web.evaluation_schemas import (
    Cost,
    EvaluationAnswer,
    EvaluationSummary,
    Trouble,
)

_NO_REPORT = b'"report":null}'


def whole(
    evaluation: Evaluation,
    report: bytes | None,
    status: HTTPStatus = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
    *,
    cached: bool = False,
) -> web.Response:
    """Return an evaluation with its report.

    The report goes out as it was kept: it was checked when it was written, and decoding
    megabytes would hold up everybody else.
    """
    answer = EvaluationAnswer(**_fields(evaluation), cached=cached)
    body = answer.model_dump_json().encode()
    if report is not None:
        body = b"".join([body.removesuffix(_NO_REPORT), b'"report":', report, b"}"])
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


def summary(evaluation: Evaluation) -> EvaluationSummary:
    """Return an evaluation without its report."""
    return EvaluationSummary(**_fields(evaluation))


def foreseen(lora: StoredLora, plan: Plan, cost: Mapping[str, Any]) -> EvaluationAnswer:
    """Return what would be evaluated, and what that takes."""
    return EvaluationAnswer(
        id=None,
        status=None,
        tier=plan.tier,
        partial_path=lora.location.partial_path,
        sha256=lora.sha256,
        plan=plan.to_json(),
        cost=Cost.model_validate(cost),
    )


def _fields(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "id": evaluation.id,
        "status": evaluation.status,
        "verdict": Verdict(evaluation.verdict) if evaluation.verdict else None,
        "tier": Tier(evaluation.tier),
        "partial_path": evaluation.partial_path,
        "sha256": evaluation.sha256,
        "plan": dict(evaluation.plan),
        "stage": evaluation.stage,
        "progress": evaluation.progress,
        "problem": (
            Trouble(code=evaluation.problem, message=evaluation.message or "")
            if evaluation.problem
            else None
        ),
        "requested_by": evaluation.requested_by,
        "created_at": timestamp(evaluation.created_at),
        "started_at": _moment(evaluation.started_at),
        "finished_at": _moment(evaluation.finished_at),
    }


def _moment(seconds: int | None) -> str | None:
    return None if seconds is None else timestamp(seconds)
