"""This LoRA beside the stored ones of its type and base: one strip for each quantity."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lora_server.evaluation.page.figure import Figure, Table
from lora_server.evaluation.page.svg import WIDTH, Drawing
from lora_server.evaluation.report import Cohort, CohortFeature
from lora_server.evaluation.wording import number, shortened

MOST_FEATURES = 16
UNUSUAL = 3.5  # of robust z, after Iglewicz and Hoaglin (1993)
TYPICAL = 0.6745  # half of a normal population lies within this
_TITLE = "Beside its company"
_EDGE = 6.0  # what lies further out is drawn here, as an arrow
_ROW, _MARGIN = 46.0, 16.0
_LOGARITHM = "log10 "
_LARGEST_EXPONENT = 300.0


@dataclass(frozen=True, slots=True)
class _Strip:
    """A quantity in its own units, and how far from the median it lies."""

    name: str
    value: str
    typical: str
    z: float | None

    @property
    def verdict(self) -> str:
        if self.z is None:
            return "not comparable: all the others are equal"
        if abs(self.z) <= TYPICAL:
            return "typical"
        if abs(self.z) < UNUSUAL:
            return "usual"
        return "unusually high" if self.z > 0 else "unusually low"


def figure(cohort: Cohort) -> Figure | None:
    """Return the strips; None where there is nothing to compare with."""
    strips = [_strip(feature) for feature in cohort.features[:MOST_FEATURES]]
    if not strips:
        return None
    return Figure(
        key="company",
        title=_TITLE,
        reading=(
            f"Compared with {number(cohort.size)} stored LoRAs of the same type and base. The "
            "dark band holds the middle half of them, the light band nearly all; the diamond is "
            "this one. Being unusual is information, not a fault."
        ),
        picture=_picture(strips),
        table=_table(strips, len(cohort.features) - len(strips)),
    )


def _strip(feature: CohortFeature) -> _Strip:
    """Return a feature for people: what is a logarithm is shown as what it is of."""
    if not feature.name.startswith(_LOGARITHM):
        return _Strip(feature.name, number(feature.value), number(feature.median), feature.robust_z)
    return _Strip(
        feature.name.removeprefix(_LOGARITHM),
        _power(feature.value),
        _power(feature.median),
        feature.robust_z,
    )


def _power(exponent: float) -> str:
    return number(10 ** min(max(exponent, -_LARGEST_EXPONENT), _LARGEST_EXPONENT))


def _table(strips: Sequence[_Strip], left_out: int) -> Table:
    return Table(
        caption="Quantities beside the median of the company",
        head=("Quantity", "This LoRA", "Median", "Robust z", "In words"),
        rows=tuple(
            (shortened(s.name, 40), s.value, s.typical, number(s.z), s.verdict) for s in strips
        ),
        texts=frozenset({0, 4}),
        note=f"{left_out} more are left out." if left_out > 0 else "",
    )


def _picture(strips: Sequence[_Strip]) -> Markup:
    told = "; ".join(f"{shortened(s.name, 40)}: {s.verdict}" for s in strips)
    drawing = Drawing("company", _TITLE, f"{told}.", height=_ROW * len(strips) + 22)
    for row, strip in enumerate(strips):
        y = _ROW * row
        words = f"{shortened(strip.name, 28)}: {strip.value}"
        drawing.text((_MARGIN, y + 14), words, "label strong")
        drawing.text((WIDTH - _MARGIN, y + 14), f"median {strip.typical}", anchor="end")
        _draw_strip(drawing, strip, y + 28)
    y = _ROW * len(strips) + 12
    drawing.text((_MARGIN, y), "lower")
    drawing.text((WIDTH / 2, y), "median of the company", anchor="middle")
    drawing.text((WIDTH - _MARGIN, y), "higher", anchor="end")
    return drawing.markup()


def _draw_strip(drawing: Drawing, strip: _Strip, y: float) -> None:
    for bound, css in ((_EDGE, "track"), (UNUSUAL, "band"), (TYPICAL, "band-core")):
        drawing.rectangle((_x(-bound), y - 6), (_x(bound) - _x(-bound), 12), css, round_by=2)
    drawing.line((_x(0), y - 9), (_x(0), y + 9), "tick")
    if strip.z is None:
        return
    if abs(strip.z) > _EDGE:
        _draw_arrow(drawing, up=strip.z > 0, y=y)
    else:
        odd = " odd" if abs(strip.z) >= UNUSUAL else ""
        drawing.diamond((_x(strip.z), y), 7, f"own{odd}")


def _draw_arrow(drawing: Drawing, *, up: bool, y: float) -> None:
    side = 1 if up else -1
    tip = _x(side * _EDGE)
    back = tip - side * 12
    drawing.path(((back, y - 7), (tip, y), (back, y + 7), (back, y - 7)), "own odd")


def _x(z: float) -> float:
    return WIDTH / 2 + z / _EDGE * (WIDTH / 2 - _MARGIN)
