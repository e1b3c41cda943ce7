"""Small safetensors files, put together by hand so that any part of them can lie."""

import json
from collections.abc import Iterable, Mapping
from typing import Any


def entry(shape: Iterable[int] = (2,), begin: int = 0, end: int = 4, dtype: str = "F16") -> Any:
    """Return the header's entry for one tensor; four bytes of F16 unless told otherwise."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def encoded(fields: Mapping[str, Any]) -> bytes:
    """Return `fields` as a header's JSON."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def container(header: bytes, data: bytes = bytes(4), *, length: int | None = None) -> bytes:
    """Return a file of any header and data; `length` is what it claims the header to be."""
    claimed = len(header) if length is None else length
    return claimed.to_bytes(8, "little") + header + data


def safetensors(fields: Mapping[str, Any], data: bytes = bytes(4)) -> bytes:
    """Return a file whose header holds `fields`."""
    return container(encoded(fields), data)


def one(**changes: Any) -> bytes:
    """Return a file with one tensor of four bytes, some fields of its entry changed."""
    return safetensors({"lora.alpha": {**entry(), **changes}})


def raw(text: str, data: bytes = bytes(4)) -> bytes:
    """Return a file whose header is `text` to the letter."""
    return container(text.encode(), data)


def many(count: int) -> bytes:
    """Return a file of `count` tensors of two bytes each."""
    fields = {
        f"lora_unet_blocks_{at}.lora_down.weight": entry((1, 1), 2 * at, 2 * at + 2)
        for at in range(count)
    }
    return safetensors(fields, bytes(2 * count))


def adapter(modules: int = 1, *, comment: str = "") -> bytes:
    """Return a LoRA of rank 1 with this many modules of two tensors, two bytes each."""
    halves = [
        f"lora_unet_blocks_{at}.lora_{half}.weight"
        for at in range(modules)
        for half in ("down", "up")
    ]
    fields: dict[str, Any] = {
        name: entry((1, 1), 2 * at, 2 * at + 2) for at, name in enumerate(halves)
    }
    fields["__metadata__"] = {"ss_training_comment": comment}
    return safetensors(fields, bytes(2 * len(halves)))
