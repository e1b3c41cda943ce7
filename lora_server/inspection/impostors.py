"""Files that are weights but no adapter: recognised by name, refused by what they are."""

import re
from collections import Counter
from collections.abc import Sequence

from lora_server.errors import FileRefused
from lora_server.formats.tensors import Tensor

CHECKPOINT = "full checkpoint"
EMBEDDING = "textual inversion embedding"

# Each kind with the starts of its tensor names. A name may vote once, for the first that fits.
_KINDS = (
    (CHECKPOINT, r"model\.diffusion_model\.|cond_stage_model\.|conditioner\.|first_stage_model\."),
    ("ControlNet", r"control_model\.|controlnet_|input_hint_block\.|(?:.*\.)?zero_convs?\."),
    ("IP-Adapter", r"image_proj\.|ip_adapter\."),
    ("T2I-Adapter", r"adapter\.body\.|body\.\d+\.(?:in_conv|block1|down_opt)"),
    ("motion module", r".*motion_modules\."),
    (
        "upscaler",
        r"(?:params(?:_ema)?\.)?(?:body\.\d+\.rdb|RRDB_trunk|conv_first\.|conv_last\.|conv_body\."
        r"|HRconv|conv_hr|conv_up\d|upconv\d|layers\.\d+\.residual_group|model\.\d+\.sub\.)",
    ),
    (
        "VAE",
        r"(?:vae\.)?(?:encoder|decoder)\.(?:down|up|mid|conv_in|conv_out|norm_out|conv_norm_out"
        r"|middle|downsamples|upsamples|head)|(?:post_)?quant_conv\.|vae\.",
    ),
    (
        "text encoder",
        r"(?:(?:cond_stage|text)_model\.|text_encoders?\.|transformer\.text_model\.|text_projection"
        r"|encoder\.block\.\d+\.layer\.|shared\.weight|(?:model\.)?(?:language_model\.)?layers\.\d+"
        r"\.(?:self_attn|mlp|input_layernorm)|model\.embed_tokens|transformer\.resblocks)",
    ),
    ("image encoder", r"vision_model\.|visual\."),
    (EMBEDDING, r"emb_params$|clip_[lg]$|t5xxl$|string_to_param"),
    (
        "full diffusion model",
        r"(?:diffusion_model\.|net\.|unet\.|transformer\.)?(?:double_blocks|single_blocks"
        r"|transformer_blocks|single_transformer_blocks|joint_blocks|down_blocks|up_blocks"
        r"|mid_block|input_blocks|output_blocks|blocks|layers|double_stream_blocks|time_embed"
        r"|time_embedding|conv_in|img_in|x_embedder)\.",
    ),
)
_VOTE = re.compile("|".join(f"({pattern})" for _, pattern in _KINDS))
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
    return (
        "." not in tensor.name
        and len(tensor.shape) in {1, 2}
        and tensor.shape[0] <= MAX_EMBEDDING_VECTORS
    )


def refuse_plain(plain: Sequence[Tensor]) -> None:
    """Refuse a file without any adapter module, naming what it is."""
    if not plain:
        raise FileRefused("lora_not_an_adapter", "the file holds no tensor")
    kind = recognised(plain)
    what = f"this is a {kind}" if kind else "no tensor has the name of an adapter's part"
    raise FileRefused(
        "lora_not_an_adapter", f"{what}, not a LoRA (first tensor: {plain[0].name[:200]})"
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
