"""The layers that adapters for each base change: names, widths and depths by base."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from tests.layers import Layer, Shapes, attention, clip, sd, sdxl, sdxl_te, square, stack, t5


def bfl(double: int, single: int, width: int, mlp: tuple[int, int]) -> Iterator[Layer]:
    """Yield Flux's layers in its own names; `mlp` is what a feed-forward widens to and reads."""
    wide, read = mlp
    both = {
        f"{stream}_{name}": shape
        for stream in ("img", "txt")
        for name, shape in {
            "attn.qkv": (width, width * 3),
            "attn.proj": (width, width),
            "mlp.0": (width, wide),
            "mlp.2": (read, width),
        }.items()
    }
    yield from stack("double_blocks", double, both)
    alone = {"linear1": (width, width * 3 + wide), "linear2": (width + read, width)}
    yield from stack("single_blocks", single, alone)


def _flux_modulation() -> Iterator[Layer]:
    streams = {f"{stream}_mod.lin": (3072, 18432) for stream in ("img", "txt")}
    yield from stack("double_blocks", 19, streams)
    yield from stack("single_blocks", 38, {"modulation.lin": (3072, 9216)})


def joint(double: int, single: int, width: int, feed_forward: Shapes) -> Iterator[Layer]:
    """Yield double- and single-stream blocks in diffusers' names."""
    added = {f"attn.{name}": (width, width) for name in ("add_q_proj", "add_k_proj", "to_add_out")}
    yield from stack(
        "transformer_blocks", double, {**attention("attn", width, width), **added, **feed_forward}
    )
    alone = {f"attn.to_{name}": (width, width) for name in "qkv"}
    yield from stack("single_transformer_blocks", single, alone)


def _flux_diffusers(*, feed_forward: bool) -> Iterator[Layer]:
    wide = {"ff.net.0.proj": (3072, 12288), "ff.net.2": (12288, 3072)} if feed_forward else {}
    yield from joint(19, 38, 3072, wide)
    if feed_forward:
        yield from stack("single_transformer_blocks", 38, {"proj_mlp": (3072, 12288)})


def _flux_modulated() -> Iterator[Layer]:
    yield from bfl(19, 38, 3072, (12288, 12288))
    yield from _flux_modulation()


def _chroma() -> Iterator[Layer]:
    yield from bfl(19, 38, 3072, (12288, 12288))
    yield Layer("distilled_guidance_layer.in_proj", 64, 5120)


def _flux2(double: int, single: int, width: int) -> Iterator[Layer]:
    wide = {"ff.linear_in": (width, width * 6), "ff.linear_out": (width * 3, width)}
    yield from joint(double, 0, width, wide)
    fused = {"attn.to_qkv_mlp_proj": (width, width * 9)}
    yield from stack("single_transformer_blocks", single, fused)


def hunyuan(double: int, single: int, width: int, *extra: Layer) -> Iterator[Layer]:
    """Yield HunyuanVideo's layers in its own names."""
    yield from stack(
        "double_blocks",
        double,
        {
            "img_attn_qkv": (width, width * 3),
            "img_attn_proj": (width, width),
            "img_mlp.fc1": (width, width * 4),
            "img_mlp.fc2": (width * 4, width),
        },
    )
    yield from stack("single_blocks", single, {"linear1": (width, width * 7)})
    yield from extra


def _layers(depth: int, width: int, names: Iterable[str]) -> Callable[[], Iterator[Layer]]:
    return lambda: stack("layers", depth, square(names, width))


def wan(depth: int, width: int, names: Iterable[str]) -> Iterator[Layer]:
    """Yield Wan's layers under `blocks`."""
    return stack("blocks", depth, square(names, width))


_WAN = tuple(f"{kind}_attn.{name}" for kind in ("self", "cross") for name in "qkvo")
_WAN_DIFFUSERS = tuple(f"attn{n}.to_{name}" for n in (1, 2) for name in "qkv")
_Z = tuple(f"attention.to_{name}" for name in "qkv")
_LUMINA = ("attention.qkv", "attention.out", "feed_forward.w1")
_COSMOS = ("self_attn.q_proj", "cross_attn.q_proj", "cross_attn.output_proj", "mlp.layer1")
_LTX = {**attention("attn1", 2048, 2048), **attention("attn2", 2048, 2048)}
_LTX2 = {**attention("attn1", 4096, 4096), **attention("audio_attn1", 2048, 2048)}
_QWEN = {
    **attention("attn", 3072, 3072),
    "attn.add_k_proj": (3072, 3072),
    "img_mlp.net.0.proj": (3072, 12288),
}
_SD3 = {"x_block.attn.qkv": (2432, 7296), "context_block.attn.proj": (2432, 2432)}
_BYT5 = Layer("byt5_in.fc1", 1472, 2048)


def _krea(*, native: bool) -> Iterator[Layer]:
    names = ("attn.wq", "attn.gate") if native else ("attn.to_q", "attn.to_out.0")
    yield from stack("blocks" if native else "transformer_blocks", 28, square(names, 6144))
    refiner = "txtfusion.refiner_blocks" if native else "text_fusion.refiner_blocks"
    yield from stack(refiner, 2, square(names[:1], 2560))


LAYOUTS: Mapping[str, Callable[[], Iterable[Layer]]] = {
    "sd1": lambda: sd(768, conv=True),
    "sd1-te": lambda: clip("te", 12, 768),
    "sd2": lambda: sd(1024, conv=False),
    "sd2-te": lambda: clip("te", 23, 1024),
    "sdxl": lambda: sdxl(sgm=True),
    "sdxl-te": sdxl_te,
    "sdxl-diffusers": lambda: sdxl(sgm=False),
    "sd3": lambda: stack("joint_blocks", 38, _SD3),
    "flux": _flux_modulated,
    "flux-plain": lambda: bfl(19, 38, 3072, (12288, 12288)),
    "flux-te": lambda: (*clip("te1", 12, 768), *t5("te2")),
    "flux-diffusers": lambda: _flux_diffusers(feed_forward=True),
    "flux-attention": lambda: _flux_diffusers(feed_forward=False),
    "chroma": _chroma,
    "flux2-dev": lambda: _flux2(8, 48, 6144),
    "klein-4b": lambda: _flux2(5, 20, 3072),
    "klein-4b-attention": lambda: joint(5, 0, 3072, {}),
    "klein-4b-bfl": lambda: bfl(5, 20, 3072, (18432, 9216)),
    "klein-9b": lambda: _flux2(8, 24, 4096),
    "qwen-image": lambda: stack("transformer_blocks", 60, _QWEN),
    "z-image": _layers(30, 3840, _Z),
    "lumina-2": _layers(26, 2304, _LUMINA),
    "ideogram-4": _layers(34, 4096, ("attention.qkv", "attention.o")),
    "wan-1.3b": lambda: wan(30, 1536, _WAN),
    "wan-5b": lambda: wan(30, 3072, _WAN),
    "wan-14b": lambda: wan(40, 5120, _WAN),
    "wan-14b-diffusers": lambda: wan(40, 5120, _WAN_DIFFUSERS),
    "anima": lambda: wan(28, 2048, _COSMOS),
    "hunyuan-video": lambda: hunyuan(20, 40, 3072),
    "hunyuan-video-1.5": lambda: hunyuan(54, 0, 2048, _BYT5, Layer("vision_in.proj", 1152, 2048)),
    "hunyuan-image": lambda: hunyuan(20, 40, 3584, _BYT5),
    "ltx-video": lambda: stack("transformer_blocks", 28, _LTX),
    "ltx-2": lambda: stack("transformer_blocks", 48, _LTX2),
    "hidream": lambda: stack(
        "double_stream_blocks",
        16,
        square(("block.attn1.to_q", "block.ff_i.shared_experts.w1"), 2560),
    ),
    "krea-2": lambda: _krea(native=True),
    "krea-2-diffusers": lambda: _krea(native=False),
}


def layers_of(base: str) -> list[Layer]:
    """Return the layers of one layout."""
    return list(LAYOUTS[base]())
