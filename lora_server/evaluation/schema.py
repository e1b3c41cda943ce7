"""The report as JSON: a published schema, a strict reader, and a writer that checks itself."""

import json
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticSerializationError
from typing_extensions import TypeAliasType

from lora_server.errors import ReportInvalid
from lora_server.evaluation.report import SCHEMA, Report
from lora_server.formats.excerpt import excerpt

# 5,000 modules with 64 singular values each and names of 300 characters take 9 MB.
MAX_CHARS = 32 * 1024 * 1024

# Only an alias lets the settings reach plain dataclasses. NaN goes out as such, for `read` to
# refuse it: otherwise it would turn into null without a word.
EvaluationReport = TypeAliasType("EvaluationReport", Report)
_DOCUMENT: TypeAdapter[Report] = TypeAdapter(
    EvaluationReport,
    config=ConfigDict(
        strict=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="constants"
    ),
)


def schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a report."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_DOCUMENT.json_schema(mode="serialization"),
        "title": f"LoRA evaluation report, version {SCHEMA}",
    }


def read(json_text: str | bytes) -> Report:
    """Return the report that a JSON text holds.

    Raises ReportInvalid for a text over MAX_CHARS, for anything that the schema does not allow,
    for NaN, infinities and lone surrogates, and for a report of another schema version.
    """
    if len(json_text) > MAX_CHARS:
        raise ReportInvalid(f"it is longer than {MAX_CHARS} characters")
    try:
        report = _DOCUMENT.validate_json(json_text)
    except ValidationError as error:
        raise ReportInvalid(_reason(error.errors(include_url=False)[0])) from error
    if report.schema != SCHEMA:
        raise ReportInvalid(f"its schema is version {report.schema}, not {SCHEMA}")
    return report


def write(report: Report) -> str:
    """Return the report as JSON that `read` takes; ReportInvalid where it would refuse it."""
    try:
        text = _DOCUMENT.dump_json(report, warnings="error").decode()
    except PydanticSerializationError as error:
        raise ReportInvalid(excerpt(str(error))) from error
    read(text)
    return text


def _reason(error: ErrorDetails) -> str:
    where = ".".join(map(str, error["loc"]))
    return f"{excerpt(where)}: {excerpt(error['msg'])}" if where else excerpt(error["msg"])


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2))  # noqa: T201 - for docs/evaluation-report.schema.json
