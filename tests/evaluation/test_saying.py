"""What a task says is believed only if it is of its kind: the task has read a hostile file."""

import base64
from typing import Any

import pytest

from lora_server.evaluation.report import Verdict
from lora_server.evaluation.weights.sketch_head import HEAD, MAGIC
from lora_server.evaluation.worker.saying import MeasureFacts, ReportFacts, believed


def sketch(body: bytes = b"1234", *, magic: bytes = MAGIC, longer: int = 0) -> str:
    """Return a sketch of some version as it travels."""
    head = HEAD.pack(magic, 9, HEAD.size + len(body) + longer, 1.0, 1.0)
    return base64.b64encode(head + body).decode()


MEASURED = {"sketch": sketch(), "features": {"log10 norm": -1.5}, "nearest": [1, 0]}


def test_what_a_measurement_says_is_taken() -> None:
    """Sketch, features and positions come through."""
    facts = believed(MeasureFacts, MEASURED)

    assert facts.sketch_bytes(among=2).startswith(MAGIC)
    assert (facts.features, facts.nearest) == ({"log10 norm": -1.5}, [1, 0])


@pytest.mark.parametrize(
    "lie",
    [
        {"sketch": ""},
        {"sketch": 3},
        {"sketch": "no base64"},
        {"sketch": sketch(magic=b"EKSL")},
        {"sketch": sketch(longer=1)},
        {"sketch": sketch(longer=-1)},
        {"features": [1]},
        {"features": {"x": "many"}},
        {"features": {"x": float("nan")}},
        {"features": {"x" * 65: 1.0}},
        {"features": {str(n): 1.0 for n in range(65)}},
        {"nearest": [2]},
        {"nearest": [-1]},
        {"nearest": "all"},
        {"nearest": [0] * 65},
        {"nearest": None},
    ],
)
def test_what_no_measurement_says_is_refused(lie: dict[str, Any]) -> None:
    """A torn sketch, for one, would spoil the search of everybody after."""
    with pytest.raises(ValueError, match=r"."):
        believed(MeasureFacts, {**MEASURED, **lie}).sketch_bytes(among=2)


@pytest.mark.parametrize(
    ("verdict", "report_chars"),
    [("splendid", 2), (None, 2), ([], 2), ("pass", 0), ("pass", -1), ("pass", 5), ("pass", "x")],
)
def test_what_no_report_says_is_refused(verdict: object, report_chars: object) -> None:
    """Only a known verdict, and a length that leaves a page."""
    said = {"verdict": verdict, "report_chars": report_chars}
    with pytest.raises(ValueError, match=r"."):
        believed(ReportFacts, said).texts("{}<p>")


def test_what_a_report_says_is_taken() -> None:
    """Its text is parted into report and page."""
    facts = believed(ReportFacts, {"verdict": "pass", "report_chars": 2})

    assert (facts.verdict, facts.texts("{}<p>")) == (Verdict.PASS, ("{}", "<p>"))


@pytest.mark.parametrize("said", [[], None, 3, "text"])
def test_facts_are_an_object(said: object) -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError, match=r"."):
        believed(ReportFacts, said)
