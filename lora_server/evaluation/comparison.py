"""What is known of two LoRAs beside each other: plain data, made to travel as JSON."""

from dataclasses import dataclass

# Where two updates begin to have something in common that a person would like to know; also what
# the search by sketches is made to find among thousands.
SIMILAR = 0.3


@dataclass(frozen=True, slots=True)
class Comparison:
    """One LoRA beside another; overlaps are shares of this one's energy, 0 to 1.

    `overlap` is phi(i, j) = fro(U1' U2)² / min(i, j) of the leading left singular vectors, which
    span what a module writes; `input_overlap` is that of the right ones, which span what it
    listens to. Modules count by their share of this LoRA's energy, absent ones as 0. Random
    subspaces would have the `expected` ones: max(i, j) over the module's height or width.
    """

    cosine: float  # of the two updates, over the modules of both
    error: float  # its standard error; 0 where it was computed from the weights themselves
    strength: float  # the other's Frobenius norm over this one's
    shared_modules: int  # modules of this LoRA that the other one changes, too
    overlap: float
    expected_overlap: float
    input_overlap: float
    expected_input_overlap: float


@dataclass(frozen=True, slots=True)
class Skipped:
    """Another LoRA that could not be compared, and why."""

    reason: str
