"""What an evaluation says: frozen records of plain data, made to travel as JSON.

Every number is finite; what cannot be measured is None and has its reason beside it. Norms and
singular values are of the weight change dW = scale * up @ down, in the units of the weights.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

SCHEMA = 1  # the version of these shapes
EVALUATOR = "1"  # raised whenever a rule or a formula changes: stored reports are then stale


class Tier(StrEnum):
    """How deep an evaluation goes; all but `weights` need a base model."""

    WEIGHTS = "weights"
    PROBE = "probe"
    QUICK = "quick"
    STANDARD = "standard"
    FULL = "full"

    @property
    def needs_gpu(self) -> bool:
        """Tell whether the base model has to run."""
        return self is not Tier.WEIGHTS


class Verdict(StrEnum):
    """Whether the LoRA is good; apart from whether the job that asks came to its end."""

    PASS = "pass"  # noqa: S105 - the opposite of a fail
    REVIEW = "review"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Result(StrEnum):
    """How one check came out; `review` asks a person to look."""

    PASS = "pass"  # noqa: S105 - the opposite of a fail
    INFO = "info"
    REVIEW = "review"
    WARN = "warn"
    FAIL = "fail"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: how it came out, where, and what to do about it."""

    id: str  # W01 to W12
    name: str  # "Finite values"
    result: Result
    required: bool  # a required check that is unavailable leaves the verdict open
    summary: str  # one sentence with the numbers
    advice: str = ""  # one sentence that says what to do; empty where nothing is to be done
    modules: tuple[str, ...] = ()  # the modules concerned, worst first, at most 20
    module_count: int = 0  # how many are concerned in all
    links: tuple[str, ...] = ()  # partial paths of other LoRAs concerned


@dataclass(frozen=True, slots=True)
class Resize:
    """To what rank a module or file could be cut, and what that keeps."""

    rank: int
    alpha: float | None  # that keeps the scale; None where modules differ
    kept: float  # ||dW after|| / ||dW before||, Frobenius


@dataclass(frozen=True, slots=True)
class ModuleMeasure:
    """One module. `partial` says why something is missing, empty where nothing is."""

    path: str
    family: str
    part: str  # denoiser, prior, te1 …
    group: str  # the block group: IN, MID, OUT, double, single, te1 …
    target: str  # cross attention, feed-forward …
    depth: int | None  # position of its block within the group's kind, from 0
    shape: tuple[int, int] | None  # (out, in) of dW as a matrix; kernels flattened into `in`
    rank: int | None  # declared by the tensors' shapes
    real_rank: int | None  # singular values above 1e-6 of the largest
    alpha: float | None
    scale: float | None
    dtype: str
    frobenius: float | None
    spectral: float | None
    stable_rank: float | None
    effective_rank: float | None
    participation: float | None  # participation ratio
    k90: int | None  # energy ranks
    k99: int | None
    max_entry_bound: float | None
    energy: float | None  # its share of the file's squared Frobenius norm, 0 … 1
    spectrum: tuple[float, ...]  # singular values, largest first, at most 64
    partial: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Modules taken together: by part, by block group or by target."""

    name: str
    module_count: int
    parameter_count: int
    energy: float  # its share of the file's squared Frobenius norm, 0 … 1
    frobenius: float
    effective_rank: float | None  # median over modules
    stable_rank: float | None  # median over modules


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Where in the depth of the model the energy sits; rows are targets, columns are depths.

    `energy[row][column]` is a share of the file's energy, None where there is no module.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    energy: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True, slots=True)
class WeightsMeasure:
    """The whole file, its groups and its modules."""

    module_count: int
    measured_count: int
    partial_count: int  # measured in part only, DoRA for instance
    parameter_count: int
    nonfinite_count: int  # modules that hold NaN or Inf
    zero_count: int  # modules whose dW is zero
    frobenius: float
    spectral: float  # the largest over modules
    rank: float | None  # medians over modules
    effective_rank: float | None
    stable_rank: float | None
    resize: Resize | None  # one rank for all modules that keeps at least 99 % of every norm
    mean_spectrum: tuple[float, ...]  # of the modules' spectra over their first, at most 64
    parts: tuple[Group, ...]
    groups: tuple[Group, ...]
    targets: tuple[Group, ...]
    heat_map: HeatMap
    modules: tuple[ModuleMeasure, ...]  # in file order; the strongest 5,000 where there are more
    modules_cut: int  # how many are left out of `modules`


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another stored LoRA, by the cosine of the two updates."""

    partial_path: str
    sha256: str
    cosine: float  # -1 … 1, over the modules of both files
    overlap: float | None  # of the leading subspaces, 0 … 1; None where not computed
    shared_modules: int
    kind: Literal["same bytes", "same weights", "near duplicate", "same training", "similar"]


@dataclass(frozen=True, slots=True)
class StackConflict:
    """A stored LoRA of another entity type whose update fights for the same directions."""

    partial_path: str
    overlap: float  # energy-weighted overlap of the leading subspaces, 0 … 1
    cosine: float
    summary: str


@dataclass(frozen=True, slots=True)
class CohortFeature:
    """One quantity beside that of the stored LoRAs of the same type and base."""

    name: str
    value: float
    median: float
    mad: float  # median absolute deviation
    robust_z: float | None  # 0.6745 (value - median) / mad; None where mad is 0


@dataclass(frozen=True, slots=True)
class Cohort:
    """The company that a LoRA keeps; never a failure alone."""

    entity_type: str
    base_model: str | None
    size: int
    features: tuple[CohortFeature, ...]
    note: str = ""  # why there is nothing to compare with


@dataclass(frozen=True, slots=True)
class Subject:
    """The LoRA that was evaluated."""

    partial_path: str
    sha256: str
    file_size: int  # bytes
    entity_type: str
    adapter: str | None
    base_model: str | None
    trigger_words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the work and what it took."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """An evaluation from beginning to end."""

    schema: int
    evaluator: str
    id: str
    tier: Tier
    verdict: Verdict
    headline: str  # the verdict and its main reason, in one sentence
    created_at: str  # UTC, ISO 8601, whole seconds, ending in Z
    lora: Subject
    stages: tuple[Stage, ...]
    findings: tuple[Finding, ...]
    weights: WeightsMeasure
    nearest: tuple[Neighbour, ...]
    conflicts: tuple[StackConflict, ...]
    cohort: Cohort
    limits: tuple[str, ...]  # what this evaluation could not tell
    versions: dict[str, str]
