"""Who follows the bytes of one file."""

from enum import StrEnum
from typing import Protocol


class Step(StrEnum):
    """What is being done with a file."""

    ASK = "asking"
    HASH = "reading"
    SEND = "sending"
    CHECK = "checking"  # the server has it all and judges it
    RECEIVE = "receiving"


class Watcher(Protocol):
    """Is told how a file comes along; from other threads, too."""

    def begins(self, step: Step, total: int | None, *, done: int = 0) -> None:
        """Hear that a step begins, and how many bytes it has in all and behind it."""

    def advances(self, nbytes: int) -> None:
        """Hear that bytes of the current step are done."""


class NobodyWatches:
    """A Watcher where nobody looks."""

    def begins(self, step: Step, total: int | None, *, done: int = 0) -> None:
        """Show nothing."""

    def advances(self, nbytes: int) -> None:
        """Show nothing."""
