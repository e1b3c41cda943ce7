"""What kinds of layers an adapter changes, and which text encoders it touches."""

import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

from lora_server.inspection.layout import Group
from lora_server.inspection.paths import DENOISER, FIRST_TE, PRIOR
from lora_server.inspection.record import TextEncoder

# The first pattern that is found in the flattened path names the kind.
KINDS = (
    ("modulation", re.compile(r"modulation|_mod_|adaln|ada_ln|norm1?(?:_context)?_linear$")),
    ("norm", re.compile(r"norm[0-9_a-z]*$|_ln$")),
    ("cross attention", re.compile(r"attn2|cross_attn|EncDecAttention")),
    ("attention", re.compile(r"attn|attention|Attention|to_(?:q|k|v|out)\b|qkv|q_proj")),
    ("feed-forward", re.compile(r"_ff|_ffn|mlp|feed_forward|DenseReluDense|experts|linear[12]$")),
    ("projection", re.compile(r"proj_in|proj_out")),
    ("convolution", re.compile(r"conv|resnets|_op$|in_layers|out_layers|skip_connection")),
    ("embedding", re.compile(r"emb|_in$|_in_|patch|token|refiner")),
)
TE_KINDS = (
    ("t5", re.compile(r"encoder_block_#_layer_#|SelfAttention|DenseReluDense")),
    ("clip", re.compile(r"text_model_|text_projection")),
    ("llm", re.compile(r"layers_#_(?:self_attn|mlp)_")),
)


@lru_cache(maxsize=4096)
def kind(flat: str) -> str:
    """Return the kind of layer that a flattened pattern names."""
    return next((name for name, pattern in KINDS if pattern.search(flat)), "other")


@lru_cache(maxsize=4096)
def te_kind(flat: str) -> str:
    """Return what sort of text encoder has such a layer."""
    return next((name for name, pattern in TE_KINDS if pattern.search(flat)), "unknown")


def targets(groups: Iterable[Group]) -> dict[str, int]:
    """Count modules by kind; those of text encoders are counted as such."""
    counts: Counter[str] = Counter()
    for group in groups:
        prefix = "" if group.slot in {DENOISER, PRIOR} else "text encoder "
        counts[prefix + kind(group.flat)] += group.count
    return dict(counts.most_common())


def text_encoders(groups: Iterable[Group]) -> tuple[TextEncoder, ...]:
    """Return the text encoders, with the sort that most of their modules speak for."""
    kinds: dict[str, Counter[str]] = {}
    for group in groups:
        if group.slot not in {DENOISER, PRIOR}:
            slot = "te1" if group.slot == FIRST_TE else group.slot
            kinds.setdefault(slot, Counter())[te_kind(group.flat)] += group.count
    return tuple(
        TextEncoder(slot, counts.most_common(1)[0][0], counts.total())
        for slot, counts in sorted(kinds.items())
    )
