"""Inert values that a symbolic walk over a pickle builds: nothing here does anything.

Strings, numbers, None, tuples, lists and plain dictionaries stand for themselves.
"""

from dataclasses import dataclass


class Ordered(dict[str | int, object]):
    """What `collections.OrderedDict()` would have made; the one value that BUILD may touch."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Global:
    """A name that a loader would import; here it is only ever a name."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, slots=True)
class Opaque:
    """A harmless value of torch that no tensor depends on, such as a device."""

    kind: str


def is_dict(value: object) -> bool:
    """Tell a dictionary of either kind from everything else."""
    return type(value) in {dict, Ordered}
