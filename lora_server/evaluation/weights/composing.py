"""How an update is put together: what the builders return and the measuring takes."""

import math
from dataclasses import dataclass

from lora_server.evaluation.weights.adapted import Adapted
from lora_server.evaluation.weights.grams import Pieces


@dataclass(frozen=True, slots=True)
class Halves:
    """dW = 2**exponent up @ down: rows of `up`, and rows of the transpose of `down`."""

    up: Pieces
    down: Pieces
    rank: int
    used: frozenset[str]  # the parts that are in it
    exponent: int = 0


@dataclass(frozen=True, slots=True)
class Rows:
    """dW, or its transpose, is 2**exponent times a matrix that is made some rows at a time.

    Of the two the one with the shorter rows, `width` long.
    """

    rows: Pieces
    width: int
    transposed: bool
    used: frozenset[str]
    exponent: int = 0


@dataclass(frozen=True, slots=True)
class Kronecker:
    """dW = kron(left, right)."""

    left: Halves | Rows
    right: Halves | Rows
    used: frozenset[str]


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """Nothing that norms could be taken of, and why; `broken` where the shapes are at odds."""

    reason: str
    broken: bool = False
    zero_is_nothing: bool = False  # all zeros leave the base's weights as they are


Composed = Halves | Rows | Kronecker | Unmeasured

# The parts whose dimensions after the second are the kernel, the surest first.
_KERNELS = (
    *("lora_mid", "lora_down", "lora_A.weight", "lora_A", "hada_t1", "lokr_t2", "lokr_w2"),
    *("lokr_w2_b", "diff", "set_weight"),
)


def matrix_shape(module: Adapted) -> tuple[int, int] | None:
    """Return the shape of an update as a matrix, kernels flattened into its width."""
    geometry, parts = module.geometry, module.parts
    if geometry.outer is None or geometry.inner is None:
        return None
    kernel = next((parts[part].shape[2:] for part in _KERNELS if part in parts), ())
    return geometry.outer, geometry.inner * math.prod(kernel)
