"""Module paths: whose prefix, which part of the model, which place in its repeated blocks."""

import re
from functools import lru_cache
from typing import NamedTuple

LONGEST_PATH = 300

DENOISER = "denoiser"
PRIOR = "prior"
# diffusers' name for the only text encoder of SD 1 and for the first one of the others.
FIRST_TE = "text_encoder"


class Prefix(NamedTuple):
    """A spelling, the part of the model that it stands for, and who writes it."""

    pattern: str
    slot: str
    writer: str


PREFIXES = (
    # Some Wan-Fun and Z-Image trainers write two underscores.
    Prefix(r"lora_unet__?", DENOISER, "kohya"),
    Prefix(r"lora_te1_", "te1", "kohya"),
    Prefix(r"lora_te2_", "te2", "kohya"),
    Prefix(r"lora_te3_", "te3", "kohya"),
    Prefix(r"lora_te4_", "te4", "kohya"),
    Prefix(r"lora_te_", "te", "kohya"),
    Prefix(r"lora_transformer_", DENOISER, "OneTrainer"),
    Prefix(r"lora_prior_unet_", PRIOR, "kohya"),
    Prefix(r"lora_prior_te_", "te", "kohya"),
    Prefix(r"lycoris_(?=text_model_)", FIRST_TE, "LyCORIS"),
    Prefix(r"lycoris_", DENOISER, "LyCORIS"),
    Prefix(r"(?:model\.)?diffusion_model\.", DENOISER, "ai-toolkit"),
    Prefix(r"transformer(?:_2)?\.(?!text_model)", DENOISER, "diffusers"),
    Prefix(r"unet\.", DENOISER, "diffusers"),
    Prefix(r"net\.", DENOISER, "native"),
    Prefix(r"text_encoder_2\.", "te2", "diffusers"),
    Prefix(r"text_encoder_3\.", "te3", "diffusers"),
    Prefix(r"text_encoder_4\.", "te4", "diffusers"),
    Prefix(r"text_encoder\.", FIRST_TE, "diffusers"),
    # ComfyUI names encoders by what they are; which number they have depends on the base.
    Prefix(r"text_encoders\.clip_l\.transformer\.", FIRST_TE, "native"),
    Prefix(r"text_encoders\.clip_g\.transformer\.", "te2", "native"),
    Prefix(r"text_encoders\.\w+\.transformer\.", "te", "native"),
    Prefix(r"(?=text_model[._])", FIRST_TE, ""),
)
_PREFIX = re.compile(
    r"(?:base_model\.model\.)?(?:" + "|".join(f"({prefix.pattern})" for prefix in PREFIXES) + ")"
)
_WRAPPED = "base_model.model."

# A block number is a whole segment; the 1 of attn1 or fc1 is part of a name.
_NUMBER = re.compile(r"[._]([0-9]{1,6})(?=[._]|$)")


class Place(NamedTuple):
    """Where a module sits; paths that differ only in block numbers share slot and pattern."""

    slot: str
    writer: str
    pattern: str  # each block number is a #; dots are kept where the spelling has them
    numbers: tuple[int, ...]


@lru_cache(maxsize=16_384)
def place(path: str) -> Place:
    """Return the place of a module; a library repeats the same paths file after file."""
    match = _PREFIX.match(path)
    slot, writer, rest = DENOISER, "", path
    if match is not None and match.lastindex is not None:
        prefix = PREFIXES[match.lastindex - 1]
        slot, writer, rest = prefix.slot, prefix.writer, path[match.end() :]
    if path.startswith(_WRAPPED):
        writer, rest = "PEFT", rest.removeprefix(_WRAPPED)
    pieces = _NUMBER.split(rest)
    return Place(slot, writer, "_#".join(pieces[::2]), tuple(map(int, pieces[1::2])))
