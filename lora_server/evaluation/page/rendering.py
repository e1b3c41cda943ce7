"""A report as one HTML page that needs nothing else: no script, no font, no request."""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from lora_server.evaluation import wording
from lora_server.evaluation.page import bars, company, heat, ranks, spectrum, tables
from lora_server.evaluation.page.figure import Figure
from lora_server.evaluation.report import Finding, Report, Result, Verdict, WeightsMeasure
from lora_server.evaluation.telling import by_severity, first_step, reason, resize_advice

# Over HTTP the same goes into a header, which can forbid framing too.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'"
)
MOST_FINDINGS = 60


class Badge(NamedTuple):
    """How a verdict or a result looks where colour does not count: a word and a sign."""

    word: str
    sign: str
    css: str


class Tile(NamedTuple):
    """One number that matters, large."""

    name: str
    value: str
    note: str


VERDICTS = {
    Verdict.PASS: Badge("Pass", "✓", "good"),
    Verdict.REVIEW: Badge("Review", "!", "look"),
    Verdict.FAIL: Badge("Fail", "✕", "bad"),
    Verdict.INCONCLUSIVE: Badge("Inconclusive", "?", "open"),
}
RESULTS = {
    Result.PASS: Badge("Pass", "✓", "good"),
    Result.INFO: Badge("Note", "i", "note"),
    Result.REVIEW: Badge("Review", "!", "look"),
    Result.WARN: Badge("Warning", "!", "look"),
    Result.FAIL: Badge("Fail", "✕", "bad"),
    Result.UNAVAILABLE: Badge("Not checked", "?", "open"),
}


def render(report: Report) -> str:
    """Return the page; at most about 1.5 MB, however large the report is."""
    findings = by_severity(report.findings)
    weights = report.weights
    return _template().render(
        policy=POLICY,
        report=report,
        badge=VERDICTS[report.verdict],
        badges=RESULTS,
        first_step=first_step(report),
        reason=reason(report),
        tiles=_tiles(report),
        findings=[f for f in findings if f.result is not Result.PASS][:MOST_FINDINGS],
        passed=[f for f in findings if f.result is Result.PASS][:MOST_FINDINGS],
        left_out=_left_out(findings),
        resize_advice=resize_advice(report),
        cuts=tables.cut_table(report),
        rank_figures=_present(spectrum.figure(weights), ranks.figure(weights)),
        place_figures=_place_figures(weights),
        nearest=tables.nearest_table(report),
        conflicts=tables.conflict_table(report),
        company=company.figure(report.cohort),
        modules=tables.module_table(weights),
    )


def _left_out(findings: Sequence[Finding]) -> int:
    passed = sum(finding.result is Result.PASS for finding in findings)
    return max(0, passed - MOST_FINDINGS) + max(0, len(findings) - passed - MOST_FINDINGS)


def _place_figures(weights: WeightsMeasure) -> list[Figure]:
    maps = heat.figures(weights.heat_map)
    bar_charts = _present(
        bars.figure("targets", "Energy by kind of layer", weights.targets),
        bars.figure("groups", "Energy by block group", weights.groups),
        bars.figure("parts", "Energy by part of the model", weights.parts),
    )
    return [*maps[:1], *bar_charts, *maps[1:]]


def _present(*figures: Figure | None) -> list[Figure]:
    return [figure for figure in figures if figure is not None]


def _tiles(report: Report) -> tuple[Tile, ...]:
    weights = report.weights
    used = wording.number(weights.effective_rank)
    resize = weights.resize
    return (
        Tile(
            "Rank in use",
            f"{used} of {wording.number(weights.rank)}",
            "effective and declared rank, medians over modules",
        ),
        Tile(
            "Rank needed",
            wording.number(resize.rank if resize else None),
            f"keeps 99 % of every module, {wording.percent(resize.kept)} of the whole"
            if resize
            else "not known",
        ),
        Tile(
            "Strength",
            wording.number(weights.frobenius),
            f"largest singular value {wording.number(weights.spectral)}",
        ),
        Tile("Modules", wording.number(weights.module_count), _module_note(weights)),
        Tile(
            "File",
            wording.file_size(report.lora.file_size),
            f"{wording.count(weights.parameter_count)} parameters",
        ),
    )


def _module_note(weights: WeightsMeasure) -> str:
    counts = (
        (weights.module_count - weights.measured_count, "not measured"),
        (weights.partial_count, "in part"),
        (weights.nonfinite_count, "with NaN or infinity"),
        (weights.zero_count, "without effect"),
    )
    told = [f"{wording.number(count)} {what}" for count, what in counts if count > 0]
    return ", ".join(told) or "all measured in full"


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("lora_server.evaluation.page"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        short=wording.shortened,
        number=wording.number,
        percent=wording.percent,
        file_size=wording.file_size,
        count=wording.count,
        moment=wording.moment,
    )
    return environment.get_template("report.html")


def _finalize(value: Any) -> Any:
    """Make whatever the template prints printable, so that no place of it can forget to."""
    if value is None:
        return wording.MISSING
    if isinstance(value, str) and not isinstance(value, Markup):
        return wording.printable(str(value))
    return value
