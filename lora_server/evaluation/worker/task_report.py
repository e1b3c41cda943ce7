"""The task `report`: what was measured, beside what is known of others, as JSON and as a page."""

import base64
import os
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from platform import python_version
from typing import Any

from lora_server.evaluation import schema
from lora_server.evaluation.cohort import cohort, cohort_finding
from lora_server.evaluation.comparison import Comparison
from lora_server.evaluation.neighbours import Known, conflicts, duplicates_finding, neighbours
from lora_server.evaluation.page import render
from lora_server.evaluation.report import EVALUATOR, SCHEMA, Cohort, Report, Stage, Subject, Tier
from lora_server.evaluation.verdict import headline, verdict_of
from lora_server.evaluation.weights.comparing import compare
from lora_server.evaluation.weights.opening import Compared
from lora_server.evaluation.worker import measured
from lora_server.evaluation.worker.measured import Measured
from lora_server.evaluation.worker.tasks import Answer, Progress
from lora_server.judge.reading import read_at

# Of the tier `weights`, whatever the file.
LIMITS = (
    (
        "Images were not looked at: whether it shows its subject, and how strongly to use it, "
        "only the other tiers tell."
    ),
    (
        "No base model is configured: whether its modules land in the base, and how strong they "
        "are beside the base's own weights, is not known."
    ),
)


def run(fds: Sequence[int], progress: Progress, *, about: Mapping[str, Any]) -> Answer:
    """Write the report of the measurement in the first file.

    The second file is the LoRA itself, the others are the candidates that `about` lists in this
    order. The facts are the verdict and how many characters of the text are the report as JSON; the
    rest of it is the page.
    """
    measure, *files = fds
    known = measured.read(read_at(measure, 0, os.fstat(measure).st_size))
    began = time.monotonic()
    compared, skipped = _compared(known, files, about, progress)
    stages = (*known.stages, Stage("comparison", round(time.monotonic() - began, 3)))
    progress(1.0, "writing the report")
    subject = _known(about["lora"])
    twins = [(_known(twin), twin["kind"]) for twin in about["twins"]]
    near, fights = neighbours(subject, compared, twins), conflicts(subject, compared)
    beside = duplicates_finding(near, fights, compared=about["searched"])
    company = _company(known, about)
    findings = [*known.findings, cohort_finding(company), beside]
    findings.sort(key=lambda finding: finding.id)
    report = Report(
        schema=SCHEMA,
        evaluator=EVALUATOR,
        id=about["id"],
        tier=Tier(about["tier"]),
        verdict=verdict_of(findings),
        headline=headline(findings),
        created_at=about["created_at"],
        lora=Subject(**{**about["lora"], "trigger_words": tuple(about["lora"]["trigger_words"])}),
        stages=stages,
        findings=tuple(findings),
        weights=known.measure,
        nearest=near,
        conflicts=fights,
        cohort=company,
        limits=(*LIMITS, *skipped),
        versions=_versions(),
    )
    text = schema.write(report)
    return Answer({"verdict": report.verdict, "report_chars": len(text)}, text + render(report))


def _company(known: Measured, about: Mapping[str, Any]) -> Cohort:
    lora = about["lora"]
    return cohort(
        known.features,
        about["cohort"],
        entity_type=lora["entity_type"],
        base_model=lora["base_model"],
    )


def _versions() -> dict[str, str]:
    libraries = {name: version(name) for name in ("numpy", "safetensors")}
    return {"python": python_version(), **libraries}


def _compared(
    known: Measured,
    files: Sequence[int],
    about: Mapping[str, Any],
    progress: Progress,
) -> tuple[list[tuple[Known, Comparison]], list[str]]:
    """Compare the first file with the others; returns who was, and why anybody was not."""
    candidates = about["candidates"]
    if not candidates:
        return [], []
    opened = [
        Compared(fd, one["extension"], base64.b64decode(one["sketch"]))
        for fd, one in zip(files[1:], candidates, strict=True)
    ]
    own = Compared(files[0], about["extension"], base64.b64decode(known.sketch))
    norms = {
        module.path: module.frobenius
        for module in known.measure.modules
        if module.frobenius is not None
    }
    results = compare(own, norms, opened, progress)
    compared, skipped = [], []
    for candidate, result in zip(candidates, results, strict=True):
        if isinstance(result, Comparison):
            compared.append((_known(candidate), result))
        else:
            skipped.append(f"{candidate['partial_path']} was not compared: {result.reason}.")
    return compared, skipped


def _known(named: Mapping[str, Any]) -> Known:
    return Known(named["partial_path"], named["sha256"], named["entity_type"])
