"""Realistic adapters without weights' worth of work: names, shapes, whole files.

`adapter_tensors("sdxl", style="kohya", rank=16)` lists what a trainer would write;
`write_safetensors(path, tensors, metadata)` makes a file of it, fast enough for 500 MB;
`held(tensors, metadata)` gives the same as a tensor table and a reader, without a file.
"""

import json
import random
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lora_server.formats.tensors import DTYPE_BITS, Container, Tensor, TensorTable
from tests.layers import Layer
from tests.layouts import layers_of

Named = tuple[str, str, tuple[int, ...]]
Read = Callable[[int, int], bytes]

BLOCK_BYTES = 1 << 20
ALIGNMENT = 8


class Style(NamedTuple):
    """How a trainer spells: prefixes, separator, suffixes, and whether it stores alpha."""

    denoiser: str
    text_encoder: Callable[[str], str]  # te1 → prefix
    separator: str
    down: str
    up: str
    alpha: bool


def _kohya_te(slot: str) -> str:
    return f"lora_{slot}_"


def _diffusers_te(slot: str) -> str:
    return {"te1": "text_encoder.", "te": "text_encoder."}.get(slot, f"text_encoder_{slot[2:]}.")


def _peft(prefix: str) -> Style:
    return Style(prefix, _diffusers_te, ".", "lora_A.weight", "lora_B.weight", alpha=False)


def _kohya(prefix: str) -> Style:
    return Style(prefix, _kohya_te, "_", "lora_down.weight", "lora_up.weight", alpha=True)


STYLES: Mapping[str, Style] = {
    "kohya": _kohya("lora_unet_"),
    "kohya__": _kohya("lora_unet__"),
    "onetrainer": _kohya("lora_transformer_"),
    "lycoris": _kohya("lycoris_"),
    "diffusers-unet": _peft("unet."),
    "diffusers": _peft("transformer."),
    "ai-toolkit": _peft("diffusion_model."),
    "peft": _peft("base_model.model."),
    "peft-transformer": _peft("base_model.model.transformer."),
    "bare": _peft(""),
}


def module_name(layer: Layer, style: str) -> str:
    """Return the module path that this style writes for a layer."""
    spelled = STYLES[style]
    prefix = spelled.text_encoder(layer.slot) if layer.slot else spelled.denoiser
    return prefix + layer.path.replace(".", spelled.separator)


def adapter_tensors(
    base: str, *, style: str = "kohya", rank: int = 16, dtype: str = "F16"
) -> list[Named]:
    """Return (name, dtype, shape) of each tensor of a LoRA for a base.

    `base` is a key of `tests.layouts.LAYOUTS`: what is named and how wide it is;
    `style` is a key of STYLES: prefix, separator and suffixes.
    """
    return lora_tensors(layers_of(base), style=style, rank=rank, dtype=dtype)


def lora_tensors(
    layers: Iterable[Layer], *, style: str = "kohya", rank: int = 16, dtype: str = "F16"
) -> list[Named]:
    """Return the tensors of a LoRA on these layers."""
    spelled = STYLES[style]
    tensors: list[Named] = []
    for layer in layers:
        path = module_name(layer, style)
        kernel = (1, 1) if layer.conv else ()
        tensors.append((f"{path}.{spelled.down}", dtype, (rank, layer.inner, *kernel)))
        tensors.append((f"{path}.{spelled.up}", dtype, (layer.outer, rank, *kernel)))
        if spelled.alpha:
            tensors.append((f"{path}.alpha", dtype, ()))
    return tensors


def _numel(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def alpha_bytes(dtype: str, value: float) -> bytes:
    """Return one number in a float dtype."""
    if dtype == "BF16":
        return struct.pack("<f", value)[2:]
    return struct.pack({"F16": "<e", "F32": "<f", "F64": "<d", "I64": "<q"}[dtype], value)


def placed(tensors: Iterable[Named]) -> list[Tensor]:
    """Return the tensors in the order and at the data offsets that the safetensors library gives.

    It sorts by dtype, the widest first, and then by name; offsets start at 0 here.
    """
    begin = 0
    found = []
    for name, dtype, shape in sorted(tensors, key=lambda t: (-DTYPE_BITS[t[1]], t[1], t[0])):
        stride = tuple(_numel(shape[axis + 1 :]) for axis in range(len(shape)))
        tensor = Tensor(name, dtype, shape, stride, begin)
        found.append(tensor)
        begin += tensor.nbytes
    return found


def safetensors_header(tensors: Iterable[Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return the length and the JSON that precede the tensor section."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    for tensor in tensors:
        offsets = [tensor.begin, tensor.begin + tensor.nbytes]
        shape = list(tensor.shape)
        header[tensor.name] = {"dtype": tensor.dtype, "shape": shape, "data_offsets": offsets}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % ALIGNMENT)
    return struct.pack("<Q", len(encoded)) + encoded


def _weights(seed: int, dtype: str) -> bytes:
    """Return a block of pseudo-random small finite numbers of either sign."""
    width = DTYPE_BITS[dtype] // 8
    top = {"BF16": 0x3C, "F16": 0x20}.get(dtype, 0x3C)
    block = bytearray(random.Random(seed).randbytes(BLOCK_BYTES))  # noqa: S311 - weights, no secret
    keep_sign = bytes((byte & 0x80) | top for byte in range(256))
    block[width - 1 :: width] = bytes(block[width - 1 :: width]).translate(keep_sign)
    return bytes(block)


def write_safetensors(
    path: Path,
    tensors: Iterable[Named],
    metadata: Mapping[str, str] | None = None,
    *,
    seed: int = 0,
    alpha: float = 8.0,
) -> Path:
    """Write a whole valid file: weights from the seed, every scalar `.alpha` of this value."""
    ordered = placed(tensors)
    blocks: dict[str, bytes] = {}
    with path.open("wb") as file:
        file.write(safetensors_header(ordered, metadata or {}))
        for tensor in ordered:
            if tensor.name.endswith(".alpha"):
                file.write(alpha_bytes(tensor.dtype, alpha))
                continue
            if tensor.dtype not in blocks:
                blocks[tensor.dtype] = _weights(seed, tensor.dtype)
            block = blocks[tensor.dtype]
            for start in range(0, tensor.nbytes, BLOCK_BYTES):
                file.write(memoryview(block)[: min(BLOCK_BYTES, tensor.nbytes - start)])
    return path


def held(
    tensors: Iterable[Named],
    metadata: Mapping[str, str] | None = None,
    *,
    alpha: float = 8.0,
    container: Container = Container.SAFETENSORS,
) -> tuple[TensorTable, Read]:
    """Return the tensor table of such a file and a reader that knows its alphas only."""
    ordered = placed(tensors)
    scalars = {
        tensor.begin: alpha_bytes(tensor.dtype, alpha)
        for tensor in ordered
        if tensor.name.endswith(".alpha")
    }
    size = ordered[-1].begin + ordered[-1].nbytes if ordered else 0
    table = TensorTable(container, tuple(ordered), dict(metadata or {}), 0, size)

    def read(offset: int, nbytes: int) -> bytes:
        return scalars[offset][:nbytes]

    return table, read
