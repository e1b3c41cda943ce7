"""What a task may say, as types. It has read a hostile file, so that nothing else is believed."""

import base64
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from lora_server.evaluation.report import Verdict
from lora_server.evaluation.weights.sketch_head import is_whole

T = TypeVar("T", bound=BaseModel)

MAX_NEAREST = 64
MAX_FEATURES = 64

_Number = Annotated[float, Field(allow_inf_nan=False)]
_Stage = Annotated[str, StringConstraints(max_length=200)]
_Code = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
_Sentence = Annotated[str, StringConstraints(max_length=4096)]
_FeatureName = Annotated[str, StringConstraints(max_length=64)]


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class News(_Said):
    """How far a task is; only what was said is set."""

    status: Literal["waiting_gpu", "starting", "running"] = "running"
    stage: _Stage = ""
    progress: Annotated[_Number, Field(ge=0, le=1)] = 0.0


class Failure(_Said):
    """Why there is no result."""

    code: _Code
    message: _Sentence


class MeasureFacts(_Said):
    """The facts of the task `measure`."""

    sketch: str
    features: Annotated[dict[_FeatureName, _Number], Field(max_length=MAX_FEATURES)]
    nearest: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=MAX_NEAREST)]

    def sketch_bytes(self, among: int) -> bytes:
        """Return the sketch; ValueError where it is none or one of `among` others is unknown."""
        sketch = base64.b64decode(self.sketch, validate=True)
        if not is_whole(sketch):
            raise ValueError("this is no sketch")
        if any(position >= among for position in self.nearest):
            raise ValueError(f"a position is beyond the {among} sketches")
        return sketch


class ReportFacts(_Said):
    """The facts of the task `report`."""

    verdict: Verdict
    report_chars: Annotated[int, Field(gt=0)]

    def texts(self, text: str) -> tuple[str, str]:
        """Return report and page; ValueError where one of them is missing."""
        if self.report_chars >= len(text):
            raise ValueError("there is no page after the report")
        return text[: self.report_chars], text[self.report_chars :]


def believed(kind: type[T], said: Any) -> T:
    """Return what was said; ValueError where it is not of its kind."""
    return kind.model_validate(said)


def news(said: Any) -> Mapping[str, Any]:
    """Return news as plain data; ValueError where it is none."""
    return believed(News, said).model_dump(exclude_unset=True)


def failure(said: Any) -> Failure:
    """Return a failure; ValueError where it is none."""
    code, message = said if isinstance(said, list) and len(said) == 2 else (None, None)  # noqa: PLR2004
    return believed(Failure, {"code": code, "message": message})


def piece(said: Any) -> str:
    """Return a piece of a text; ValueError where it is none, or none that can be written."""
    if not isinstance(said, str):
        raise ValueError("this is no text")  # noqa: TRY004 - as everything here
    said.encode()
    return said
