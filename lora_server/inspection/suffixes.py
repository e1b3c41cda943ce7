"""Tensor names into module path and part: the suffixes that trainers write.

A part is named by its suffix, so that the parts of a module tell family and spelling at once.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

from lora_server.inspection.paths import LONGEST_PATH

# Suffixes of one segment: the last dot ends the module path.
LEAVES: Mapping[str, str] = {
    name: name
    for name in (
        # kohya and LyCORIS
        *("alpha", "dora_scale", "diff", "diff_b", "set_weight", "reshape_weight"),
        *("w_norm", "b_norm", "on_input", "oft_blocks", "rescale"),
        *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
        *("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
        # PEFT; lora_A and lora_B without .weight are Mochi's
        *("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "ia3_l"),
        *("oft_R", "boft_R", "boft_s", "lora_magnitude_vector"),
        "magnitude",  # ai-toolkit
    )
}

# kohya's OFT for Flux: one stack of blocks for each of the layers that a fused one holds.
OFT_SPLITS = tuple(f"oft_blocks.{split}" for split in range(8))

# Suffixes of two segments, by the last and the one before it.
PAIRS: Mapping[str, Mapping[str, str]] = {
    "weight": {
        "lora_down": "lora_down",
        "lora_up": "lora_up",
        "lora_mid": "lora_mid",
        "lora_A": "lora_A.weight",
        "lora_B": "lora_B.weight",
        "oft_R": "oft_R",
        "lora_magnitude_vector": "lora_magnitude_vector",
        "a1": "glora_a1",
        "a2": "glora_a2",
        "b1": "glora_b1",
        "b2": "glora_b2",
    },
    "bias": {"lora_B": "lora_B.bias", "lora_up": "lora_up.bias"},
    "scaled_oft": {"oft_R": "scaled_oft"},
    **{part.rpartition(".")[2]: {"oft_blocks": part} for part in OFT_SPLITS},
}

# PEFT puts the adapter's name behind these, with or without .weight after it.
NAMED: Mapping[str, str] = {
    "lora_A": "lora_A.weight",
    "lora_B": "lora_B.weight",
    "lora_embedding_A": "lora_embedding_A",
    "lora_embedding_B": "lora_embedding_B",
    "lora_magnitude_vector": "lora_magnitude_vector",
    "oft_R": "oft_R",
    "boft_R": "boft_R",
    "boft_s": "boft_s",
    "ia3_l": "ia3_l",
}

# diffusers before PEFT, and XLabs: <layer>.down.weight and <layer>.up.weight.
LAYERS: Mapping[str, str] = {"lora": "lora", "lora_linear_layer": "lora_linear_layer"}

# Tuners of PEFT that are adapters beyond doubt and of no family that is described here.
OTHER_TUNERS = re.compile(
    r"(?:^|\.)(?P<tuner>vera_lambda|fourierft|vblora|hira|road|randlora|waveft|ln_tuning|c3a|"
    r"miss|bone|shira|delora|psoft|gralora)_[^.]*(?:\.[^.]*){0,2}$"
)
ADAPTER_NAME = re.compile(r"^(?:lora|lycoris)_|(?:^|\.)lora_[^.]*\.[^.]*$")


def split(name: str) -> tuple[str, str] | None:
    """Return module path and part; None for a tensor that no adapter writes."""
    # Only names of an ordinary length are remembered, so that no header fills the memory.
    return _remembered(name) if len(name) <= LONGEST_PATH else _split(name)


def _split(name: str) -> tuple[str, str] | None:
    head, _, last = name.rpartition(".")
    part = LEAVES.get(last)
    if part is not None:
        return head, part
    owner, _, stem = head.rpartition(".")
    pairs = PAIRS.get(last)
    if pairs is not None:
        part = pairs.get(stem)
        if part is not None:
            return owner, part
    return _rare(name, owner, stem, last)


# A library repeats the same names file after file.
_remembered = lru_cache(maxsize=32_768)(_split)


def _rare(name: str, owner: str, stem: str, last: str) -> tuple[str, str] | None:
    if last == "weight" and stem in {"down", "up"}:
        layered = _layered(owner, stem)
        if layered is not None:
            return layered
    return _named(owner, stem, last) or _native(owner, stem, last) or _foreign(name)


def _layered(owner: str, stem: str) -> tuple[str, str] | None:
    path, _, layer = owner.rpartition(".")
    if layer in LAYERS:
        return path, f"{layer}.{stem}"
    if layer.endswith("_lora"):
        return owner.removesuffix("_lora"), f"_lora.{stem}"
    if layer.endswith(("_lora1", "_lora2")):
        return owner, f"_lora12.{stem}"
    return None


def _named(owner: str, stem: str, last: str) -> tuple[str, str] | None:
    if stem in NAMED and last != "bias":
        return owner, NAMED[stem]
    path, _, holder = owner.rpartition(".")
    if last in {"weight", "bias"} and holder in NAMED:
        return path, NAMED[holder] if last == "weight" else "lora_B.bias"
    return None


def _native(owner: str, stem: str, last: str) -> tuple[str, str] | None:
    # The Flux Control LoRAs replace the scales of their norms outright.
    if last == "scale" and stem.endswith("_norm"):
        return f"{owner}.{stem}", "norm_scale"
    return None


def _foreign(name: str) -> tuple[str, str] | None:
    tuner = OTHER_TUNERS.search(name)
    if tuner is not None:
        return name[: tuner.start()], f"tuner:{tuner['tuner']}"
    if ADAPTER_NAME.search(name):
        head, _, last = name.rpartition(".")
        return head, "weight" if last == "weight" else "unknown"
    return None
