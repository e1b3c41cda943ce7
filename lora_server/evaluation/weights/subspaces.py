"""Leading singular subspaces of an update, and how far those of two updates coincide.

With G = down down' = C C' and the eigenvectors V of C' (up' up) C, whose eigenvalues are sigma²,
the leading left vectors are up C V / sigma and the right ones down' (up' up) C V / sigma². So
U1' U2 needs but the cross product up1' up2 that the cosine needs, too; no basis of height m is
ever made. Products are taken in float32: only directions well above its noise are used.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lora_server.evaluation.weights.update import Update

Square = npt.NDArray[np.float64]

MOST = 8  # leading directions
ENERGY = 0.9  # the share of a module's energy that they hold together, where MOST suffice
_RESOLVED = 3e-3  # of the first singular value: what float32 Gram matrices still resolve


class Leading(NamedTuple):
    """The leading directions as combinations of the factors' columns, one a column: (r, k)."""

    left: Square  # U = up @ left
    right: Square  # V = down.T @ right
    energy: float  # fro(dW)²

    @property
    def rank(self) -> int:
        """How many there are."""
        return int(self.left.shape[1])


class Overlap(NamedTuple):
    """phi(i, j) of the left and of the right subspaces, each with what is expected by chance."""

    output: float
    expected_output: float
    input: float
    expected_input: float


def leading(update: Update) -> Leading | None:
    """Return the leading directions of a module; None where its update is zero or not finite."""
    with np.errstate(all="ignore"):
        ups = np.float64(update.up.T @ update.up)
        downs = np.float64(update.down @ update.down.T)
        energy = float(np.vdot(ups, downs))
    if not (np.isfinite(ups).all() and np.isfinite(downs).all() and 0 < energy < np.inf):
        return None
    values, vectors = np.linalg.eigh(downs)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    squares, rotation = np.linalg.eigh(root.T @ ups @ root)
    squares, rotation = squares[::-1], rotation[:, ::-1]
    if squares[0] <= 0:
        return None
    count = _count(squares)
    turned = root @ rotation[:, :count]
    return Leading(turned / np.sqrt(squares[:count]), (ups @ turned) / squares[:count], energy)


def _count(squares: Square) -> int:
    """Return how many directions lead, at least 1."""
    resolved = int(np.count_nonzero(squares > squares[0] * _RESOLVED**2))
    shares = np.cumsum(np.maximum(squares, 0.0)) / np.maximum(squares, 0.0).sum()
    enough = int(np.searchsorted(shares, ENERGY)) + 1
    return max(1, min(resolved, enough, MOST))


def overlap(first: Update, one: Leading, second: Update, other: Leading) -> Overlap:
    """Return how far the leading subspaces of two updates of one shape coincide."""
    fewer, more = sorted((one.rank, other.rank))
    rows, columns = first.up.shape[0], first.down.shape[1]
    return Overlap(
        _coincide(one.left.T @ np.float64(first.up.T @ second.up) @ other.left, fewer),
        min(1.0, more / rows),
        _coincide(one.right.T @ np.float64(first.down @ second.down.T) @ other.right, fewer),
        min(1.0, more / columns),
    )


def _coincide(product: Square, fewer: int) -> float:
    return min(1.0, float(np.vdot(product, product)) / fewer)


def inner(first: Update, second: Update) -> float:
    """Return <dW1, dW2> = sum((up1' up2) o (down1 down2')); ranks may differ."""
    ups = np.float64(first.up.T @ second.up)
    return float(np.vdot(ups, np.float64(first.down @ second.down.T)))
