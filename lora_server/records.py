"""The nouns that travel between modules: immutable, typed, with next to no behaviour."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NewType

PartialPath = NewType("PartialPath", str)  # "styles/ink.safetensors"; made only by names
Filename = NewType("Filename", str)  # a checked stored name; made only by names

NO_TYPE = "no_type_provided"  # the entity type of an upload that names none


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: the subject of a verified token and what the token allows."""

    subject: str
    scopes: frozenset[str]
    jti: str | None = None
    kid: str | None = None


class Place(StrEnum):
    """The three trees that a file can stand in."""

    STAGING = "staging"
    MODELS = "models"
    BIN = "bin"


@dataclass(frozen=True, slots=True)
class Location:
    """Where one file stands: a name in a folder of a tree (staging has no folders)."""

    place: Place
    entity_type: str
    name: str

    @property
    def partial_path(self) -> PartialPath:
        """The path within its tree, as it goes over the wire."""
        return PartialPath(f"{self.entity_type}/{self.name}")


class Source(StrEnum):
    """How the server came to know a file."""

    UPLOAD = "upload"
    FOUND = "found"


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a stat tells of a regular file: enough to notice that it changed."""

    size: int
    mtime_ns: int
    inode: int


class Verdict(StrEnum):
    """Whether a file may be served; one that stands in the tree by hand can be refused too."""

    ACCEPTED = "accepted"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found out about a file at the door."""

    verdict: Verdict
    summary: Mapping[str, Any]  # the short form, or the code and reason of a refusal
    inspection: Mapping[str, Any] | None  # all of it; None in listings
    adapter: str | None = None  # the adapter's family
    base_model: str | None = None  # None where the file cannot tell
    data_begin: int = 0  # where a safetensors file's tensors begin, in bytes; 0 elsewhere


@dataclass(frozen=True, slots=True)
class Override:
    """What an admin says of a LoRA; kept apart from what was detected."""

    base_model: str | None = None
    trigger_words: tuple[str, ...] | None = None
    notes: str | None = None


@dataclass(frozen=True, slots=True)
class StoredLora:
    """One row of the catalogue: a file in the models tree or in the bin, and what is known."""

    id: int
    location: Location
    home_name: str  # the stored name to go back to on restore
    filename: str  # the client's name, without its directory part
    facts: FileFacts
    sha256: str  # of the stored bytes, lower-case hex
    uploaded_sha256: str  # of the bytes as the client sent them
    uploaded_size: int  # bytes as the client sent them
    uploaded_by: str | None
    source: Source
    uploaded_at: int  # seconds since the epoch, UTC
    judgement: Judgement | None  # None until it is judged
    tensors_sha256: str | None  # of the tensor section; None until it is known, or has none
    override: Override
    deleted_at: int | None
    deleted_by: str | None


class EvaluationStatus(StrEnum):
    """How far an evaluation is; whether the LoRA is any good is its verdict."""

    QUEUED = "queued"
    WAITING_GPU = "waiting_gpu"
    STARTING = "starting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"  # by a restart; it is taken up again


WAITING = frozenset({EvaluationStatus.QUEUED, EvaluationStatus.INTERRUPTED})
AT_WORK = frozenset(
    {EvaluationStatus.WAITING_GPU, EvaluationStatus.STARTING, EvaluationStatus.RUNNING}
)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation that was asked for: what of, how, and how far it is."""

    id: str  # ids sort by the time of asking
    sha256: str  # the content that is evaluated, wherever it stands
    partial_path: PartialPath  # where it stood when it was asked for
    tier: str
    plan: Mapping[str, Any]
    plan_key: str  # digest of content, plan and evaluator: equal ones give equal reports
    evaluator: str  # the version of the rules
    requested_by: str | None  # None where the server asked, after an upload
    status: EvaluationStatus
    stage: str  # what is being done, in a word
    progress: float  # 0 to 1
    attempts: int  # how often it was begun
    timeout_s: float
    verdict: str | None
    problem: str | None  # a stable code, where it came to no end
    message: str | None  # the same in a sentence
    created_at: int  # seconds since the epoch, UTC
    started_at: int | None
    finished_at: int | None

    @property
    def ended(self) -> bool:
        """Tell whether nothing more will happen."""
        return self.status not in WAITING | AT_WORK
