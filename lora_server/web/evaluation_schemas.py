"""The shapes of evaluations on the wire; a report's own shape is `evaluation.report`."""

from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StrictInt

from lora_server.evaluation.health import (
    EvaluationHealth,
    GpuHealth,
    QueueHealth,
    TierHealth,
    WorkerHealth,
)
from lora_server.evaluation.report import Report, Tier, Verdict
from lora_server.records import EvaluationStatus
from lora_server.web.library_schemas import PathText, StoredText
from lora_server.web.schemas import Answer, Request, Sha256

MAX_STRENGTHS = 32
MAX_SEEDS = 64
MAX_TIMEOUT_S = 24 * 3600.0

_Strength = Annotated[float, Field(ge=-10, le=10, allow_inf_nan=False)]


class EvaluationRequest(Request):
    """Request model for running an evaluation; only `partial_path` is required."""

    partial_path: PathText = Field(
        description="Relative path of the LoRA file (as returned by upload)"
    )
    tier: Tier = Field(Tier.WEIGHTS, description="How deep to look; all but weights need a GPU")
    base_model: StoredText | None = Field(None, description="A base model of the settings")
    trigger: StoredText | None = Field(None, description="The words that call the subject")
    class_noun: StoredText | None = Field(None, description="What the subject is: jacket, woman")
    reference: StoredText | None = Field(None, description="The name of a set of references")
    strengths: Annotated[list[_Strength], Field(min_length=1, max_length=MAX_STRENGTHS)] | None = (
        Field(None, description="Weights of the LoRA to try")
    )
    seeds: Annotated[StrictInt, Field(ge=1, le=MAX_SEEDS)] | None = Field(
        None, description="Images of each prompt"
    )
    compare_to: PathText | None = Field(None, description="Another stored LoRA to compare with")
    gate: StoredText | None = Field(None, description="The thresholds to judge by, by their name")
    force: StrictBool = Field(
        default=False, description="Evaluate again even where a report is there already"
    )
    validate_only: StrictBool = Field(
        default=False, description="Answer with the plan and its cost, and do nothing"
    )
    timeout_s: Annotated[float, Field(gt=0, le=MAX_TIMEOUT_S)] | None = Field(
        None, description="Seconds that it may take; never more than the settings allow"
    )


class Cost(Answer):
    """What a plan is expected to take."""

    estimated_seconds: float
    images: int
    gpu: bool


class Trouble(Answer):
    """Why an evaluation came to no report; `code` is stable."""

    code: str
    message: str


class EvaluationSummary(Answer):
    """An evaluation: how far it is (`status`), and how good the LoRA is (`verdict`)."""

    id: str | None = Field(description="Null where only a plan was asked for")
    status: EvaluationStatus | None
    verdict: Verdict | None = None
    tier: Tier
    partial_path: str
    sha256: str
    plan: dict[str, Any]
    stage: str = ""
    progress: float = Field(0.0, description="0 to 1, of the stage")
    problem: Trouble | None = None
    requested_by: str | None = Field(None, description="Null where the server evaluates by itself")
    created_at: str | None = None
    started_at: str | None = None
    finished_at: str | None = None


class EvaluationAnswer(EvaluationSummary):
    """An evaluation with its report, once there is one."""

    cached: bool = Field(
        default=False, description="The report was there already: same content, plan and rules"
    )
    cost: Cost | None = Field(None, description="Of the plan, where only that was asked for")
    report: Report | None = None


class EvaluationList(Answer):
    """A page of evaluations, the newest first; `count` is the number of all matches."""

    data: list[EvaluationSummary]
    count: int


class EvaluationListQuery(Request):
    """What a listing of evaluations may ask for."""

    skip: int = Field(0, ge=0, le=2**31, description="How many matches to leave out")
    limit: int = Field(100, ge=1, le=1000, description="How many to return at most")
    status: EvaluationStatus | None = Field(None, description="Only those that are so far")
    verdict: Verdict | None = Field(None, description="Only this verdict")
    tier: Tier | None = Field(None, description="Only this tier")
    sha256: Sha256 | None = Field(None, description="Only this content")
    partial_path: StoredText | None = Field(None, description="Only of the LoRA at this path")


class EvaluationHealthAnswer(Answer):
    """Whether evaluations can be run, from facts that are known already."""

    status: Literal["ok", "degraded", "unavailable"]
    tiers: dict[str, TierHealth]
    queue: QueueHealth
    worker: WorkerHealth
    gpus: tuple[GpuHealth, ...]
    gpu_reason: str = Field("", description="Why no GPU is seen")
    versions: dict[str, str]

    @classmethod
    def of(cls, known: EvaluationHealth) -> "EvaluationHealthAnswer":
        """Return what is known in the shape of the wire."""
        return cls.model_validate(known, from_attributes=True)
