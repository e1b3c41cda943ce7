"""Where a module sits: part, block group, target and depth, whatever the spelling.

U-Net blocks are named and numbered as in block weights, IN 0 to 11, MID and OUT 0 to 11: a level
of the SD and SDXL U-Nets has three input and three output blocks, and the first input block is
the convolution before all levels.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from lora_server.inspection.paths import DENOISER, FIRST_TE, PRIOR, Place
from lora_server.inspection.targets import kind

OTHER = "other"
DOUBLE, SINGLE, BLOCKS = "double", "single", "blocks"
TE_PREFIX = "text encoder "

# The beginning of a flattened pattern, and the group that it belongs to.
_GROUPS = (
    ("IN", re.compile(r"input_blocks_|down_blocks_")),
    ("MID", re.compile(r"middle_block_|mid_block_")),
    ("OUT", re.compile(r"output_blocks_|up_blocks_")),
    (DOUBLE, re.compile(r"double_blocks_|double_stream_blocks_|joint_blocks_")),
    (SINGLE, re.compile(r"single_blocks_|single_transformer_blocks_|single_stream_blocks_")),
    (BLOCKS, re.compile(r"transformer_blocks_|blocks_|layers_")),
    ("refiner", re.compile(r"\w*refiner")),
)
_LEVEL_BLOCKS = 3


class Position(NamedTuple):
    """Part, block group, target and depth of a module; depth is None outside of blocks."""

    part: str
    group: str
    target: str
    depth: int | None


@lru_cache(maxsize=16_384)
def position(place: Place) -> Position:
    """Return the position of a module; a library repeats the same places file after file."""
    flat = place.pattern.replace(".", "_")
    target = kind(flat)
    number = place.numbers[0] if place.numbers else None
    if place.slot not in {DENOISER, PRIOR}:
        part = "te1" if place.slot == FIRST_TE else place.slot
        return Position(part, part, TE_PREFIX + target, number)
    group = next((name for name, pattern in _GROUPS if pattern.match(flat)), OTHER)
    return Position(place.slot, group, target, _depth(group, flat, place.numbers))


def _depth(group: str, flat: str, numbers: tuple[int, ...]) -> int | None:
    if group == "MID":
        return 0
    if group == OTHER or not numbers:
        return None
    first = numbers[0]
    if flat.startswith("down_blocks_"):
        return _LEVEL_BLOCKS * first + 1 + _inner(flat, numbers, "downsamplers")
    if flat.startswith("up_blocks_"):
        return _LEVEL_BLOCKS * first + _inner(flat, numbers, "upsamplers")
    return first


def _inner(flat: str, numbers: tuple[int, ...], samplers: str) -> int:
    """Return the place within a level in diffusers' names; the sampler is its last block."""
    if samplers in flat:
        return _LEVEL_BLOCKS - 1
    return min(numbers[1], _LEVEL_BLOCKS - 1) if len(numbers) > 1 else 0
