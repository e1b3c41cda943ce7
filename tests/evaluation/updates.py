"""Updates of made-up LoRAs: random factors, files of them, and the dense truth about them."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from lora_server.evaluation.weights.opening import Compared
from lora_server.evaluation.weights.sketches import sketch, squared_norm
from lora_server.evaluation.weights.update import Update
from tests.adapters import STYLES
from tests.layers import Layer

Dense = npt.NDArray[np.float64]
Random = np.random.Generator

SHAPES = (((64, 48), (96, 64), (48, 80)) * 20)[:50]


def names(count: int) -> list[str]:
    """Return module paths as kohya writes them for an SDXL U-Net."""
    blocks = (f"input_blocks_7_1_transformer_blocks_{at}_attn1" for at in range(count))
    return [f"lora_unet_{block}_to_{'qkv'[at % 3]}" for at, block in enumerate(blocks)]


def lora(
    random: Random, *, rank: int = 4, shapes: Sequence[tuple[int, int]] = SHAPES
) -> list[Update]:
    """Return a LoRA of independent normal factors, one module a shape."""
    return [
        Update(path, normal(random, rows, rank), normal(random, rank, columns))
        for path, (rows, columns) in zip(names(len(shapes)), shapes, strict=True)
    ]


def normal(random: Random, *shape: int) -> npt.NDArray[np.float32]:
    """Return independent normal numbers."""
    return random.standard_normal(shape).astype(np.float32)


def dense(update: Update) -> Dense:
    """Return dW, multiplied out in float64."""
    return np.asarray(update.up, np.float64) @ np.asarray(update.down, np.float64)


def dense_norm(updates: Iterable[Update]) -> float:
    """Return the norm of a file's whole update."""
    return float(np.sqrt(sum(np.sum(dense(update) ** 2) for update in updates)))


def dense_cosine(first: Sequence[Update], second: Sequence[Update]) -> float:
    """Return the cosine of two files that spell alike; modules of one alone count as 0."""
    others = {update.path: update for update in second}
    inner = sum(
        np.sum(dense(update) * dense(others[update.path]))
        for update in first
        if update.path in others
    )
    return float(inner) / (dense_norm(first) * dense_norm(second))


def mixed(
    random: Random, updates: Sequence[Update], cosine: float, *, rank: int = 4
) -> list[Update]:
    """Return a LoRA at about this cosine to another: a share of it plus an unrelated update."""
    shapes = [(u.up.shape[0], u.down.shape[1]) for u in updates]
    noise = lora(random, rank=rank, shapes=shapes)
    ratio = sum(map(squared_norm, updates)) / sum(map(squared_norm, noise))
    weight = np.sqrt(ratio * (1 / cosine**2 - 1))
    return [
        Update(
            own.path,
            np.hstack([own.up, other.up * np.float32(weight)]),
            np.vstack([own.down, other.down]),
        )
        for own, other in zip(updates, noise, strict=True)
    ]


def spelled(layer: Layer, style: str) -> str:
    """Return a layer's module path in a trainer's spelling."""
    written = STYLES[style]
    prefix = written.text_encoder(layer.slot) if layer.slot else written.denoiser
    return prefix + layer.path.replace(".", written.separator)


def saved(path: Path, updates: Iterable[Update], *, kernel: int = 1) -> Path:
    """Write a LoRA as kohya does (PEFT's halves under dotted names), without alphas.

    With a kernel other than 1, `down` becomes the convolution that it is the flat form of.
    """
    tensors = {}
    for update in updates:
        down, up = ("lora_A", "lora_B") if "." in update.path else ("lora_down", "lora_up")
        rank, columns = update.down.shape
        shaped = (rank, columns // kernel**2, kernel, kernel) if kernel > 1 else (rank, columns)
        tensors[f"{update.path}.{down}.weight"] = update.down.reshape(shaped)
        tall = (*update.up.shape, 1, 1) if kernel > 1 else update.up.shape
        tensors[f"{update.path}.{up}.weight"] = update.up.reshape(tall)
    path.write_bytes(save(tensors))
    return path


def opened_file(path: Path, updates: Sequence[Update], stack: ExitStack) -> Compared:
    """Return a saved LoRA as what is compared, open until the stack ends."""
    file = stack.enter_context(path.open("rb"))
    return Compared(file.fileno(), ".safetensors", sketch(updates))


def dense_overlap(first: Sequence[Update], second: Sequence[Update], side: int) -> float:
    """Return the energy-weighted overlap of leading subspaces, by dense SVDs.

    `side` is 0 for left singular vectors and 2 for right ones.
    """
    others = {update.path: update for update in second}
    total = 0.0
    for update in first:
        if update.path in others:
            bases = [leading_basis(dense(each), side) for each in (update, others[update.path])]
            common = np.linalg.norm(bases[0].T @ bases[1]) ** 2
            weight = np.sum(dense(update) ** 2) / dense_norm(first) ** 2
            total += weight * float(common) / min(each.shape[1] for each in bases)
    return total


def leading_basis(matrix: Dense, side: int) -> Dense:
    """Return the singular vectors that hold 90 % of the energy together, at most 8, as columns."""
    parts = np.linalg.svd(matrix, full_matrices=False)
    energies = np.cumsum(parts[1] ** 2) / np.sum(parts[1] ** 2)
    count = min(8, int(np.searchsorted(energies, 0.9)) + 1)
    vectors = parts[side].T if side else parts[side]
    return np.asarray(vectors[:, :count])
