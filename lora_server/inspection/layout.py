"""The repeated structure of an adapter: a few hundred paths become a few dozen patterns."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from lora_server.inspection.geometry import Geometry
from lora_server.inspection.paths import Place

# Real adapters have fewer than 200 patterns; a hostile one pays for no more than this.
MAX_PATTERNS = 2_000


@dataclass(slots=True)
class Group:
    """The modules of one pattern: how many, which widths, which block numbers."""

    slot: str
    pattern: str
    count: int = 0
    numbers: set[tuple[int, ...]] = field(default_factory=set)
    shapes: set[Geometry] = field(default_factory=set)

    @property
    def flat(self) -> str:
        """The pattern as a trainer flattens it."""
        return self.pattern.replace(".", "_")

    def column(self, position: int) -> list[int]:
        """Return the block numbers that occur at one # of the pattern."""
        return [numbers[position] for numbers in self.numbers]


@dataclass(slots=True)
class Layout:
    """All groups of a file, and how many modules fell outside because patterns ran out."""

    groups: list[Group]
    unplaced: int


def lay_out(modules: Iterable[tuple[Place, Geometry]]) -> Layout:
    """Group modules by pattern."""
    groups: dict[tuple[str, str], Group] = {}
    unplaced = 0
    for place, geometry in modules:
        key = (place.slot, place.pattern)
        group = groups.get(key)
        if group is None:
            if len(groups) >= MAX_PATTERNS:
                unplaced += 1
                continue
            group = groups[key] = Group(*key)
        group.count += 1
        group.numbers.add(place.numbers)
        group.shapes.add(geometry)
    return Layout(list(groups.values()), unplaced)
