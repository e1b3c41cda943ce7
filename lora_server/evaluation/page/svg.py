"""Drawings as SVG: shapes with classes, whose colours the style sheet of the page knows.

The tree is built by ElementTree, which escapes whatever a name may hold.
"""

from collections.abc import Iterable
from typing import Literal
from xml.etree.ElementTree import Element, SubElement, tostring

from markupsafe import Markup

from lora_server.evaluation.wording import printable

Point = tuple[float, float]
Anchor = Literal["start", "middle", "end"]

WIDTH = 440.0  # units; on a phone one is about 0.8 pixels, on a wide screen 1.2
CHARACTER = 6.6  # the width of a letter, about


class Drawing:
    """One picture with an accessible name; coordinates are in units from the top left."""

    def __init__(
        self, key: str, title: str, description: str, *, height: float, width: float = WIDTH
    ) -> None:
        self._root = Element(
            "svg",
            {
                "viewBox": f"0 0 {_units(width)} {_units(height)}",
                "role": "img",
                "aria-labelledby": f"{key}-title {key}-desc",
            },
        )
        SubElement(self._root, "title", {"id": f"{key}-title"}).text = printable(title)
        SubElement(self._root, "desc", {"id": f"{key}-desc"}).text = printable(description)

    def rectangle(
        self, corner: Point, size: Point, css: str, *, tip: str = "", round_by: float = 0
    ) -> None:
        """Draw a rectangle; `tip` shows under the pointer."""
        shape = self._add("rect", css, x=corner[0], y=corner[1], width=size[0], height=size[1])
        if round_by:
            shape.set("rx", _units(round_by))
        if tip:
            SubElement(shape, "title").text = printable(tip)

    def line(self, begin: Point, end: Point, css: str) -> None:
        """Draw a straight line."""
        self._add("line", css, x1=begin[0], y1=begin[1], x2=end[0], y2=end[1])

    def path(self, points: Iterable[Point], css: str) -> None:
        """Draw a line through points."""
        shape = self._add("polyline", css)
        shape.set("points", " ".join(f"{_units(x)},{_units(y)}" for x, y in points))

    def circle(self, centre: Point, radius: float, css: str, *, tip: str = "") -> None:
        """Draw a filled circle."""
        shape = self._add("circle", css, cx=centre[0], cy=centre[1], r=radius)
        if tip:
            SubElement(shape, "title").text = printable(tip)

    def diamond(self, centre: Point, radius: float, css: str) -> None:
        """Draw a square that stands on its corner."""
        x, y = centre
        shape = self._add("polygon", css)
        corners = ((x, y - radius), (x + radius, y), (x, y + radius), (x - radius, y))
        shape.set("points", " ".join(f"{_units(a)},{_units(b)}" for a, b in corners))

    def text(self, at: Point, words: str, css: str = "label", anchor: Anchor = "start") -> None:
        """Write `words` on the baseline at a point."""
        shape = self._add("text", css, x=at[0], y=at[1])
        if anchor != "start":
            shape.set("text-anchor", anchor)
        shape.text = printable(words)

    def markup(self) -> Markup:
        """Return the drawing for a page."""
        return Markup(tostring(self._root, encoding="unicode"))  # noqa: S704 - escaped above

    def _add(self, tag: str, css: str, **numbers: float) -> Element:
        attributes = {name: _units(value) for name, value in numbers.items()}
        return SubElement(self._root, tag, {"class": css, **attributes})


def _units(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
