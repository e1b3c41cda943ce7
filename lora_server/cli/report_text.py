"""The short form of an evaluation report for a terminal: what it says, and what to do."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from lora_server.evaluation.report import Finding, Report, Result, Verdict, WeightsMeasure
from lora_server.evaluation.report import Group as ModuleGroup
from lora_server.evaluation.telling import (
    by_severity,
    energy_ranks,
    first_step,
    reason,
    resize_advice,
)
from lora_server.evaluation.wording import count, file_size, number, percent, printable, shortened

MOST_FINDINGS = 12
MOST_MODULES = 3
MOST_BARS = 6
NEAREST = 3
MOST_LIMITS = 5
MOST_WORDS = 6
_BAR_CELLS = 24
_NARROW = 60  # columns; below this a bar leaves no room
_DECADES = 4  # of the sparkline, from its highest block to its lowest
_LONG = 400

_VERDICTS = {
    Verdict.PASS: ("PASS", "bold green"),
    Verdict.REVIEW: ("REVIEW", "bold yellow"),
    Verdict.FAIL: ("FAIL", "bold red"),
    Verdict.INCONCLUSIVE: ("INCONCLUSIVE", "bold magenta"),
}
_RESULTS = {
    Result.PASS: ("pass", "green"),
    Result.INFO: ("note", "cyan"),
    Result.REVIEW: ("review", "yellow"),
    Result.WARN: ("warning", "yellow"),
    Result.FAIL: ("fail", "bold red"),
    Result.UNAVAILABLE: ("not checked", "magenta"),
}


class _Signs(NamedTuple):
    """What pictures are drawn with."""

    steps: str  # from the lowest to the highest
    full: str
    arrow: str


_BLOCKS = _Signs("▁▂▃▄▅▆▇█", "█", "→")
_ASCII = _Signs("_.-=+*%#", "#", "->")


def print_report(report: Report, console: Console | None = None) -> None:
    """Print the short form, to stdout if no console is given.

    Colour and width are the console's: plain in a pipe and with NO_COLOR. What a file or a
    client wrote is escaped, so that no name can steer the terminal; where the output cannot
    hold Unicode, everything is ASCII.
    """
    console = console or Console(highlight=False)
    console.print(_Short(report, console).whole(), highlight=False, markup=False, emoji=False)


class _Short:
    """The parts of the short form, made for one console."""

    def __init__(self, report: Report, console: Console) -> None:
        self._report, self._narrow = report, console.width < _NARROW
        self._ascii = console.options.ascii_only
        self._signs = _ASCII if self._ascii else _BLOCKS

    def whole(self) -> RenderableType:
        """Return everything that is printed."""
        parts: list[RenderableType] = [*self._head(), Text(), self._facts()]
        parts += self._under("Findings", self._findings())
        parts += self._under("Energy", self._energy())
        parts += self._under("Nearest", self._nearest())
        parts += self._under("Not told", self._limits())
        return Group(*parts)

    def _text(self, words: str, style: str = "") -> Text:
        """Return printable text; the only door through which words reach the terminal."""
        clean = printable(words)
        if self._ascii:
            clean = clean.replace("\N{EN DASH}", "-").replace("…", "...")
            clean = clean.encode("ascii", "backslashreplace").decode()
        return Text(clean, style=style, overflow="fold")

    def _head(self) -> list[Text]:
        report = self._report
        word, style = _VERDICTS[report.verdict]
        first = self._text(word, style)
        first.append("  ").append_text(self._text(shortened(report.lora.partial_path, 60), "bold"))
        step = self._text("First: ", "bold")
        step.append_text(self._text(shortened(first_step(report), _LONG)))
        return [first, self._text(shortened(reason(report), _LONG)), step]

    def _facts(self) -> Table:
        lora, weights = self._report.lora, self._report.weights
        known = " for ".join(shortened(w, 30) for w in (lora.adapter, lora.base_model) if w)
        strongest = f"at most {number(weights.spectral)} in one direction of a module"
        words_of = {
            "LoRA": f"{known or 'of an unknown kind'}, {shortened(lora.entity_type, 30)}",
            "Triggers": ", ".join(shortened(word, 30) for word in lora.trigger_words[:MOST_WORDS]),
            "Size": f"{file_size(lora.file_size)}, {_modules(weights)}",
            "Strength": f"{number(weights.frobenius)}, {strongest}",
            "Rank": resize_advice(self._report),
        }
        table = _grid()
        for name, words in words_of.items():
            if words:
                table.add_row(self._text(name, "dim"), self._text(words))
        spark = self._sparkline(weights)
        if spark:
            table.add_row(self._text("Spectrum", "dim"), self._text(spark, "cyan"))
            table.add_row("", self._text(_legend(weights), "dim"))
        return table

    def _sparkline(self, weights: WeightsMeasure) -> str:
        """Return a block for one or two singular values each, on a logarithmic scale."""
        values = weights.mean_spectrum[:: 2 if self._narrow else 1]
        first = values[0] if values else 0.0
        return "".join(self._signs.steps[_step(value, first)] for value in values)

    def _findings(self) -> list[RenderableType]:
        findings = by_severity(self._report.findings)
        shown = [f for f in findings if f.result is not Result.PASS]
        passed = len(findings) - len(shown)
        table = _grid()
        for finding in shown[:MOST_FINDINGS]:
            word, style = _RESULTS[finding.result]
            table.add_row(self._text(word, style), self._finding(finding))
        if len(shown) > MOST_FINDINGS:
            table.add_row("", self._text(f"{count(len(shown) - MOST_FINDINGS)} more", "dim"))
        if passed:
            table.add_row(self._text("pass", "green"), self._text(f"{count(passed)} checks"))
        return [table] if table.row_count else []

    def _finding(self, finding: Finding) -> Group:
        head = self._text(shortened(finding.id, 12), "dim")
        head.append(" ").append_text(self._text(shortened(finding.name, 40), "bold"))
        lines = [head, self._text(shortened(finding.summary, _LONG))]
        if finding.advice:
            lines.append(self._text(f"{self._signs.arrow} {shortened(finding.advice, _LONG)}"))
        named = (*finding.modules, *finding.links)[:MOST_MODULES]
        lines += [self._text(shortened(name, 60), "dim") for name in named]
        rest = max(finding.module_count, len(finding.modules)) + len(finding.links) - len(named)
        if named and rest > 0:
            lines.append(self._text(f"and {count(rest)} more", "dim"))
        return Group(*lines)

    def _energy(self) -> list[RenderableType]:
        weights = self._report.weights
        tables = [self._bars(groups) for groups in (weights.parts, weights.targets)]
        shown: list[RenderableType] = []
        for table in tables:
            if table.row_count > 1:
                shown += [Text(), table] if shown else [table]
        return shown

    def _bars(self, groups: Sequence[ModuleGroup]) -> Table:
        table = _grid(18 if self._narrow else 26)
        ordered = sorted(groups, key=lambda group: -group.energy)
        for group in ordered[:MOST_BARS]:
            bar = "" if self._narrow else self._signs.full * round(group.energy * _BAR_CELLS)
            line = self._text(f"{percent(group.energy):>7} ")
            line.append_text(self._text(bar, "cyan"))
            table.add_row(self._text(shortened(group.name, 18 if self._narrow else 26)), line)
        return table

    def _nearest(self) -> list[RenderableType]:
        table = _grid()
        for one in self._report.nearest[:NEAREST]:
            words = self._text(one.kind)
            words.append("  ").append_text(self._text(shortened(one.partial_path, 60), "bold"))
            table.add_row(self._text(f"{one.cosine:.4f}"), words)
        return [table] if table.row_count else []

    def _limits(self) -> list[RenderableType]:
        limits = self._report.limits
        lines = [self._text(f"- {shortened(limit, _LONG)}", "dim") for limit in limits]
        rest = len(limits) - MOST_LIMITS
        more = [self._text(f"- and {count(rest)} more", "dim")] if rest > 0 else []
        return [*lines[:MOST_LIMITS], *more]

    def _under(self, title: str, parts: Iterable[RenderableType]) -> list[RenderableType]:
        shown = list(parts)
        return [Text(), self._text(title, "bold underline"), *shown] if shown else []


def _grid(width: int = 11) -> Table:
    """Return a table without lines: a narrow first column, and the rest of the line."""
    table = Table.grid(padding=(0, 2, 0, 0), expand=False)
    table.add_column(min_width=width, no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _modules(weights: WeightsMeasure) -> str:
    odd = (
        (weights.module_count - weights.measured_count, "not measured"),
        (weights.partial_count, "in part"),
    )
    told = "".join(f", {count(many)} {what}" for many, what in odd if many > 0)
    size = f"{count(weights.parameter_count)} parameters"
    return f"{size} in {count(weights.module_count)} modules{told}"


def _legend(weights: WeightsMeasure) -> str:
    k90, k99 = energy_ranks(weights)
    if k90 is None or k99 is None:
        return "singular values, log scale"
    held = f"{number(k90)} hold 90 % of a module's energy, {number(k99)} hold 99 %"
    return f"singular values, log scale; {held}"


def _step(value: float, first: float) -> int:
    if value <= 0 or first <= 0:
        return 0
    depth = -math.log10(value / first) / _DECADES
    return round(7 * (1 - min(max(depth, 0.0), 1.0)))
