"""What an inspection finds: frozen records of plain data, made to travel as JSON."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lora_server.inspection import plain


class Confidence(StrEnum):
    """How far a base model may be believed.

    `certain`: names and shapes leave one. `likely`: a claim or custom picks among those left.
    `ambiguous`: several are left and nothing picks. `unknown`: nothing is recognised.
    """

    CERTAIN = "certain"
    LIKELY = "likely"
    AMBIGUOUS = "ambiguous"
    UNKNOWN = "unknown"


class Source(StrEnum):
    """Where a piece of evidence comes from; a claim is metadata, the rest is measured."""

    CLAIM = "claim"
    KEYS = "keys"
    SHAPES = "shapes"
    COUNTS = "counts"


@dataclass(frozen=True, slots=True)
class Warned:
    """Something the owner of the file should know; `code` is stable."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Spread:
    """How one quantity varies from module to module."""

    min: float
    max: float
    mode: float


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """The part of an adapter that belongs to one text encoder."""

    slot: str  # te, te1 … te4, as trainers number them
    kind: str  # clip, t5, llm or unknown
    module_count: int


@dataclass(frozen=True, slots=True)
class Adapter:
    """The adapter as measured; counts are of modules."""

    family: str  # the one family, or "mixed"; norms only accompany others
    families: Mapping[str, int]
    spellings: Mapping[str, int]
    module_count: int
    dora_module_count: int
    rank: Spread | None
    alpha: Spread | None
    scale: Spread | None  # alpha / rank, 1 where alpha is missing
    constraint: Spread | None  # what alpha means in OFT
    alpha_count: int
    targets: Mapping[str, int]
    text_encoders: tuple[TextEncoder, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """One observation and the bases that it speaks for."""

    source: Source
    says: tuple[str, ...]
    detail: str


@dataclass(frozen=True, slots=True)
class BaseModel:
    """Which model the adapter belongs to, and why."""

    name: str | None
    confidence: Confidence
    candidates: tuple[str, ...]
    variant: str | None  # a finer name within the base, as far as claimed or measured
    evidence: tuple[Evidence, ...]
    evidence_cut: int
    contradictions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TriggerWord:
    """A word and the one place that names it; the same word from two places stays two."""

    word: str
    source: str


@dataclass(frozen=True, slots=True)
class TriggerWords:
    """Trigger words from the most to the least reliable source."""

    words: tuple[TriggerWord, ...]
    cut: int


@dataclass(frozen=True, slots=True)
class HashClaim:
    """A digest that the file claims of itself, without `0x` and in lower case."""

    source: str
    value: str
    plausible: bool
    reason: str  # why it can never be valid; empty where it can


@dataclass(frozen=True, slots=True)
class Fact:
    """One training fact, in the trainer's words."""

    name: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """A directory of training images; `image_count` is None where the file is silent."""

    name: str
    image_count: int | None


@dataclass(frozen=True, slots=True)
class Tag:
    """A caption tag and how often it was used."""

    name: str
    count: int


@dataclass(frozen=True, slots=True)
class Training:
    """PRIVATE: names of persons and customers, paths and captions may be in here."""

    facts: tuple[Fact, ...]
    facts_cut: int
    datasets: tuple[Dataset, ...]
    datasets_cut: int
    tags: tuple[Tag, ...]
    tags_cut: int


@dataclass(frozen=True, slots=True)
class Inspection:
    """All that one file says of itself, measured and claimed apart."""

    container: str
    tensor_count: int
    parameter_count: int
    dtypes: Mapping[str, int]
    adapter: Adapter
    base_model: BaseModel
    trigger_words: TriggerWords
    hash_claims: tuple[HashClaim, ...]
    warnings: tuple[Warned, ...]
    training: Training

    def to_json(self) -> dict[str, Any]:
        """Return plain data: what `json.dumps` takes without help."""
        data: dict[str, Any] = plain.dump(self)
        return data

    def short(self) -> dict[str, Any]:
        """Return the short form that answers an upload."""
        return {
            "adapter": self.adapter.family,
            "rank": None if self.adapter.rank is None else plain.dump(self.adapter.rank),
            "base_model": self.base_model.name,
            "confidence": str(self.base_model.confidence),
            "candidates": list(self.base_model.candidates),
            "module_count": self.adapter.module_count,
            "trigger_words": [plain.dump(word) for word in self.trigger_words.words],
            "warnings": [plain.dump(warned) for warned in self.warnings],
        }
