"""What metadata claims of base model and network; claims are heard, never believed alone."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lora_server.inspection import metadata as meta
from lora_server.inspection.bases import Base, Bases, spelled

# Endings of modelspec.architecture after the base's name; the specification asks for /lora.
_ADAPTER_WORDS = frozenset({"lora", "lycoris", "dora", "locon", "loha", "lokr", "control-lora"})
# Fine-tunes of SDXL that no tensor tells apart; the names are looked for in the checkpoint's.
_VARIANTS = (("pony", "Pony"), ("illustrious", "Illustrious"), ("noob", "NoobAI"))
_VARIANT_KEYS = ("ss_base_model_version", "ss_sd_model_name", "modelspec.architecture")


@dataclass(frozen=True, slots=True)
class BaseClaim:
    """A statement on the base model: the key, the known spelling, and what that stands for."""

    source: str
    spelling: str
    says: Bases


@dataclass(frozen=True, slots=True)
class PeftConfig:
    """PEFT's own configuration, as diffusers embeds it; the file may hold several components."""

    rank: float | None
    alpha: float | None
    base_model: str


def base_claims(metadata: Mapping[str, str]) -> tuple[BaseClaim, ...]:
    """Return the claims whose spelling is known, the most explicit source first."""
    return tuple(_base_claims(metadata))


def _base_claims(metadata: Mapping[str, str]) -> Iterator[BaseClaim]:
    sources = {
        "modelspec.architecture": _architecture(meta.said(metadata, "modelspec.architecture")),
        "ss_base_model_version": meta.said(metadata, "ss_base_model_version"),
        "lora_adapter_metadata": _last_segment(peft_config(metadata).base_model),
    }
    heard = False
    for source, value in sources.items():
        known = spelled(value)
        if known is not None:
            heard = True
            yield BaseClaim(source, *known)
    if not heard and meta.said(metadata, "ss_v2").lower() == "true":
        yield BaseClaim("ss_v2", "true", frozenset({Base.SD2}))


def _architecture(value: str) -> str:
    segments = [part for part in value.split("/") if part.lower() not in _ADAPTER_WORDS]
    return segments[-1] if segments else ""


def _last_segment(value: str) -> str:
    return value.replace("\\", "/").rstrip("/").rpartition("/")[2]


def variant(metadata: Mapping[str, str]) -> str | None:
    """Return the fine-tune of SDXL that the metadata names; no tensor can."""
    claimed = " ".join(meta.said(metadata, key) for key in _VARIANT_KEYS).lower()
    return next((name for needle, name in _VARIANTS if needle in claimed), None)


def peft_config(metadata: Mapping[str, str]) -> PeftConfig:
    """Return what `lora_adapter_metadata` holds; diffusers prefixes keys with the component."""
    config = meta.table(meta.parsed(metadata.get("lora_adapter_metadata")))
    flat = {key.rpartition(".")[2]: value for key, value in config.items()}
    return PeftConfig(
        _number(flat.get("r")),
        _number(flat.get("lora_alpha")),
        meta.text(flat.get("base_model_name_or_path")),
    )


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= meta.MAX_COUNT else None


def network_dim(metadata: Mapping[str, str]) -> int | None:
    """Return kohya's rank; None where it says None or Dynamic."""
    value = meta.said(metadata, "ss_network_dim")
    return int(value) if value.isascii() and value.isdigit() and len(value) <= len("9999") else None
