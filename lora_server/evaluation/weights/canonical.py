"""One name for one piece of the model, whoever spelled it, so that two files can be compared.

kohya, diffusers, PEFT, OneTrainer and ai-toolkit prefixes meet, and so do the native and the
diffusers names of the U-Nets of SD 1, SD 2 and SDXL, of Flux, HunyuanVideo, SD 3 and Wan. Layers
that one spelling fuses are cut into the pieces that the other one names, for an inner product
over the rows of dW is the sum over its pieces.

Not covered: Flux's and SD 3's last layers (their halves are swapped), XLabs processors, Stable
Cascade, the fused layers of Z-Image and Lumina, and text encoders other than by their number. A
name that no rule knows stays as it is, so that two files of one trainer meet in any case.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

from lora_server.inspection.paths import DENOISER, FIRST_TE, LONGEST_PATH, place

UNET_LAYERS_PER_BLOCK = 3  # two and a sampler on the way down, three on the way up


class Piece(NamedTuple):
    """Rows `begin` to `end` of a module's dW, under the name that all spellings share."""

    key: str
    begin: int
    end: int


def pieces(path: str, shape: tuple[int, int]) -> tuple[Piece, ...]:
    """Return what a module's dW of this (out, in) shape is made of, in row order.

    The pieces cover all rows. Which module has which key depends on names and widths alone.
    """
    # Only names of an ordinary length are remembered, so that no file fills the memory.
    return _remembered(path, shape) if len(path) <= LONGEST_PATH else (Piece(path, 0, shape[0]),)


@lru_cache(maxsize=16_384)
def _remembered(path: str, shape: tuple[int, int]) -> tuple[Piece, ...]:
    slot, flat = _spelled(path)
    rows, columns = shape
    for pattern, names in _FUSED:
        match = pattern.match(flat)
        if match is not None:
            heights = _heights(len(names), rows, columns)
            if heights:
                stem = _PREFIXES[match["stem"]] + match["number"]
                return _cut(f"{slot}:{stem}", names, heights)
    return (Piece(f"{slot}:{_renamed(flat) if slot == DENOISER else flat}", 0, rows),)


def _spelled(path: str) -> tuple[str, str]:
    """Return the part of the model, and the rest of the path with underscores alone."""
    where = place(path)
    stretches = where.pattern.replace(".", "_").split("_#")
    if len(stretches) != len(where.numbers) + 1:  # a # of its own
        return "", path
    numbers = (*(f"_{number}" for number in where.numbers), "")
    flat = "".join(map("".join, zip(stretches, numbers, strict=True)))
    slot = {FIRST_TE: "te1", "te": "te1"}.get(where.slot, where.slot)
    # Wan 2.2 has a denoiser for each half of the noise, and diffusers keeps both in one file.
    return slot + ("2" if "transformer_2." in path else ""), flat


def _heights(count: int, rows: int, columns: int) -> tuple[int, ...]:
    """Return how high each piece is; nothing where the widths do not fit the fusion."""
    if count == len(_QKV):
        return () if rows % count else (rows // count,) * count
    rest = rows - len(_QKV) * columns
    return (*(columns,) * len(_QKV), rest) if rest > 0 else ()


def _cut(stem: str, names: tuple[str, ...], heights: tuple[int, ...]) -> tuple[Piece, ...]:
    found, begin = [], 0
    for name, height in zip(names, heights, strict=True):
        found.append(Piece(f"{stem}_{name}", begin, begin + height))
        begin += height
    return tuple(found)


_QKV = ("attn_to_q", "attn_to_k", "attn_to_v")
_ADDED = ("attn_add_q_proj", "attn_add_k_proj", "attn_add_v_proj")
_SINGLE = (*_QKV, "proj_mlp")
_PREFIXES: Mapping[str, str] = {
    "double_blocks_": "transformer_blocks_",
    "joint_blocks_": "transformer_blocks_",
    "single_blocks_": "single_transformer_blocks_",
    "single_transformer_blocks_": "single_transformer_blocks_",
}


def _fused(stem: str, rest: str, names: tuple[str, ...]) -> tuple[re.Pattern[str], tuple[str, ...]]:
    return re.compile(rf"(?P<stem>{stem}_)(?P<number>[0-9]+)_{rest}$"), names


_FUSED = (
    _fused("double_blocks", "img_attn_qkv", _QKV),
    _fused("double_blocks", "txt_attn_qkv", _ADDED),
    _fused("joint_blocks", "x_block_attn_qkv", _QKV),
    _fused("joint_blocks", "context_block_attn_qkv", _ADDED),
    _fused("single_blocks", "linear1", _SINGLE),
    _fused("single_transformer_blocks", "attn_to_qkv_mlp_proj", _SINGLE),
)

_Rename = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]


def _unet(way: str, shift: int) -> Callable[[re.Match[str]], str]:
    """Return what makes diffusers' block and layer of one of SGM's flat block numbers."""

    def rename(match: re.Match[str]) -> str:
        at = int(match[1]) - shift
        kind = "resnets" if match[2] == "0" else "attentions"
        block, layer = divmod(at, UNET_LAYERS_PER_BLOCK)
        return f"{way}_blocks_{block}_{kind}_{layer}_"

    return rename


def _sampler(way: str, shift: int, kind: str) -> Callable[[re.Match[str]], str]:
    def rename(match: re.Match[str]) -> str:
        return f"{way}_blocks_{(int(match[1]) - shift) // UNET_LAYERS_PER_BLOCK}_{kind}_0_conv"

    return rename


# Every rule is tried, in this order; the diffusers name is what comes out, ends made shorter.
_RENAMES: tuple[_Rename, ...] = tuple(
    (re.compile(pattern), to)
    for pattern, to in (
        (r"_processor_(?=to_|add_)", "_"),
        # U-Nets
        (r"^input_blocks_([1-9][0-9]?)_0_op$", _sampler("down", 1, "downsamplers")),
        (r"^output_blocks_([0-9]{1,2})_[12]_conv$", _sampler("up", 0, "upsamplers")),
        (r"^input_blocks_([1-9][0-9]?)_([01])_", _unet("down", 1)),
        (r"^output_blocks_([0-9]{1,2})_([01])_", _unet("up", 0)),
        (r"^input_blocks_0_0$", "conv_in"),
        (r"^middle_block_1_", "mid_block_attentions_0_"),
        (r"^middle_block_0_", "mid_block_resnets_0_"),
        (r"^middle_block_2_", "mid_block_resnets_1_"),
        (r"^time_embed_0$", "time_embedding_linear_1"),
        (r"^time_embed_2$", "time_embedding_linear_2"),
        (r"^label_emb_0_0$", "add_embedding_linear_1"),
        (r"^label_emb_0_2$", "add_embedding_linear_2"),
        (r"^out_2$", "conv_out"),
        (r"_in_layers_2$", "_conv1"),
        (r"_out_layers_3$", "_conv2"),
        (r"_emb_layers_1$", "_time_emb_proj"),
        (r"_skip_connection$", "_conv_shortcut"),
        # Transformers of two streams
        (r"^double_blocks_([0-9]+)_img_attn_proj$", r"transformer_blocks_\1_attn_to_out"),
        (r"^double_blocks_([0-9]+)_txt_attn_proj$", r"transformer_blocks_\1_attn_to_add_out"),
        (r"^double_blocks_([0-9]+)_img_mlp_(?:0|fc1)$", r"transformer_blocks_\1_ff_in"),
        (r"^double_blocks_([0-9]+)_img_mlp_(?:2|fc2)$", r"transformer_blocks_\1_ff_out"),
        (r"^double_blocks_([0-9]+)_txt_mlp_(?:0|fc1)$", r"transformer_blocks_\1_ff_context_in"),
        (r"^double_blocks_([0-9]+)_txt_mlp_(?:2|fc2)$", r"transformer_blocks_\1_ff_context_out"),
        (r"^double_blocks_([0-9]+)_img_mod_lin(?:ear)?$", r"transformer_blocks_\1_norm1_linear"),
        (
            r"^double_blocks_([0-9]+)_txt_mod_lin(?:ear)?$",
            r"transformer_blocks_\1_norm1_context_linear",
        ),
        (r"^single_blocks_([0-9]+)_linear2$", r"single_transformer_blocks_\1_proj_out"),
        (
            r"^single_blocks_([0-9]+)_modulation_lin(?:ear)?$",
            r"single_transformer_blocks_\1_norm_linear",
        ),
        (r"^(single_transformer_blocks_[0-9]+)_attn_to_out$", r"\1_proj_out"),
        (r"^joint_blocks_([0-9]+)_x_block_attn_proj$", r"transformer_blocks_\1_attn_to_out"),
        (
            r"^joint_blocks_([0-9]+)_context_block_attn_proj$",
            r"transformer_blocks_\1_attn_to_add_out",
        ),
        (r"^joint_blocks_([0-9]+)_x_block_mlp_fc1$", r"transformer_blocks_\1_ff_in"),
        (r"^joint_blocks_([0-9]+)_x_block_mlp_fc2$", r"transformer_blocks_\1_ff_out"),
        (r"^joint_blocks_([0-9]+)_context_block_mlp_fc1$", r"transformer_blocks_\1_ff_context_in"),
        (r"^joint_blocks_([0-9]+)_context_block_mlp_fc2$", r"transformer_blocks_\1_ff_context_out"),
        # Wan
        (r"^(blocks_[0-9]+)_self_attn_([qkv])$", r"\1_attn1_to_\2"),
        (r"^(blocks_[0-9]+)_cross_attn_([qkv])$", r"\1_attn2_to_\2"),
        (r"^(blocks_[0-9]+)_cross_attn_([kv])_img$", r"\1_attn2_add_\2_proj"),
        (r"^(blocks_[0-9]+)_self_attn_o$", r"\1_attn1_to_out"),
        (r"^(blocks_[0-9]+)_cross_attn_o$", r"\1_attn2_to_out"),
        (r"^(blocks_[0-9]+)_ffn_0$", r"\1_ffn_in"),
        (r"^(blocks_[0-9]+)_ffn_2$", r"\1_ffn_out"),
        # Endings that diffusers itself spells in several ways
        (r"_(ff|ffn|ff_context)_(?:net_0_proj|linear_in)$", r"_\1_in"),
        (r"_(ff|ffn|ff_context)_(?:net_2|linear_out)$", r"_\1_out"),
        (r"_to_out_0$", "_to_out"),
    )
)


def _renamed(flat: str) -> str:
    for pattern, to in _RENAMES:
        flat = pattern.sub(to, flat, count=1)
    return flat
