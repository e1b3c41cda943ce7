"""The base models that are told apart: names, widths, depths, and the claims' spellings.

Widths and depths are those of the published model definitions; a base that is missing from a
table is one whose figure is not known, and is never excluded by it.
"""

import re
from collections.abc import Mapping
from enum import StrEnum


class Base(StrEnum):
    """A base model as it is named in answers."""

    # An enumeration's own hash is Python code, and evidence is all sets of bases.
    __hash__ = str.__hash__

    SD1 = "SD 1.x"
    SD2 = "SD 2.x"
    SDXL = "SDXL"
    SD3 = "SD 3"
    FLUX1 = "Flux.1"
    CHROMA = "Chroma"
    FLUX2_DEV = "Flux.2 dev"
    KLEIN_4B = "Flux.2 Klein 4B"
    KLEIN_9B = "Flux.2 Klein 9B"
    QWEN_IMAGE = "Qwen-Image"
    Z_IMAGE = "Z-Image"
    LUMINA2 = "Lumina 2"
    IDEOGRAM4 = "Ideogram 4"
    WAN_1_3B = "Wan 2.1 1.3B"
    WAN_5B = "Wan 2.2 5B"
    WAN_14B = "Wan 2.1/2.2 14B"
    ANIMA = "Anima / Cosmos-Predict2"
    HUNYUAN_VIDEO = "HunyuanVideo"
    HUNYUAN_VIDEO_1_5 = "HunyuanVideo 1.5"
    HUNYUAN_IMAGE = "HunyuanImage 2.1"
    LTX_VIDEO = "LTX-Video"
    LTX_2 = "LTX-2"
    HIDREAM = "HiDream-I1"
    KREA2 = "Krea 2"
    STABLE_CASCADE = "Stable Cascade"


Bases = frozenset[Base]


def bases(*names: Base) -> Bases:
    """Return a set of bases."""
    return frozenset(names)


FLUX2 = bases(Base.FLUX2_DEV, Base.KLEIN_4B, Base.KLEIN_9B)
FLUX1_LIKE = bases(Base.FLUX1, Base.CHROMA)
HUNYUAN = bases(Base.HUNYUAN_VIDEO, Base.HUNYUAN_VIDEO_1_5, Base.HUNYUAN_IMAGE)
SD_UNET = bases(Base.SD1, Base.SD2, Base.SDXL)
WAN = bases(Base.WAN_1_3B, Base.WAN_5B, Base.WAN_14B)
LTX = bases(Base.LTX_VIDEO, Base.LTX_2)

# The width of the residual stream, which every attention query reads.
WIDTHS: Mapping[Base, frozenset[int]] = {
    Base.SD3: frozenset({1536, 2432}),
    Base.FLUX1: frozenset({3072}),
    Base.CHROMA: frozenset({3072}),
    Base.FLUX2_DEV: frozenset({6144}),
    Base.KLEIN_4B: frozenset({3072}),
    Base.KLEIN_9B: frozenset({4096}),
    Base.QWEN_IMAGE: frozenset({3072}),
    Base.Z_IMAGE: frozenset({3840}),
    Base.LUMINA2: frozenset({2304}),
    Base.WAN_1_3B: frozenset({1536}),
    Base.WAN_5B: frozenset({3072}),
    Base.WAN_14B: frozenset({5120}),
    Base.HUNYUAN_VIDEO: frozenset({3072}),
    Base.HUNYUAN_VIDEO_1_5: frozenset({2048}),
    Base.HUNYUAN_IMAGE: frozenset({3584}),
    Base.LTX_VIDEO: frozenset({2048}),
    Base.LTX_2: frozenset({4096}),
    Base.HIDREAM: frozenset({2560}),
    Base.KREA2: frozenset({6144}),
}

# Blocks of the main (or double-stream) stack and of the single-stream stack.
DEPTHS: Mapping[Base, tuple[int, int]] = {
    Base.SD3: (38, 0),
    Base.FLUX1: (19, 38),
    Base.CHROMA: (19, 38),
    Base.FLUX2_DEV: (8, 48),
    Base.KLEIN_4B: (5, 20),
    Base.KLEIN_9B: (8, 24),
    Base.QWEN_IMAGE: (60, 0),
    Base.Z_IMAGE: (30, 0),
    Base.LUMINA2: (26, 0),
    Base.IDEOGRAM4: (34, 0),
    Base.ANIMA: (28, 0),
    Base.HUNYUAN_VIDEO: (20, 40),
    Base.HUNYUAN_VIDEO_1_5: (54, 0),
    Base.HUNYUAN_IMAGE: (20, 40),
    Base.LTX_VIDEO: (28, 0),
    Base.LTX_2: (48, 0),
    Base.HIDREAM: (16, 32),
    Base.KREA2: (28, 0),
}

# Where several bases are left and no claim picks: the one that nearly all such files are for.
CUSTOM: Mapping[Bases, Base] = {
    FLUX1_LIKE: Base.FLUX1,
    bases(Base.SDXL, Base.SD3, Base.HIDREAM): Base.SDXL,  # text encoders alone
}

# What trainers write as base model, lower case without punctuation; the longest start wins.
_SPELLINGS: Mapping[str, Bases] = {
    "sdv1": bases(Base.SD1),
    "sd1": bases(Base.SD1),
    "stablediffusionv1": bases(Base.SD1),
    "sdv2": bases(Base.SD2),
    "sd2": bases(Base.SD2),
    "stablediffusionv2": bases(Base.SD2),
    "stablediffusion2": bases(Base.SD2),
    "sdxl": bases(Base.SDXL),
    "stablediffusionxl": bases(Base.SDXL),
    "pony": bases(Base.SDXL),
    "illustrious": bases(Base.SDXL),
    "noobai": bases(Base.SDXL),
    "animagine": bases(Base.SDXL),
    "sd3": bases(Base.SD3),
    "stablediffusion3": bases(Base.SD3),
    "stablediffusionv3": bases(Base.SD3),
    "flux1": bases(Base.FLUX1),
    "fluxkontext": bases(Base.FLUX1),
    "fluxdev": bases(Base.FLUX1),
    "fluxschnell": bases(Base.FLUX1),
    "flux2": FLUX2,
    "flux2dev": bases(Base.FLUX2_DEV),
    "flux2klein": bases(Base.KLEIN_4B, Base.KLEIN_9B),
    "flux2klein4b": bases(Base.KLEIN_4B),
    "flux2kleinbase4b": bases(Base.KLEIN_4B),
    "flux2klein9b": bases(Base.KLEIN_9B),
    "flux2kleinbase9b": bases(Base.KLEIN_9B),
    "chroma": bases(Base.CHROMA),
    "lumina2": bases(Base.LUMINA2),
    "luminaimage2": bases(Base.LUMINA2),
    "qwenimage": bases(Base.QWEN_IMAGE),
    "zimage": bases(Base.Z_IMAGE),
    "ideogram4": bases(Base.IDEOGRAM4),
    "krea2": bases(Base.KREA2),
    "wan21": bases(Base.WAN_1_3B, Base.WAN_14B),
    "wan2113b": bases(Base.WAN_1_3B),
    "wan2114b": bases(Base.WAN_14B),
    "wan21t2v13b": bases(Base.WAN_1_3B),
    "wan21t2v14b": bases(Base.WAN_14B),
    "wan21i2v14b": bases(Base.WAN_14B),
    "wan22": bases(Base.WAN_5B, Base.WAN_14B),
    "wan225b": bases(Base.WAN_5B),
    "wan22ti2v5b": bases(Base.WAN_5B),
    "wan2214b": bases(Base.WAN_14B),
    "wan22t2va14b": bases(Base.WAN_14B),
    "wan22i2va14b": bases(Base.WAN_14B),
    "anima": bases(Base.ANIMA),
    "cosmospredict2": bases(Base.ANIMA),
    "hunyuanvideo": bases(Base.HUNYUAN_VIDEO),
    "framepack": bases(Base.HUNYUAN_VIDEO),
    "hunyuanvideo15": bases(Base.HUNYUAN_VIDEO_1_5),
    "hunyuanimage21": bases(Base.HUNYUAN_IMAGE),
    "ltxv": bases(Base.LTX_VIDEO),
    "ltxvideo": bases(Base.LTX_VIDEO),
    "ltx2": bases(Base.LTX_2),
    "hidreami1": bases(Base.HIDREAM),
    "stablecascade": bases(Base.STABLE_CASCADE),
}
# Too short to be looked for at the start of a file name.
_WHOLE_SPELLINGS: Mapping[str, Bases] = {"wan": WAN}
_LONGEST_SPELLING = max(map(len, _SPELLINGS))
_PUNCTUATION = re.compile(r"[^a-z0-9]+")


def spelled(text: str) -> tuple[str, Bases] | None:
    """Return the known spelling that a claim begins with, and the bases it stands for."""
    plain = _PUNCTUATION.sub("", text[:200].lower())
    if plain in _WHOLE_SPELLINGS:
        return plain, _WHOLE_SPELLINGS[plain]
    for length in range(min(len(plain), _LONGEST_SPELLING), 0, -1):
        known = _SPELLINGS.get(plain[:length])
        if known is not None:
            return plain[:length], known
    return None
