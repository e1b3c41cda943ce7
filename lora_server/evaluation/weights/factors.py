"""Factors in memory: scaled to entries of at most 1, Tucker cores contracted into the inner one.

With a Tucker core t of shape (r, r, …kernel) a module stores its outer factor as (r, out) or
(out, r) and its inner one as (r, in); the inner one that counts is t contracted with it over the
core's second axis, of shape (r, in * kernel).
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lora_server.evaluation.weights.grams import exponent_of, shifted
from lora_server.evaluation.weights.numbers import Floats
from lora_server.evaluation.weights.reading import PIECE_ELEMENTS, Reader
from lora_server.formats.tensors import Tensor


class Factor(NamedTuple):
    """2**exponent times an array whose largest entry is between 1/2 and 1 (or 0)."""

    array: npt.NDArray[np.float32]
    exponent: int


def fits(*counts: int) -> bool:
    """Whether arrays of so many elements may be held at once."""
    return all(count <= PIECE_ELEMENTS for count in counts)


def stored(reader: Reader, tensor: Tensor) -> Factor:
    """Return a tensor, flattened to its first axis, as an array of its own."""
    return scaled_down(reader.whole(tensor).reshape(tensor.shape[0], -1))


def scaled_down(array: Floats) -> Factor:
    """Return an array as a factor; NaN and Inf stay what they are."""
    exponent = exponent_of(lambda: iter((array,))) or 0
    with np.errstate(all="ignore"):
        return Factor(shifted(array, -exponent).astype(np.float32), exponent)


def contracted(reader: Reader, core: Tensor, inner: Tensor) -> Factor:
    """Return the core contracted with the inner factor, of shape (r, in * kernel)."""
    rank = core.shape[0]
    matrix, of_inner = stored(reader, inner)
    weights, of_core = stored(reader, core)
    kernel = weights.size // max(rank * core.shape[1], 1)
    by_kernel = weights.reshape(rank, core.shape[1], kernel).transpose(0, 2, 1)
    with np.errstate(all="ignore"):
        product = (by_kernel.reshape(rank * kernel, -1) @ matrix).reshape(rank, kernel, -1)
    # (r, kernel, in) to (r, in, kernel), the order in which kernels are flattened.
    whole = scaled_down(product.transpose(0, 2, 1).reshape(rank, -1))
    return Factor(whole.array, whole.exponent + of_inner + of_core)


def contracted_size(core: Tensor, inner: Tensor) -> int:
    """Return how many elements `contracted` has."""
    return core.shape[0] * inner.shape[1] * math.prod(core.shape[2:])
