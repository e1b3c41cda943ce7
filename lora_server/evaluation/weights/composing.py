"""How each family's update is put together, as the cheapest thing that can be measured.

Most are a product of two halves. LoHa (B₁ A₁) ∘ (B₂ A₂) is one, too: row i of its `up` is
kron(b1ᵢ, b2ᵢ) and column j of its `down` kron(a1ⱼ, a2ⱼ), of rank r₁ r₂. LoKr is kron(C, W), whose
singular values are all products of theirs. Where a factorisation costs more than the matrix, rows
of the matrix are made a few at a time.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from lora_server.evaluation.weights.adapted import Adapted
from lora_server.evaluation.weights.grams import Pieces
from lora_server.evaluation.weights.numbers import Floats
from lora_server.evaluation.weights.reading import PIECE_ELEMENTS, Reader
from lora_server.evaluation.weights.spectra import MAX_RANK
from lora_server.formats.tensors import Tensor
from lora_server.inspection.families import Family

# LoHa of a larger rank is measured as rows of a matrix.
MAX_PRODUCT_RANK = 256
_STRIPE = 1024 * 1024  # elements made at once


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
    """dW = 2**exponent times a matrix that is made some rows at a time."""

    rows: Pieces
    shape: tuple[int, int]
    used: frozenset[str]
    exponent: int = 0


@dataclass(frozen=True, slots=True)
class Kronecker:
    """dW = kron(left, right)."""

    left: "Halves | Rows"
    right: "Halves | Rows"
    used: frozenset[str]


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """Nothing that norms could be taken of, and why; `broken` where the shapes are at odds."""

    reason: str
    broken: bool = False


Composed = Halves | Rows | Kronecker | Unmeasured

_REASONS = {
    Family.GLORA: "GLoRA multiplies the base's weights, which are not known",
    Family.DIAG_OFT: "OFT turns the base's weights, which are not known",
    Family.BOFT: "BOFT turns the base's weights, which are not known",
    Family.PEFT_OFT: "OFT turns the base's weights, which are not known",
    Family.PEFT_BOFT: "BOFT turns the base's weights, which are not known",
    Family.IA3: "IA3 scales the base's weights, which are not known",
    Family.FULL: "whole weights take the place of the base's, which are not known",
    Family.NORM: "the scales of a norm are no update of a matrix",
    Family.UNKNOWN: "the family is not known",
}


def composed(reader: Reader, module: Adapted) -> Composed:
    """Return how a module's update is put together; its scale is not in it yet."""
    build = _BUILDERS.get(module.family)
    if build is None:
        return Unmeasured(_REASONS.get(module.family, "the family is not known"))
    return build(reader, module)


def matrix_shape(module: Adapted) -> tuple[int, int] | None:
    """Return the shape of an update as a matrix, kernels flattened into its width."""
    geometry, parts = module.geometry, module.parts
    if geometry.outer is None or geometry.inner is None:
        return None
    kernel = next((parts[part].shape[2:] for part in _KERNELS if part in parts), ())
    return geometry.outer, geometry.inner * math.prod(kernel)


# The parts whose dimensions after the second are the kernel, the surest first.
_KERNELS = (
    *("lora_mid", "lora_down", "lora_A.weight", "lora_A", "hada_t1", "lokr_t2", "lokr_w2"),
    *("lokr_w2_b", "diff", "set_weight"),
)


def _lora(reader: Reader, module: Adapted) -> Composed:
    down, up = module.parts[module.rule.down], module.parts[module.rule.up]
    rank = down.shape[0]
    if rank > MAX_RANK:
        return Unmeasured(f"rank {rank} is over the {MAX_RANK} that are measured")
    if up.numel != up.shape[0] * rank:
        return Unmeasured("the up half has a kernel of its own")
    return Halves(
        partial(reader.rows, up),
        partial(reader.columns, down),
        rank,
        frozenset({module.rule.down, module.rule.up}),
    )


_BUILDERS: dict[Family, Callable[[Reader, Adapted], Composed]] = {
    Family.LORA: _lora,
    Family.LOCON: _lora,
    Family.DORA: _lora,
}
