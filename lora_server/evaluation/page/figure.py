"""What the page shows of a set of numbers: a picture, how to read it, and the numbers."""

from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under headings; the first cell of a row names it, the others are numbers.

    `texts` are the positions of the columns that hold words. `marked` rows stand out.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: frozenset[int] = frozenset({0})
    marked: frozenset[int] = frozenset()
    note: str = ""  # what is left out


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture with its text alternative."""

    key: str  # an id within the page
    title: str
    reading: str  # in a sentence or two: what is seen, and how to read it
    picture: Markup
    table: Table
    wide: bool = False
