"""Singular values over their number, on a logarithmic axis, with the ranks that matter marked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lora_server.evaluation.page.figure import Figure, Table
from lora_server.evaluation.page.svg import CHARACTER, WIDTH, Drawing
from lora_server.evaluation.report import WeightsMeasure
from lora_server.evaluation.telling import energy_ranks, strongest
from lora_server.evaluation.wording import MISSING, number, percent, shortened

TITLE = "How fast the singular values fall"
STRONGEST = 3
_LEFT, _RIGHT, _HEIGHT = 48.0, 12.0, 190.0
_ROW = 16.0
_MAX_DECADES, _FEW_DECADES = 6, 2
_NAME_CHARS = 54
_TICKS = (1, 8, 16, 32, 48, 64)


@dataclass(frozen=True, slots=True)
class _Series:
    name: str
    values: tuple[float, ...]  # over the first


@dataclass(frozen=True, slots=True)
class _Mark:
    name: str
    rank: float
    css: str


def figure(weights: WeightsMeasure) -> Figure | None:
    """Return the mean spectrum and those of the strongest modules; None where there is none."""
    series = _series(weights)
    if not series or not series[0].values:
        return None
    marks = _marks(weights, len(series[0].values))
    return Figure(
        key="spectrum",
        title=TITLE,
        reading=_reading(weights),
        picture=_Plot(series, marks).drawn(),
        table=_table(series),
    )


def _series(weights: WeightsMeasure) -> list[_Series]:
    found = [_Series("Mean of all modules", _over_first(weights.mean_spectrum))]
    for module in strongest(weights.modules, STRONGEST):
        if module.spectrum:
            name = shortened(module.path, _NAME_CHARS)
            found.append(_Series(name, _over_first(module.spectrum)))
    return found


def _over_first(values: Sequence[float]) -> tuple[float, ...]:
    first = values[0] if values and values[0] > 0 else 1.0
    return tuple(value / first for value in values)


def _marks(weights: WeightsMeasure, length: int) -> list[_Mark]:
    k90, k99 = energy_ranks(weights)
    candidates = [("90 % of the energy", k90, "mark"), ("99 % of the energy", k99, "mark")]
    if weights.resize is not None:
        candidates.append(("keeps 99 % of every module", weights.resize.rank, "mark own"))
    candidates.append(("declared rank", weights.rank, "mark"))
    known = [_Mark(name, rank, css) for name, rank, css in candidates if rank is not None]
    return sorted((m for m in known if 1 <= m.rank <= length), key=lambda mark: mark.rank)


def _reading(weights: WeightsMeasure) -> str:
    told = (
        "Each module's change is a sum of directions, strongest first. A curve that falls steeply "
        "needs few of them; one that stays flat uses its whole rank."
    )
    length = len(weights.mean_spectrum)
    beyond = weights.rank is not None and weights.rank > length
    rest = f" The declared rank, {number(weights.rank)}, lies beyond the {length} shown."
    return f"{told}{rest if beyond else ''}"


def _table(series: Sequence[_Series]) -> Table:
    length = len(series[0].values)
    numbers = sorted({1, 2, 4, 8, 16, 32, 64, length} & set(range(1, length + 1)))
    return Table(
        caption="Singular values as a share of the largest",
        head=("Curve", *(f"{k}." for k in numbers)),
        rows=tuple(
            (
                one.name,
                *(_share(one.values[k - 1]) if k <= len(one.values) else MISSING for k in numbers),
            )
            for one in series
        ),
    )


def _share(value: float) -> str:
    return percent(value) if value >= 0.001 else number(value)  # noqa: PLR2004 - one decimal


class _Plot:
    """The drawing: marks on top, curves, axes, and a line of legend for each curve."""

    def __init__(self, series: Sequence[_Series], marks: Sequence[_Mark]) -> None:
        self._series, self._marks = series, marks
        self._length = max(len(one.values) for one in series)
        self._top = _ROW * len(marks) + 8
        self._bottom = self._top + _HEIGHT
        least = min((v for one in series for v in one.values if v > 0), default=1.0)
        self._decades = min(_MAX_DECADES, max(1, math.ceil(-math.log10(least))))

    def drawn(self) -> Markup:
        """Return the picture."""
        height = self._bottom + 42 + _ROW * len(self._series)
        drawing = Drawing("spectrum", TITLE, self._description(), height=height, width=WIDTH)
        self._draw_axes(drawing)
        self._draw_marks(drawing)
        for place, one in reversed(list(enumerate(self._series))):
            points = [(self._x(k), self._y(value)) for k, value in enumerate(one.values, 1)]
            drawing.path(points, f"curve curve-{place}")
        self._draw_legend(drawing)
        return drawing.markup()

    def _description(self) -> str:
        mean = self._series[0].values
        tenth = next((k for k, value in enumerate(mean, 1) if value < 0.1), None)  # noqa: PLR2004
        told = f"Line chart of {len(self._series)} curves over {self._length} singular values."
        fall = f"falls below a tenth of the first at number {tenth}" if tenth else "stays high"
        marks = "; ".join(f"{number(mark.rank)}: {mark.name}" for mark in self._marks)
        return f"{told} The mean {fall}. {f'Marked: {marks}.' if marks else ''}"

    def _x(self, k: float) -> float:
        return _LEFT + (k - 1) / max(self._length - 1, 1) * (WIDTH - _LEFT - _RIGHT)

    def _y(self, value: float) -> float:
        depth = self._decades if value <= 0 else min(-math.log10(value), self._decades)
        return self._top + max(depth, 0.0) / self._decades * _HEIGHT

    def _draw_axes(self, drawing: Drawing) -> None:
        between = (1.0, 0.5, 0.2) if self._decades <= _FEW_DECADES else (1.0,)
        shares = [part / 10**decade for decade in range(self._decades) for part in between]
        for share in (*shares, 10.0**-self._decades):
            y = self._y(share)
            drawing.line((_LEFT, y), (WIDTH - _RIGHT, y), "grid")
            drawing.text((_LEFT - 6, y + 4), f"{100 * share:g} %", anchor="end")
        for k in sorted({*_TICKS, self._length}):
            crowded = k != self._length and self._length - k < self._length / 12
            if k <= self._length and not crowded:
                drawing.text((self._x(k), self._bottom + 16), str(k), anchor="middle")
        middle = (_LEFT + WIDTH - _RIGHT) / 2
        drawing.text((middle, self._bottom + 32), "number of the singular value", anchor="middle")

    def _draw_marks(self, drawing: Drawing) -> None:
        for row, mark in enumerate(self._marks):
            x, y = self._x(mark.rank), _ROW * (row + 1) - 4
            drawing.line((x, y - 8), (x, self._bottom), mark.css)
            words = f"{number(mark.rank)}: {mark.name}"
            length = len(words) * CHARACTER
            if x + 6 + length < WIDTH:
                drawing.text((x + 6, y), words, "label strong halo")
            else:
                drawing.text((max(x - 6, length), y), words, "label strong halo", "end")

    def _draw_legend(self, drawing: Drawing) -> None:
        for place, one in enumerate(self._series):
            y = self._bottom + 52 + _ROW * place
            drawing.line((_LEFT - 40, y - 4), (_LEFT - 8, y - 4), f"curve curve-{place}")
            drawing.text((_LEFT, y), one.name)
