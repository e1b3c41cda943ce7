"""The smallest files that are LoRAs, of any size and with any bytes for weights."""

import json

_HEADER_BYTES = 248  # padded to this, so that 256 bytes and the weights make the file
SMALLEST = 8 + _HEADER_BYTES + 2


def lora(
    size: int = 1000, fill: bytes = b"\x01", *, metadata: dict[str, str] | None = None
) -> bytes:
    """Return a safetensors LoRA of exactly `size` bytes whose weights repeat `fill`."""
    return lora_header(size, metadata=metadata) + _weights(fill, size - SMALLEST + 2)


def lora_header(size: int, *, metadata: dict[str, str] | None = None) -> bytes:
    """Return the first 256 bytes of a LoRA of `size` bytes: one module of rank 1, in FP8."""
    width = size - SMALLEST + 1
    entries = {
        "lora_unet_a.lora_down.weight": _entry([1, width], 0, width),
        "lora_unet_a.lora_up.weight": _entry([1, 1], width, width + 1),
        **({"__metadata__": metadata} if metadata else {}),
    }
    header = json.dumps(entries, separators=(",", ":")).encode().ljust(_HEADER_BYTES)
    return len(header).to_bytes(8, "little") + header


def _entry(shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": "F8_E4M3", "shape": shape, "data_offsets": [begin, end]}


def _weights(fill: bytes, size: int) -> bytes:
    return (fill * (size // len(fill) + 1))[:size]
