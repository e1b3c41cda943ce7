"""The report as JSON: what is written is read back, and nothing else is read."""

import json
from collections.abc import Callable
from dataclasses import asdict, fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_server.errors import ReportInvalid
from lora_server.evaluation.report import Report
from lora_server.evaluation.schema import MAX_CHARS, read, schema, write
from tests.evaluation.reports import ALL, healthy, huge

PUBLISHED = Path(__file__).parents[2] / "docs" / "evaluation-report.schema.json"
SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(max_size=12),
    int: st.integers(-(2**53), 2**53),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    NoneType: st.none(),
}


def of(hint: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for a type hint of the report, whatever fields it may gain."""
    origin, inner = get_origin(hint), get_args(hint)
    if is_dataclass(hint) and isinstance(hint, type):
        hints = get_type_hints(hint)
        drawn: dict[str, Any] = {field.name: of(hints[field.name]) for field in fields(hint)}
        if hint is Report:
            drawn["schema"] = st.just(1)
        return st.builds(hint, **drawn)
    if origin in {UnionType, Literal}:
        return st.one_of([of(i) for i in inner]) if origin is UnionType else st.sampled_from(inner)
    if origin is dict:
        return st.dictionaries(of(inner[0]), of(inner[1]), max_size=2)
    if origin is tuple and inner[-1] is Ellipsis:
        return st.lists(of(inner[0]), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*map(of, inner))
    return st.sampled_from(list(hint)) if issubclass(hint, Enum) else SCALARS[hint]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(of(Report))
def test_a_report_survives_the_journey(report: Report) -> None:
    """Any report of finite numbers comes back equal, to the last bit of every number."""
    assert read(write(report)) == report


@pytest.mark.parametrize("name", sorted(ALL.keys() - {"huge"}))
def test_realistic_reports_fit_the_schema(name: str) -> None:
    """What is written is what the published schema describes, hostile names included."""
    text = write(ALL[name]())

    jsonschema.Draft202012Validator(schema()).validate(json.loads(text))
    assert read(text) == ALL[name]()


def test_the_largest_report_is_well_within_the_bound() -> None:
    """A report with every module that it may list can be read again."""
    text = write(huge())

    assert read(text) == huge()
    assert len(text) < MAX_CHARS / 2


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_never_written(number: float) -> None:
    """A measure that went wrong is an error where it is written, not null or NaN in a file."""
    report = healthy()
    broken = replace(report, weights=replace(report.weights, frobenius=number))

    with pytest.raises(ReportInvalid, match=r"weights\.frobenius.*finite"):
        write(broken)


def test_what_cannot_be_utf8_is_never_written() -> None:
    """A lone surrogate has no bytes."""
    with pytest.raises(ReportInvalid):
        write(replace(healthy(), headline="\ud800"))


def test_what_is_of_the_wrong_type_is_never_written() -> None:
    """Whoever builds a report with a text for a number hears of it."""
    with pytest.raises(ReportInvalid):
        write(replace(healthy(), id=7))  # type: ignore[arg-type]  # the point


def _without(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda data: data.pop(key)


def _with(key: str, value: object) -> Callable[[dict[str, Any]], Any]:
    return lambda data: data.update({key: value})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_without("verdict"), "verdict"),
        (_with("surprise", 1), "surprise"),
        (_with("verdict", "splendid"), "verdict"),
        (_with("id", 7), "id"),
        (_with("schema", 2), "version 2"),
        (_with("schema", "1"), "schema"),
        (_with("nearest", {}), "nearest"),
        (_with("created_at", None), "created_at"),
    ],
)
def test_what_is_no_report_is_refused(change: Callable[[dict[str, Any]], Any], why: str) -> None:
    """A missing, unknown or mistyped member is named; nothing is guessed or converted."""
    data = json.loads(write(healthy()))
    change(data)

    with pytest.raises(ReportInvalid, match=why):
        read(json.dumps(data))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        '{"schema":',
        b"\xff\xfe",
        "[" * 100_000,
        '{"schema": NaN}',
        '{"schema": 1e999}',
        '{"' + "x" * 10_000 + '": 1}',
    ],
    ids=range(9),
)
def test_garbage_is_refused_in_a_short_sentence(text: str | bytes) -> None:
    """Whatever a broken disk or an enemy holds ends in one error that fits a log line."""
    with pytest.raises(ReportInvalid) as caught:
        read(text)

    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_not_read(literal: str) -> None:
    """JSON has no NaN, and readers that take it anyway are not to be trusted with ours."""
    text = write(replace(healthy(), stages=()))
    data = asdict(healthy())
    assert f'"frobenius":{data["weights"]["frobenius"]}' in text

    with pytest.raises(ReportInvalid, match="finite"):
        read(text.replace(f'"frobenius":{data["weights"]["frobenius"]}', f'"frobenius":{literal}'))


def test_a_text_without_end_is_refused_before_it_is_parsed() -> None:
    """The cost of reading is bounded."""
    with pytest.raises(ReportInvalid, match="longer"):
        read(" " * (MAX_CHARS + 1))


def test_the_schema_is_published_as_it_is() -> None:
    """Programs of others may rely on the file in docs; running the module prints it anew."""
    assert json.loads(PUBLISHED.read_text(encoding="utf-8")) == schema()


def test_the_schema_refuses_what_the_reader_refuses() -> None:
    """The published schema is closed: a member that it does not know is an error there too."""
    data = json.loads(write(healthy()))
    data["weights"]["surprise"] = 1

    with pytest.raises(jsonschema.ValidationError, match="surprise"):
        jsonschema.Draft202012Validator(schema()).validate(data)
