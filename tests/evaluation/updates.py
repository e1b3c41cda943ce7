"""Updates of made-up LoRAs: random factors, files of them, and the dense truth about them."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from lora_server.evaluation.weights.sketches import squared_norm
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
