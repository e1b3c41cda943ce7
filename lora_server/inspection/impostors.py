"""Files that are weights but no adapter: recognised by name, refused by what they are."""

import re
from collections import Counter
from collections.abc import Sequence

from lora_server.errors import FileRefused
from lora_server.formats.tensors import Tensor
from lora_server.inspection.metadata import text

CHECKPOINT = "full checkpoint"
EMBEDDING = "textual inversion embedding"

# Each kind with the starts of its tensor names. A name may vote once, for the first that fits.
_KINDS = (
    (CHECKPOINT, (r"model\.diffusion_model\.", r"(?:cond|first)_stage_model\.", r"conditioner\.")),
    ("ControlNet", (r"control_model\.", r"controlnet_", r"input_hint_block\.", r"zero_convs?\.")),
    ("IP-Adapter", (r"image_proj\.", r"ip_adapter\.")),
    ("T2I-Adapter", (r"adapter\.body\.", r"body\.\d+\.(?:in_conv|block1|down_opt)")),
    ("motion module", (r".*motion_modules\.",)),
    (
        "upscaler",
        (
            r"(?:params(?:_ema)?\.)?(?:body\.\d+\.rdb|RRDB_trunk|conv_(?:first|last|body|hr|up\d)\.)",
            r"(?:HRconv|upconv\d)\.",
            r"(?:params(?:_ema)?\.)?layers\.\d+\.residual_group",
            r"model\.\d+\.sub\.",
        ),
    ),
    (
        "VAE",
        (
            r"(?:vae\.)?(?:encoder|decoder)\.(?:down|up|mid|conv_|norm_out|downsamples|upsamples)",
            r"(?:post_)?quant_conv\.",
            r"vae\.",
        ),
    ),
    (
        "text encoder",
        (
            r"text_(?:model|encoders?|projection)\b",
            r"transformer\.(?:text_model|resblocks)\.",
            r"encoder\.block\.\d+\.layer\.",
            r"shared\.weight",
            r"(?:model\.)?(?:language_model\.)?layers\.\d+\.(?:self_attn|mlp|input_layernorm)",
            r"model\.embed_tokens",
        ),
    ),
    ("image encoder", (r"vision_model\.", r"visual\.")),
    (EMBEDDING, (r"emb_params$", r"clip_[lg]$", r"t5xxl$", r"string_to_param")),
    (
        "full diffusion model",
        (
            r"(?:double_|single_)?(?:transformer_|stream_)?blocks\.",
            r"(?:layers|joint_blocks|(?:down|up|input|output)_blocks|mid_block)\.",
            r"(?:diffusion_model|net|unet|transformer|time_embed(?:ding)?|conv_in|img_in)\.",
            r"x_embedder\.",
        ),
    ),
)
_VOTE = re.compile("|".join(f"({'|'.join(starts)})" for _, starts in _KINDS))
MAX_VOTES = 4_096
# Embeddings of one token: a matrix of a few vectors under the token's own name.
MAX_EMBEDDING_VECTORS = 128
MAX_EMBEDDING_TENSORS = 2  # one for each text encoder of SDXL


def recognised(tensors: Sequence[Tensor]) -> str:
    """Return what a file of such tensors is; empty where nothing is recognised."""
    if len(tensors) <= MAX_EMBEDDING_TENSORS and all(map(_is_embedding, tensors)):
        return EMBEDDING
    matches = (_VOTE.match(tensor.name[:200]) for tensor in tensors[:MAX_VOTES])
    votes = Counter(match.lastindex for match in matches if match is not None)
    if not votes:
        return ""
    winner = votes.most_common(1)[0][0]
    return _KINDS[(winner or 1) - 1][0]


def _is_embedding(tensor: Tensor) -> bool:
    vectors = {1: 1, 2: tensor.shape[0] if tensor.shape else 0}.get(len(tensor.shape), 0)
    return "." not in tensor.name and 0 < vectors <= MAX_EMBEDDING_VECTORS


def refuse_plain(plain: Sequence[Tensor]) -> None:
    """Refuse a file without any adapter module, naming what it is."""
    if not plain:
        raise FileRefused("lora_not_an_adapter", "the file holds no tensor")
    kind = recognised(plain)
    what = f"this is a {kind}" if kind else "no tensor has the name of an adapter's part"
    raise FileRefused(
        "lora_not_an_adapter",
        f"{what}, not a LoRA (first tensor: {text(plain[0].name, max_chars=200)})",
    )


def refuse_merged(plain: Sequence[Tensor], module_count: int) -> None:
    """Refuse a checkpoint that happens to hold adapter-like names.

    Such files have more plain weights than adapter modules, and whole models among them.
    """
    if len(plain) <= module_count or recognised(plain) not in {CHECKPOINT, "full diffusion model"}:
        return
    raise FileRefused(
        "lora_not_an_adapter",
        f"this is a {recognised(plain)}: {len(plain)} plain weights beside "
        f"{module_count} modules that look like an adapter's",
    )
