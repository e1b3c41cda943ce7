"""Energy over the depth of the model: a row for each target, a column for each block."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from markupsafe import Markup

from lora_server.evaluation.page.figure import Figure, Table
from lora_server.evaluation.page.svg import CHARACTER, WIDTH, Drawing
from lora_server.evaluation.report import HeatMap
from lora_server.evaluation.wording import percent, shortened

TITLE = "Depth of the model"
MOST_ROWS, MOST_COLUMNS, MOST_MAPS = 16, 128, 3
MOST_KINDS = 4  # that are named in a title
STEPS = 7  # each twice the one below; the style sheet has a colour for each
_WIDE_FROM = 24  # columns
_LABEL, _CELL_HEIGHT, _LEGEND = 128.0, 20.0, 62.0
_NAME_CHARS = 19
_DIGITS = "0123456789"


def figures(heat_map: HeatMap) -> list[Figure]:
    """Return a heat map for each set of targets that share blocks, the strongest first.

    A text encoder shares no block with the denoiser: drawn together, most of the map is holes.
    """
    columns = heat_map.columns[:MOST_COLUMNS]
    maps = [_trimmed(rows, columns) for rows in _connected(_rows(heat_map, len(columns)))]
    maps = sorted((one for one in maps if one.peak > 0), key=lambda one: -one.peak)[:MOST_MAPS]
    left_out = len(heat_map.columns) - len(columns)
    return [_figure(one, index, left_out) for index, one in enumerate(maps)]


Row = tuple[str, tuple[float | None, ...]]


class _Cells(NamedTuple):
    """Rows over columns, none of them empty."""

    rows: Sequence[Row]
    columns: Sequence[str]
    peak: float


def _rows(heat_map: HeatMap, count: int) -> list[Row]:
    """Return the rows that hold anything, each as long as the columns."""
    rows = [
        (name, (*cells[:count], *[None] * (count - len(cells))))
        for name, cells in zip(heat_map.rows, heat_map.energy, strict=False)
    ]
    return [(name, cells) for name, cells in rows if any(cell is not None for cell in cells)]


def _connected(rows: Iterable[Row]) -> list[list[Row]]:
    """Return the rows in sets that have no column in common."""
    sets: list[tuple[set[int], list[Row]]] = []
    for row in rows:
        places, members = {i for i, cell in enumerate(row[1]) if cell is not None}, [row]
        apart = []
        for others, held in sets:
            if others & places:
                places, members = places | others, held + members
            else:
                apart.append((others, held))
        sets = [*apart, (places, members)]
    return [members for _, members in sets]


def _trimmed(rows: Sequence[Row], columns: Sequence[str]) -> _Cells:
    """Return the strongest rows in their own order, and the columns that they fill."""
    totals = [sum(cell or 0.0 for cell in cells) for _, cells in rows]
    best = sorted(range(len(rows)), key=lambda index: -totals[index])[:MOST_ROWS]
    kept = [rows[index] for index in sorted(best)]
    used = [i for i in range(len(columns)) if any(cells[i] is not None for _, cells in kept)]
    return _Cells(
        rows=[(name, tuple(cells[i] for i in used)) for name, cells in kept],
        columns=[columns[i] for i in used],
        peak=max((cell for _, cells in kept for cell in cells if cell), default=0.0),
    )


def _figure(cells: _Cells, index: int, left_out: int) -> Figure:
    key = f"depth-{index + 1}"
    kinds = list(dict.fromkeys(_split(column)[0] for column in cells.columns))[:MOST_KINDS]
    title = f"{TITLE}: {', '.join(shortened(kind, 20) for kind in kinds)}"
    name, place = _peak(cells)
    held = sum(cell or 0.0 for _, row in cells.rows for cell in row)
    rest = f" {left_out} further blocks are left out." if left_out > 0 else ""
    return Figure(
        key=key,
        title=title,
        reading=(
            f"{percent(held)} of the energy lies here; the strongest place, with "
            f"{percent(cells.peak)}, is {shortened(name, 40)} at {shortened(place, 24)}. Each "
            "step of colour is twice the one before; a dot means that the file has no such "
            f"module.{rest}"
        ),
        picture=_Map(cells, key, title).drawn(),
        table=_table(cells),
        wide=len(cells.columns) > _WIDE_FROM,
    )


def _peak(cells: _Cells) -> tuple[str, str]:
    for name, row in cells.rows:
        if cells.peak in row:
            return name, cells.columns[row.index(cells.peak)]
    return "", ""


def _table(cells: _Cells) -> Table:
    """Return the numbers with blocks downward, as there are more of them than targets."""
    return Table(
        caption="Share of the energy by block and target",
        head=("Block", *(shortened(name, 28) for name, _ in cells.rows)),
        rows=tuple(
            (shortened(column, 28), *(percent(row[index]) for _, row in cells.rows))
            for index, column in enumerate(cells.columns)
        ),
    )


def step(value: float, peak: float) -> int:
    """Return which colour a share has, 0 for the weakest: halving it is one step down."""
    if value <= 0:
        return 0
    return max(0, STEPS - 1 - math.floor(math.log2(peak / value) + 1e-9))


class _Map:
    """The drawing: cells, block numbers under brackets of their kind, and the colour scale."""

    def __init__(self, cells: _Cells, key: str, title: str) -> None:
        self._rows, self._columns, self._peak = cells
        self._key, self._title = key, title
        self._width = 2 * WIDTH if len(self._columns) > _WIDE_FROM else WIDTH
        self._cell = (self._width - _LABEL) / len(self._columns)
        self._bottom = _CELL_HEIGHT * len(self._rows)

    def drawn(self) -> Markup:
        """Return the picture."""
        told = (
            f"Heat map of {len(self._rows)} targets over {len(self._columns)} blocks; the largest "
            f"cell is {percent(self._peak)}."
        )
        height = self._bottom + 40 + _LEGEND
        drawing = Drawing(self._key, self._title, told, height=height, width=self._width)
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
