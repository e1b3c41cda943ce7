"""What a part of the benchmark finds."""

from typing import NamedTuple


class Row(NamedTuple):
    """One line of the table."""

    what: str
    figure: str
    aim: str
