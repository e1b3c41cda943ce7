"""Where the energy sits: a bar for each group, beside the share of parameters that it has."""

from collections.abc import Sequence

from markupsafe import Markup

from lora_server.evaluation.page.figure import Figure, Table
from lora_server.evaluation.page.svg import WIDTH, Drawing
from lora_server.evaluation.report import Group
from lora_server.evaluation.wording import number, percent, shortened

MOST_BARS = 12
_LABEL, _VALUE = 150.0, 58.0
_ROW, _BAR = 24.0, 14.0
_NAME_CHARS = 22


def figure(key: str, title: str, groups: Sequence[Group]) -> Figure | None:
    """Return a bar for each of the strongest groups; None for fewer than two."""
    ordered = sorted(groups, key=lambda group: -group.energy)
    if len(ordered) < 2 or ordered[0].energy <= 0:  # noqa: PLR2004 - one of 100 % says nothing
        return None
    parameters = sum(group.parameter_count for group in groups) or 1
    own = percent(ordered[0].parameter_count / parameters)
    return Figure(
        key=key,
        title=title,
        reading=(
            f"Most of it, {percent(ordered[0].energy)}, is in {shortened(ordered[0].name, 40)}, "
            f"which has {own} of the parameters. A bar that passes its tick is changed more than "
            "its size would suggest."
        ),
        picture=_picture(key, title, ordered, parameters),
        table=_table(title, ordered, parameters),
    )


def _picture(key: str, title: str, groups: Sequence[Group], parameters: int) -> Markup:
    shown = groups[:MOST_BARS]
    told = ", ".join(f"{shortened(g.name, 40)} {percent(g.energy)}" for g in shown)
    height = _ROW * len(shown) + 26
    drawing = Drawing(key, title, f"Bar chart: {told}.", height=height, width=WIDTH)
    room = WIDTH - _LABEL - _VALUE
    largest = max(max(g.energy, g.parameter_count / parameters) for g in shown)
    for row, group in enumerate(shown):
        y = _ROW * row + 5
        length = group.energy / largest * room
        tick = _LABEL + group.parameter_count / parameters / largest * room
        drawing.text((_LABEL - 8, y + 11), shortened(group.name, _NAME_CHARS), anchor="end")
        drawing.rectangle((_LABEL, y), (room, _BAR), "track", round_by=2)
        drawing.rectangle((_LABEL, y), (max(length, 1.0), _BAR), "bar", round_by=2)
        drawing.line((tick, y - 3), (tick, y + _BAR + 3), "tick")
        drawing.text((WIDTH, y + 11), percent(group.energy), "label strong", "end")
    _draw_legend(drawing, _ROW * len(shown) + 16)
    return drawing.markup()


def _draw_legend(drawing: Drawing, y: float) -> None:
    drawing.rectangle((_LABEL, y - 9), (14, 10), "bar", round_by=2)
    drawing.text((_LABEL + 20, y), "energy")
    drawing.line((_LABEL + 88, y - 11), (_LABEL + 88, y + 3), "tick")
    drawing.text((_LABEL + 96, y), "share of parameters")


def _table(title: str, groups: Sequence[Group], parameters: int) -> Table:
    shown = groups[: 2 * MOST_BARS]
    rest = groups[2 * MOST_BARS :]
    left = percent(sum(group.energy for group in rest))
    return Table(
        caption=title,
        head=("Name", "Energy", "Parameters", "Modules", "Strength", "Effective rank"),
        rows=tuple(
            (
                shortened(group.name, 40),
                percent(group.energy),
                percent(group.parameter_count / parameters),
                number(group.module_count),
                number(group.frobenius),
                number(group.effective_rank),
            )
            for group in shown
        ),
        note=f"{len(rest)} more hold {left} of the energy together." if rest else "",
    )
