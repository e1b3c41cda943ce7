"""The update of one module as factors: dW = up @ down, never multiplied out."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Update:
    """One module's weight change in factors; the scale is already within `up`.

    `up` is (m, r) and `down` is (r, n); kernels are flattened into n. LoHa and LoKr are brought
    into this shape where that is cheaper than another formula for them.
    """

    path: str
    up: Matrix
    down: Matrix
