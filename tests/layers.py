"""The layers that adapters change: the blocks that bases are made of, and the U-Nets."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple


class Layer(NamedTuple):
    """A linear layer (or a 1x1 convolution) with its dotted path within its part of the model."""

    path: str
    inner: int
    outer: int
    slot: str = ""  # a text encoder, te1; empty for the denoiser
    conv: bool = False


Shapes = Mapping[str, tuple[int, int]]


def stack(prefix: str, depth: int, layers: Shapes) -> Iterator[Layer]:
    """Yield each layer of each block, `prefix.<number>.<layer>`."""
    for number in range(depth):
        for path, (inner, outer) in layers.items():
            yield Layer(f"{prefix}.{number}.{path}", inner, outer)


def attention(path: str, width: int, context: int, out: str = "to_out.0") -> Shapes:
    """Return the four projections of an attention in diffusers' names."""
    return {
        f"{path}.to_q": (width, width),
        f"{path}.to_k": (context, width),
        f"{path}.to_v": (context, width),
        f"{path}.{out}": (width, width),
    }


def square(names: Iterable[str], width: int) -> Shapes:
    """Return layers as wide as the residual stream."""
    return dict.fromkeys(names, (width, width))


def _transformer(path: str, depth: int, width: int, context: int, *, conv: bool) -> Iterator[Layer]:
    block = {
        **attention("attn1", width, width),
        **attention("attn2", width, context),
        "ff.net.0.proj": (width, width * 8),
        "ff.net.2": (width * 4, width),
    }
    yield Layer(f"{path}.proj_in", width, width, conv=conv)
    yield from stack(f"{path}.transformer_blocks", depth, block)
    yield Layer(f"{path}.proj_out", width, width, conv=conv)


def clip(slot: str, depth: int, width: int) -> Iterator[Layer]:
    """Yield the layers of a CLIP text encoder."""
    for layer in stack(
        "text_model.encoder.layers",
        depth,
        {
            "mlp.fc1": (width, width * 4),
            "mlp.fc2": (width * 4, width),
            **square((f"self_attn.{name}_proj" for name in ("k", "out", "q", "v")), width),
        },
    ):
        yield layer._replace(slot=slot)


def t5(slot: str, depth: int = 24) -> Iterator[Layer]:
    """Yield the layers of a T5 encoder."""
    names = (f"layer.0.SelfAttention.{name}" for name in "qkvo")
    for layer in stack("encoder.block", depth, square(names, 4096)):
        yield layer._replace(slot=slot)


# SDXL's transformers: (SGM path, diffusers path, depth, width).
_SDXL = (
    *((f"input_blocks.{n}.1", f"down_blocks.1.attentions.{n - 4}", 2, 640) for n in (4, 5)),
    *((f"input_blocks.{n}.1", f"down_blocks.2.attentions.{n - 7}", 10, 1280) for n in (7, 8)),
    ("middle_block.1", "mid_block.attentions.0", 10, 1280),
    *((f"output_blocks.{n}.1", f"up_blocks.0.attentions.{n}", 10, 1280) for n in (0, 1, 2)),
    *((f"output_blocks.{n}.1", f"up_blocks.1.attentions.{n - 3}", 2, 640) for n in (3, 4, 5)),
)
_SD1 = (
    *((f"down_blocks.{b}.attentions.{n}", 320 * 2**b) for b in (0, 1, 2) for n in (0, 1)),
    ("mid_block.attentions.0", 1280),
    *((f"up_blocks.{b}.attentions.{n}", 320 * 2 ** (3 - b)) for b in (1, 2, 3) for n in (0, 1, 2)),
)


def sdxl(*, sgm: bool) -> Iterator[Layer]:
    """Yield SDXL's transformers, in SGM's names as kohya writes them or in diffusers'."""
    for native, diffusers, depth, width in _SDXL:
        yield from _transformer(native if sgm else diffusers, depth, width, 2048, conv=False)


def sd(context: int, *, conv: bool) -> Iterator[Layer]:
    """Yield the transformers of SD 1 and 2, which differ in context and in their projections."""
    for path, width in _SD1:
        yield from _transformer(path, 1, width, context, conv=conv)


def sdxl_te() -> Iterator[Layer]:
    """Yield both text encoders of SDXL."""
    yield from clip("te1", 12, 768)
    yield from clip("te2", 32, 1280)
