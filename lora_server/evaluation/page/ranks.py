"""How much of the declared rank is used: for each target, where its modules lie."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from markupsafe import Markup

from lora_server.evaluation.page.figure import Figure, Table
from lora_server.evaluation.page.svg import WIDTH, Drawing
from lora_server.evaluation.report import ModuleMeasure, WeightsMeasure
from lora_server.evaluation.wording import number, shortened

TITLE = "Rank used against rank declared"
MOST_ROWS = 12
_LABEL, _RIGHT, _ROW = 150.0, 16.0, 26.0
_NAME_CHARS = 22


@dataclass(frozen=True, slots=True)
class _Spread:
    """Effective ranks of the modules of one target."""

    name: str
    count: int
    low: float  # a tenth of the modules lie below
    middle: float
    high: float  # a tenth lie above
    declared: float


def figure(weights: WeightsMeasure) -> Figure | None:
    """Return one row for each target; None where no rank was measured."""
    spreads = _spreads(weights.modules)
    if not spreads:
        return None
    return Figure(
        key="ranks",
        title=TITLE,
        reading=(
            "The dot is the median module of each kind, the bar covers the middle 80 % of them, "
            "the tick is the rank that the file declares. A dot far left of its tick means that "
            "most of the rank does little."
        ),
        picture=_picture(spreads),
        table=Table(
            caption="Effective rank by target",
            head=("Target", "Modules", "Lowest tenth", "Median", "Highest tenth", "Declared"),
            rows=tuple(
                (
                    shortened(s.name, 40),
                    *map(number, (s.count, s.low, s.middle, s.high, s.declared)),
                )
                for s in spreads
            ),
        ),
    )


def _spreads(modules: Sequence[ModuleMeasure]) -> list[_Spread]:
    used: dict[str, list[float]] = {}
    declared: dict[str, list[int]] = {}
    for module in modules:
        if module.effective_rank is not None and module.rank is not None:
            used.setdefault(module.target, []).append(module.effective_rank)
            declared.setdefault(module.target, []).append(module.rank)
    biggest = sorted(used, key=lambda name: -len(used[name]))[:MOST_ROWS]
    return [_spread(name, used[name], declared[name]) for name in biggest]


def _spread(name: str, used: list[float], declared: list[int]) -> _Spread:
    tenths = quantiles(used, n=10, method="inclusive") if len(used) > 1 else used
    return _Spread(name, len(used), tenths[0], median(used), tenths[-1], median(declared))


def _picture(spreads: Sequence[_Spread]) -> Markup:
    told = "; ".join(
        f"{shortened(s.name, 40)}: {number(s.middle)} of {number(s.declared)}" for s in spreads
    )
    height = _ROW * len(spreads) + 40
    drawing = Drawing("ranks", TITLE, f"Median used of declared: {told}.", height=height)
    scale = _Scale(max(max(s.declared, s.high) for s in spreads))
    bottom = _ROW * len(spreads)
    for tick in scale.ticks:
        drawing.line((scale.x(tick), 0), (scale.x(tick), bottom), "grid")
        drawing.text((scale.x(tick), bottom + 16), number(tick), anchor="middle")
    drawing.text(((_LABEL + WIDTH) / 2, bottom + 33), "rank, each step doubles", anchor="middle")
    for row, spread in enumerate(spreads):
        y = _ROW * (row + 0.5)
        drawing.text((_LABEL - 8, y + 4), shortened(spread.name, _NAME_CHARS), anchor="end")
        begin, end = scale.x(spread.low), scale.x(spread.high)
        drawing.rectangle((begin, y - 4), (max(end - begin, 1), 8), "spread", round_by=4)
        drawing.line((scale.x(spread.declared), y - 9), (scale.x(spread.declared), y + 9), "tick")
        drawing.circle((scale.x(spread.middle), y), 5, "dot")
    return drawing.markup()


class _Scale:
    """Ranks from 1 on a logarithmic axis."""

    def __init__(self, largest: float) -> None:
        self._doublings = max(1, math.ceil(math.log2(max(largest, 2.0)) - 1e-9))
        stride = math.ceil((self._doublings + 1) / 9)
        self.ticks = [2.0**power for power in range(0, self._doublings + 1, stride)]

    def x(self, rank: float) -> float:
        """Return where a rank lies; effective ranks below 1 do not exist."""
        room = WIDTH - _LABEL - _RIGHT
        return _LABEL + math.log2(max(rank, 1.0)) / self._doublings * room
