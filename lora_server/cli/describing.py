"""A LoRA in words: one line, the rows of a table, and everything."""

from typing import Any

from lora_server.cli.wording import plain, size
from lora_server.client.answers import Lora

UNKNOWN = "-"


def in_short(lora: Lora) -> str:
    """Return what a LoRA is, as far as it is known: `LoRA, rank 16, SDXL 1.0, 223 MB`."""
    rank = f"rank {lora.rank}" if lora.rank else None
    parts = (lora.adapter, rank, lora.base_model or "base unknown", size(lora.file_size))
    return plain(", ".join(part for part in parts if part))


def warnings(lora: Lora) -> list[str]:
    """Return what the owner of a file should know."""
    found = lora.inspection.get("warnings")
    items = found if isinstance(found, list) else []
    return [str(item.get("message", "")) for item in items if isinstance(item, dict)]


def verdict(lora: Lora) -> tuple[str, str]:
    """Return what to think of a LoRA and the style that shows it: the evaluation, if any."""
    word = lora.verdict if lora.verdict == "refused" else lora.evaluation or lora.verdict
    styles = {"refused": "red", "fail": "red", "review": "yellow", "pass": "green"}
    return (word or UNKNOWN, styles.get(word or "", ""))


def base_model(lora: Lora) -> str:
    """Return the base model, or those that it could be."""
    if lora.base_model:
        return lora.base_model
    candidates = listed(lora.inspection.get("candidates"))
    return " or ".join(candidates) if candidates else UNKNOWN


def listed(value: Any) -> list[str]:
    """Return the texts of a list; empty where it is none."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
