"""What metadata declares of rank and alpha, to be held against the tensors."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_server.inspection import metadata as meta
from lora_server.inspection.claims import network_dim

# PEFT's configuration names components of a pipeline where trainers number text encoders.
_COMPONENTS: Mapping[str, str] = {
    "unet": "denoiser",
    "transformer": "denoiser",
    "prior": "prior",
    "text_encoder": "te1",
    "text_encoder_2": "te2",
    "text_encoder_3": "te3",
}


@dataclass(frozen=True, slots=True)
class Claim:
    """PEFT's configuration of one part."""

    rank: float | None
    alpha: float | None
    rslora: bool


@dataclass(frozen=True, slots=True)
class Declared:
    """kohya's rank and alpha of linear layers and of convolutions, and PEFT's by part."""

    rank: int | None
    alpha: float | None
    conv_rank: float | None
    conv_alpha: float | None
    peft: Mapping[str, Claim]  # the part "" is a configuration that names none

    def of_part(self, part: str) -> Claim | None:
        """Return what PEFT's configuration says of a part; None where it is silent."""
        return self.peft.get(part, self.peft.get(""))


def declared(metadata: Mapping[str, str]) -> Declared:
    """Return what the metadata declares."""
    arguments = meta.table(meta.parsed(metadata.get("ss_network_args")))
    return Declared(
        rank=network_dim(metadata),
        alpha=number(meta.said(metadata, "ss_network_alpha")),
        conv_rank=number(arguments.get("conv_dim")),
        conv_alpha=number(arguments.get("conv_alpha")),
        peft=_peft(metadata),
    )


def _peft(metadata: Mapping[str, str]) -> dict[str, Claim]:
    config = meta.table(meta.parsed(metadata.get("lora_adapter_metadata")))
    by_component: dict[str, dict[str, Any]] = {}
    for key, value in config.items():
        component, _, name = key.rpartition(".")
        part = _COMPONENTS.get(component, component)
        by_component.setdefault(part, {})[name] = value
    return {
        part: Claim(
            number(values.get("r")),
            number(values.get("lora_alpha")),
            values.get("use_rslora") is True,
        )
        for part, values in by_component.items()
    }


def number(value: object) -> float | None:
    """Return a count or strength above 0, also where it is written as text; else None."""
    if isinstance(value, str):
        try:
            value = json.loads(value[:40])
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 < value <= meta.MAX_COUNT else None
