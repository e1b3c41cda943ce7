"""What layer names say about the base model: a table of patterns over flattened paths.

A # stands for a block number. Separate `img_mlp_#` from `img_mlp_fc1`: Flux and HunyuanVideo
flatten to the same attention names, so only feed-forward, modulation and counts part them.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from lora_server.inspection.bases import FLUX1_LIKE, FLUX2, HUNYUAN, LTX, SD_UNET, WAN, Base, Bases
from lora_server.inspection.bases import bases as _b
from lora_server.inspection.paths import DENOISER, FIRST_TE, LONGEST_PATH, PRIOR


class KeyRule(NamedTuple):
    """Modules whose slot and flattened pattern match speak for these bases."""

    slots: frozenset[str]
    pattern: re.Pattern[str]
    says: Bases


def _rule(slot: str, pattern: str, says: Bases) -> KeyRule:
    return KeyRule(frozenset(slot.split()), re.compile(pattern), says)


_DOUBLE = FLUX1_LIKE | FLUX2 | HUNYUAN
_SINGLE = FLUX1_LIKE | FLUX2 | _b(Base.HUNYUAN_VIDEO, Base.HUNYUAN_IMAGE)
_DIFFUSERS_JOINT = (
    FLUX1_LIKE | FLUX2 | _b(Base.SD3, Base.QWEN_IMAGE, Base.HUNYUAN_VIDEO, Base.KREA2)
)
_CLIP_L = _b(Base.SD1, Base.SDXL, Base.SD3, Base.HIDREAM) | FLUX1_LIKE
_LAYERS = _b(Base.Z_IMAGE, Base.LUMINA2, Base.IDEOGRAM4)

RULES = (
    _rule(
        DENOISER,
        r"^(?:down_blocks|up_blocks|mid_block|input_blocks|output_blocks|middle_block)_",
        SD_UNET,
    ),
    _rule(DENOISER, r"^joint_blocks_#", _b(Base.SD3)),
    # Double- and single-stream transformers in their own names.
    _rule(DENOISER, r"^double_blocks_#", _DOUBLE),
    _rule(DENOISER, r"^single_blocks_#", _SINGLE),
    _rule(DENOISER, r"^double_blocks_#_(?:img|txt)_mlp_#", FLUX1_LIKE | FLUX2),
    _rule(DENOISER, r"^double_blocks_#_(?:img|txt)_mlp_fc[12]", HUNYUAN),
    _rule(DENOISER, r"_blocks_#_(?:(?:img|txt)_mod|modulation)_lin$", _b(Base.FLUX1)),
    _rule(DENOISER, r"_blocks_#_(?:(?:img|txt)_mod|modulation)_linear$", HUNYUAN),
    _rule(DENOISER, r"^double_blocks_#_processor_", _b(Base.FLUX1)),
    _rule(DENOISER, r"^txt_in_individual_token_refiner", HUNYUAN),
    _rule(DENOISER, r"^context_embedder_token_refiner", HUNYUAN),
    _rule(DENOISER, r"^byt5_in", _b(Base.HUNYUAN_VIDEO_1_5, Base.HUNYUAN_IMAGE)),
    _rule(DENOISER, r"^(?:vision_in|cond_type_embedding)", _b(Base.HUNYUAN_VIDEO_1_5)),
    _rule(DENOISER, r"^distilled_guidance_layer", _b(Base.CHROMA)),
    _rule(
        DENOISER,
        r"^(?:double|single)_stream_modulation|_to_qkv_mlp_proj$|_ff(?:_context)?_linear_(?:in|out)$",
        FLUX2,
    ),
    # The same in diffusers' names, which Qwen-Image and SD 3 share.
    _rule(DENOISER, r"^transformer_blocks_#_(?:attn|ff)_", _DIFFUSERS_JOINT | LTX),
    _rule(DENOISER, r"^transformer_blocks_#_attn_", _DIFFUSERS_JOINT),
    _rule(DENOISER, r"^transformer_blocks_#_attn1_", LTX),
    _rule(DENOISER, r"^transformer_blocks_#_attn2_", LTX | _b(Base.SD3)),
    _rule(
        DENOISER,
        r"^transformer_blocks_#_(?:ff_context_|norm1_context)",
        _b(Base.SD3, Base.HUNYUAN_VIDEO) | FLUX1_LIKE | FLUX2,
    ),
    _rule(
        DENOISER,
        r"^transformer_blocks_#_norm1(?:_context)?_linear$",
        _b(Base.FLUX1, Base.SD3, Base.HUNYUAN_VIDEO),
    ),
    _rule(DENOISER, r"^transformer_blocks_#_(?:img|txt)_(?:mlp|mod)_", _b(Base.QWEN_IMAGE)),
    _rule(DENOISER, r"^single_transformer_blocks_#", FLUX1_LIKE | FLUX2 | _b(Base.HUNYUAN_VIDEO)),
    _rule(
        DENOISER,
        r"^single_transformer_blocks_#_proj_mlp$",
        FLUX1_LIKE | _b(Base.HUNYUAN_VIDEO),
    ),
    _rule(DENOISER, r"^single_transformer_blocks_#_attn_to_out$", FLUX2),
    _rule(
        DENOISER,
        r"^single_transformer_blocks_#_norm_linear$",
        _b(Base.FLUX1, Base.HUNYUAN_VIDEO),
    ),
    # Single-stack transformers.
    # Language models have layers too, but call what is in them self_attn and mlp.
    _rule(
        DENOISER,
        r"^(?:layers|noise_refiner|context_refiner)_#_(?:attention|attn|feed_forward|ada)",
        _LAYERS,
    ),
    _rule(DENOISER, r"^layers_#_attention_o$", _b(Base.IDEOGRAM4)),
    _rule(DENOISER, r"^(?:noise|context)_refiner_#", _b(Base.Z_IMAGE, Base.LUMINA2)),
    _rule(DENOISER, r"^blocks_#_(?:self|cross)_attn_(?:[qkvo]|[kv]_img)$", WAN),
    _rule(DENOISER, r"^blocks_#_(?:ffn_|attn[12]_(?:to|add)_)", WAN),
    _rule(
        DENOISER,
        r"^blocks_#_(?:(?:self|cross)_attn_(?:[qkv]|output)_proj|mlp_layer[12]|adaln_modulation)",
        _b(Base.ANIMA),
    ),
    _rule(DENOISER, r"^llm_adapter", _b(Base.ANIMA)),
    _rule(DENOISER, r"audio_attn[12]|audio_to_video_attn|video_to_audio_attn", _b(Base.LTX_2)),
    _rule(DENOISER, r"^(?:double|single)_stream_blocks_#_block_", _b(Base.HIDREAM)),
    _rule(DENOISER, r"^te?xt_?fusion_|^time_mod_proj|_attn_gate$", _b(Base.KREA2)),
    _rule(DENOISER, r"^blocks_#_(?:attn_(?:w[qkvo]|gate)|mlp_(?:down|gate|up))$", _b(Base.KREA2)),
    _rule(DENOISER, r"^(?:txtmlp|tmlp|tproj)_#$", _b(Base.KREA2)),
    _rule(PRIOR, r"", _b(Base.STABLE_CASCADE)),
    # Text encoders. T5 is the second encoder of Flux and the third of SD 3.
    _rule("te1", r"text_model_encoder", _CLIP_L - _b(Base.SD1)),
    _rule(FIRST_TE, r"text_model_encoder", _CLIP_L | _b(Base.SD2)),
    _rule("te", r"text_model_encoder", _b(Base.SD1, Base.SD2)),
    _rule("te2", r"encoder_block_#_layer_#", FLUX1_LIKE),
    _rule("te2", r"text_model_encoder", _b(Base.SDXL, Base.SD3, Base.HIDREAM, Base.HUNYUAN_VIDEO)),
    _rule("te3", r"encoder_block_#_layer_#", _b(Base.SD3, Base.HIDREAM)),
    _rule("te4", r"", _b(Base.HIDREAM)),
)

# Before flattening, a dot or an underscore between img_attn and qkv parts what is one name after.
DOTTED_RULES = (
    (re.compile(r"_#\.(?:img|txt)_attn\.(?:qkv|proj)$"), FLUX1_LIKE | FLUX2),
    (re.compile(r"_#\.(?:img|txt)_attn_(?:qkv|proj)$"), HUNYUAN),
)


@lru_cache(maxsize=4096)
def spoken_for(slot: str, pattern: str) -> tuple[Bases, ...]:
    """Return what each matching rule says of a pattern; files repeat the same few patterns."""
    if len(pattern) > LONGEST_PATH:
        return ()
    flat = pattern.replace(".", "_")
    said = [rule.says for rule in RULES if slot in rule.slots and rule.pattern.search(flat)]
    if slot == DENOISER:
        said += [says for dotted, says in DOTTED_RULES if dotted.search(pattern)]
    return tuple(said)
