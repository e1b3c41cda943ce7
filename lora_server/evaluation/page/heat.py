"""Energy over the depth of the model: a row for each target, a column for each block."""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

from markupsafe import Markup

from lora_server.evaluation.page.figure import Figure, Table
from lora_server.evaluation.page.svg import CHARACTER, WIDTH, Drawing
from lora_server.evaluation.report import HeatMap
from lora_server.evaluation.wording import percent, shortened

TITLE = "Depth of the model"
MOST_ROWS, MOST_COLUMNS = 16, 128
STEPS = 7  # each twice the one below; the style sheet has a colour for each
_WIDE_FROM = 24  # columns
_LABEL, _CELL_HEIGHT, _LEGEND = 128.0, 20.0, 62.0
_NAME_CHARS = 19
_DIGITS = "0123456789"


def figure(heat_map: HeatMap) -> Figure | None:
    """Return the heat map; None where nothing has a depth."""
    rows = _strongest_rows(heat_map)
    peak = max((cell for _, cells in rows for cell in cells if cell), default=0.0)
    if not peak:
        return None
    columns = heat_map.columns[:MOST_COLUMNS]
    name, place = _peak(rows, columns, peak)
    left_out = len(heat_map.columns) - len(columns)
    rest = f" The first {len(columns)} of {len(heat_map.columns)} blocks." if left_out > 0 else ""
    return Figure(
        key="depth",
        title=TITLE,
        reading=(
            f"Most of it, {percent(peak)} of the energy, sits in {shortened(name, 40)} at block "
            f"{shortened(place, 24)}. Each step of colour is twice the one before; a dot means "
            f"that the file has no such module.{rest}"
        ),
        picture=_Map(rows, columns, peak).drawn(),
        table=_table(rows, columns, len(heat_map.rows) - len(rows)),
        wide=len(columns) > _WIDE_FROM,
    )


Row = tuple[str, tuple[float | None, ...]]


def _strongest_rows(heat_map: HeatMap) -> list[Row]:
    """Return the rows that hold most, in their own order, each as long as the columns."""
    count = min(len(heat_map.columns), MOST_COLUMNS)
    rows = [
        (name, (*cells[:count], *[None] * (count - len(cells))))
        for name, cells in zip(heat_map.rows, heat_map.energy, strict=False)
    ]
    totals = [sum(cell or 0.0 for cell in cells) for _, cells in rows]
    best = sorted(range(len(rows)), key=lambda index: -totals[index])[:MOST_ROWS]
    return [rows[index] for index in sorted(best)]


def _peak(rows: Sequence[Row], columns: Sequence[str], peak: float) -> tuple[str, str]:
    for name, cells in rows:
        if peak in cells:
            return name, columns[cells.index(peak)]
    return "", ""


def _table(rows: Sequence[Row], columns: Sequence[str], left_out: int) -> Table:
    """Return the numbers with blocks downward, as there are more of them than targets."""
    return Table(
        caption="Share of the energy by block and target",
        head=("Block", *(shortened(name, 28) for name, _ in rows)),
        rows=tuple(
            (shortened(column, 28), *(percent(cells[index]) for _, cells in rows))
            for index, column in enumerate(columns)
        ),
        note=f"{left_out} weaker targets are left out." if left_out > 0 else "",
    )


def step(value: float, peak: float) -> int:
    """Return which colour a share has, 0 for the weakest: halving it is one step down."""
    if value <= 0:
        return 0
    return max(0, STEPS - 1 - math.floor(math.log2(peak / value) + 1e-9))


class _Map:
    """The drawing: cells, block numbers under brackets of their kind, and the colour scale."""

    def __init__(self, rows: Sequence[Row], columns: Sequence[str], peak: float) -> None:
        self._rows, self._columns, self._peak = rows, columns, peak
        self._width = 2 * WIDTH if len(columns) > _WIDE_FROM else WIDTH
        self._cell = (self._width - _LABEL) / len(columns)
        self._bottom = _CELL_HEIGHT * len(rows)

    def drawn(self) -> Markup:
        """Return the picture."""
        told = (
            f"Heat map of {len(self._rows)} targets over {len(self._columns)} blocks; the largest "
            f"cell is {percent(self._peak)}."
        )
        height = self._bottom + 40 + _LEGEND
        drawing = Drawing("depth", TITLE, told, height=height, width=self._width)
        for row, (name, cells) in enumerate(self._rows):
            y = _CELL_HEIGHT * row
            words = shortened(name, _NAME_CHARS)
            drawing.text((_LABEL - 6, y + 14), words, anchor="end")
            for column, cell in enumerate(cells):
                self._draw_cell(drawing, (column, row), cell, name)
        self._draw_columns(drawing)
        self._draw_scale(drawing)
        return drawing.markup()

    def _draw_cell(
        self, drawing: Drawing, place: tuple[int, int], cell: float | None, name: str
    ) -> None:
        x, y = _LABEL + self._cell * place[0], _CELL_HEIGHT * place[1]
        if cell is None:
            drawing.circle((x + self._cell / 2, y + _CELL_HEIGHT / 2), 1, "absent")
            return
        tip = f"{shortened(name, 28)}, {shortened(self._columns[place[0]], 20)}: {percent(cell)}"
        size = (max(self._cell - 1, 0.5), _CELL_HEIGHT - 1)
        drawing.rectangle((x, y), size, f"heat-{step(cell, self._peak)}", tip=tip)

    def _draw_columns(self, drawing: Drawing) -> None:
        for name, first, last in _kinds(self._columns):
            begin, end = _LABEL + self._cell * first, _LABEL + self._cell * (last + 1) - 1
            y = self._bottom + 24
            drawing.line((begin, y), (end, y), "axis")
            words = shortened(name, max(3, int((end - begin) / CHARACTER)))
            drawing.text(((begin + end) / 2, y + 13), words, "label strong", "middle")
        spacing = max(1, math.ceil(2.6 * CHARACTER / self._cell))
        for _, first, last in _kinds(self._columns):
            for column in range(first, last + 1, spacing):
                words = _split(self._columns[column])[1]
                x = _LABEL + self._cell * (column + 0.5)
                drawing.text((x, self._bottom + 15), shortened(words, 4), anchor="middle")

    def _draw_scale(self, drawing: Drawing) -> None:
        y, size = self._bottom + 58, (self._width - _LABEL) / STEPS
        size = min(size, 62.0)
        drawing.text((_LABEL - 6, y + 11), "share of the energy", anchor="end")
        for number in range(STEPS):
            x = _LABEL + size * number
            drawing.rectangle((x, y), (size, 14), f"heat-{number}")
            bound = self._peak / 2 ** (STEPS - 1 - number)
            words = f"{100 * bound:.2g} %" if number else "less"
            drawing.text((x + size / 2, y + 28), words, anchor="middle")


def _kinds(columns: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Yield each run of blocks of one kind with its first and last column."""
    for name, run in groupby(enumerate(columns), key=lambda item: _split(item[1])[0]):
        places = [place for place, _ in run]
        yield name, places[0], places[-1]


def _split(column: str) -> tuple[str, str]:
    """Return the kind and the number of a block: "IN 4" is the 4 of IN."""
    kind = column.rstrip(_DIGITS)
    return kind.rstrip(" _."), column[len(kind) :]
