"""What widths and block numbers say about the base model: tables over an adapter's layout."""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from lora_server.inspection.bases import Base, Bases
from lora_server.inspection.bases import bases as _b
from lora_server.inspection.layout import Group
from lora_server.inspection.paths import DENOISER, FIRST_TE, LONGEST_PATH


class ShapeRule(NamedTuple):
    """In matching modules, a value on an axis (inner, outer or dims) speaks for bases."""

    slots: frozenset[str]
    pattern: re.Pattern[str]
    axis: str
    says: Mapping[int, Bases]


class NumberRule(NamedTuple):
    """In matching modules, the block number at the pattern's last # speaks for bases.

    `least` is reached by the greatest number, `most` is not passed by the smallest.
    """

    pattern: re.Pattern[str]
    least: int
    most: int | None
    says: Bases


_MLP_X4 = _b(Base.FLUX1, Base.CHROMA, Base.HUNYUAN_VIDEO)
_PLAIN_UNET = _b(Base.SD1, Base.SD2)

SHAPE_RULES = (
    ShapeRule(
        frozenset({DENOISER}),
        re.compile(r"(?:down|up|mid|input|output|middle)_block.*_attn2_to_[kv]$"),
        "inner",
        {768: _b(Base.SD1), 1024: _b(Base.SD2), 2048: _b(Base.SDXL)},
    ),
    # SDXL has no attention at the finest level, 320 wide.
    ShapeRule(
        frozenset({DENOISER}),
        re.compile(r"(?:down|up|mid|input|output|middle)_block.*_attn1_to_[qkv]$"),
        "inner",
        {320: _PLAIN_UNET},
    ),
    # The projections around a transformer are convolutions in SD 1 and linear since.
    ShapeRule(
        frozenset({DENOISER}),
        re.compile(r"^(?:down_blocks|up_blocks|mid_block)_.*attentions_#_proj_(?:in|out)$"),
        "dims",
        {4: _b(Base.SD1)},
    ),
    # Klein 4B is as wide as Flux.1; only the MLP ratio, 6 against 4, parts them.
    ShapeRule(
        frozenset({DENOISER}),
        re.compile(
            r"^double_blocks_#_(?:img|txt)_mlp_#$"
            r"|^transformer_blocks_#_ff(?:_context)?_(?:net_#_proj|linear_in)$"
        ),
        "outer",
        {
            12288: _MLP_X4 | _b(Base.QWEN_IMAGE),
            18432: _b(Base.KLEIN_4B),
            24576: _b(Base.KLEIN_9B),
            36864: _b(Base.FLUX2_DEV),
        },
    ),
    ShapeRule(
        frozenset({DENOISER}),
        re.compile(r"^single_(?:transformer_)?blocks_#_(?:linear1|attn_to_qkv_mlp_proj)$"),
        "outer",
        {
            21504: _MLP_X4,
            27648: _b(Base.KLEIN_4B),
            36864: _b(Base.KLEIN_9B),
            55296: _b(Base.FLUX2_DEV),
        },
    ),
    ShapeRule(
        frozenset({DENOISER}),
        re.compile(r"^(?:txt_in|context_embedder)$"),
        "inner",
        {
            4096: _MLP_X4 | _b(Base.SD3),
            7680: _b(Base.KLEIN_4B),
            12288: _b(Base.KLEIN_9B),
            15360: _b(Base.FLUX2_DEV),
            3584: _b(Base.QWEN_IMAGE, Base.HUNYUAN_IMAGE, Base.HUNYUAN_VIDEO_1_5),
        },
    ),
    ShapeRule(
        frozenset({"te", FIRST_TE}),
        re.compile(r"text_model_encoder_layers_#_(?:self_attn_[qkv]_proj|mlp_fc1)$"),
        "inner",
        {1024: _b(Base.SD2)},
    ),
    ShapeRule(
        frozenset({"te"}),
        re.compile(r"text_model_encoder_layers_#_(?:self_attn_[qkv]_proj|mlp_fc1)$"),
        "inner",
        {768: _b(Base.SD1)},
    ),
    ShapeRule(
        frozenset({"te2"}),
        re.compile(r"text_model_encoder_layers_#_(?:self_attn_[qkv]_proj|mlp_fc1)$"),
        "inner",
        {768: _b(Base.HUNYUAN_VIDEO), 1280: _b(Base.SDXL, Base.SD3, Base.HIDREAM)},
    ),
)

NUMBER_RULES = (
    # SD 1 and 2 have transformers one block deep, SDXL two and ten.
    NumberRule(re.compile(r"_block.*_transformer_blocks_#"), 1, None, _b(Base.SDXL)),
    NumberRule(re.compile(r"^down_blocks_#(?=_attentions)"), 0, 0, _PLAIN_UNET),
    NumberRule(re.compile(r"^(?:down|up)_blocks_#"), 3, None, _PLAIN_UNET),
    NumberRule(re.compile(r"^up_blocks_#(?=_attentions)"), 0, 0, _b(Base.SDXL)),
    NumberRule(re.compile(r"^(?:input|output)_blocks_#"), 9, None, _PLAIN_UNET),
    NumberRule(re.compile(r"^input_blocks_#(?=_#_transformer)"), 0, 2, _PLAIN_UNET),
    NumberRule(re.compile(r"^output_blocks_#(?=_#_transformer)"), 0, 2, _b(Base.SDXL)),
)

_MAIN = r"^(?:double_blocks|transformer_blocks|joint_blocks|layers|blocks|double_stream_blocks)_#"
_SINGLE = r"^single_(?:transformer_|stream_)?blocks_#"
_MAIN_STACK = re.compile(_MAIN)
_SINGLE_STACK = re.compile(_SINGLE)

# Modules that read the residual stream at its full width; refiners beside it have their own.
_STREAM = re.compile(
    rf"(?:{_MAIN}|{_SINGLE})_(?:(?:block_|x_block_|context_block_|img_|txt_|self_)?attn1?|attention)"
    r"_(?:to_q|w?q|q_proj|qkv|to_qkv_mlp_proj|add_q_proj)$"
    rf"|{_SINGLE}_(?:linear1|proj_mlp)$"
)


class Finding(NamedTuple):
    """What one group says by its shapes or its block numbers."""

    says: Bases
    detail: str


@lru_cache(maxsize=4096)
def _shape_rules(slot: str, flat: str) -> tuple[ShapeRule, ...]:
    return tuple(rule for rule in SHAPE_RULES if slot in rule.slots and rule.pattern.search(flat))


@lru_cache(maxsize=4096)
def _number_rules(flat: str) -> tuple[tuple[NumberRule, int], ...]:
    """Return the rules that apply, each with the position of the # that it looks at."""
    found = ((rule, rule.pattern.search(flat)) for rule in NUMBER_RULES)
    return tuple((rule, flat.count("#", 0, hit.end()) - 1) for rule, hit in found if hit)


@lru_cache(maxsize=4096)
def _reads_stream(flat: str) -> bool:
    return _STREAM.search(flat) is not None


@lru_cache(maxsize=4096)
def _stack(flat: str) -> int | None:
    if _MAIN_STACK.match(flat):
        return 0
    return 1 if _SINGLE_STACK.match(flat) else None


def _bounded(groups: Iterable[Group]) -> Iterator[tuple[Group, str]]:
    return ((group, group.flat) for group in groups if len(group.pattern) <= LONGEST_PATH)


def shape_findings(groups: Iterable[Group]) -> Iterator[Finding]:
    """Return what the widths of single layers say."""
    for group, flat in _bounded(groups):
        for rule in _shape_rules(group.slot, flat):
            values = {getattr(shape, rule.axis) for shape in group.shapes}
            for value in sorted(values & rule.says.keys()):
                yield Finding(rule.says[value], f"{rule.axis} {value} at {flat}")


def number_findings(groups: Iterable[Group]) -> Iterator[Finding]:
    """Return what the block numbers of U-Nets say."""
    for group, flat in _bounded(groups):
        if group.slot != DENOISER:
            continue
        for rule, position in _number_rules(flat):
            column = group.column(position)
            low, high = min(column), max(column)
            if high >= rule.least and (rule.most is None or low <= rule.most):
                yield Finding(rule.says, f"blocks {low} to {high} at {flat}")


def stream_widths(groups: Iterable[Group]) -> set[int]:
    """Return the widths of the residual stream that the adapter's attention reads."""
    return {
        shape.inner
        for group, flat in _bounded(groups)
        if group.slot == DENOISER and _reads_stream(flat)
        for shape in group.shapes
        if shape.inner is not None
    }


def depths(groups: Iterable[Group]) -> tuple[int, int]:
    """Return how many blocks the main and the single-stream stack must have at least."""
    reached = [0, 0]
    for group, flat in _bounded(groups):
        stack = _stack(flat) if group.slot == DENOISER else None
        if stack is not None:
            reached[stack] = max(reached[stack], max(group.column(0)) + 1)
    return reached[0], reached[1]
