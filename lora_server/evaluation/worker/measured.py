"""What the task `measure` leaves for the task `report`: one text, which nobody between reads."""

import dataclasses
import json
from dataclasses import dataclass

from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypeAliasType

from lora_server.evaluation.report import Finding, Stage, WeightsMeasure


@dataclass(frozen=True, slots=True)
class Measured:
    """The weights of one file, measured."""

    measure: WeightsMeasure
    findings: tuple[Finding, ...]
    features: dict[str, float]
    sketch: str  # base64
    stages: tuple[Stage, ...]


# Only an alias lets the settings reach plain dataclasses.
_MeasuredText = TypeAliasType("_MeasuredText", Measured)
_TEXT: TypeAdapter[Measured] = TypeAdapter(
    _MeasuredText, config=ConfigDict(extra="forbid", allow_inf_nan=False)
)


def write(measured: Measured) -> str:
    """Return what `read` takes; ValueError where a number is not finite."""
    return json.dumps(dataclasses.asdict(measured), allow_nan=False, separators=(",", ":"))


def read(text: bytes) -> Measured:
    """Return what was written; ValueError for anything else."""
    return _TEXT.validate_json(text)
