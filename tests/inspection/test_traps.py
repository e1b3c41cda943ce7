"""Traps of base-model detection: files that mislead readers of one kind of evidence."""

import re

import pytest

from lora_server.inspection import Confidence
from tests.adapters import adapter_tensors
from tests.inspection.support import base_of, inspected, tensors_of
from tests.layers import Layer, stack
from tests.layouts import bfl, hunyuan, layers_of


def only(layout: str, pattern: str) -> list[Layer]:
    """Return the layers whose path matches."""
    return [layer for layer in layers_of(layout) if re.search(pattern, layer.path)]


def test_flattened_attention_of_hunyuan_video_is_not_flux() -> None:
    """Where flattened names are the same, the depth of both stacks parts the two."""
    both = r"attn|single"

    assert base_of([*filter(lambda y: re.search(both, y.path), hunyuan(20, 40, 3072))]).name == (
        "HunyuanVideo"
    )
    flux = [layer for layer in bfl(19, 38, 3072, (12288, 12288)) if re.search(both, layer.path)]
    assert base_of(flux).candidates == ("Flux.1", "Chroma")


def test_flattened_attention_of_few_blocks_stays_open() -> None:
    """A flattened double-block attention may be Flux's or HunyuanVideo's, and that is said."""
    base = base_of(only("flux", r"double_blocks\.[0-3]\.img_attn"))

    assert (base.name, base.confidence) == (None, Confidence.AMBIGUOUS)
    assert {"Flux.1", "HunyuanVideo"} <= set(base.candidates)


@pytest.mark.parametrize(
    ("layout", "pattern", "absent"),
    [
        ("flux", "img_attn", "HunyuanVideo"),
        ("hunyuan-video", "img_attn", "Flux.1"),
        ("flux", "img_mlp", "HunyuanVideo"),
        ("hunyuan-video", "img_mlp", "Flux.1"),
    ],
)
def test_dotted_names_part_flux_from_hunyuan(layout: str, pattern: str, absent: str) -> None:
    """Unflattened, the dot in img_attn.qkv is evidence; feed-forwards always are."""
    assert absent not in base_of(only(layout, pattern), "ai-toolkit").candidates


@pytest.mark.parametrize("style", ["diffusers", "kohya", "onetrainer"])
def test_attention_of_klein_4b_is_ambiguous(style: str) -> None:
    """Klein 4B is as wide as Flux.1; without feed-forward layers nothing tells."""
    base = inspected(adapter_tensors("klein-4b-attention", style=style)).base_model

    assert (base.name, base.confidence) == (None, Confidence.AMBIGUOUS)
    assert {"Flux.1", "Flux.2 Klein 4B"} <= set(base.candidates)


def test_the_feed_forward_ratio_parts_klein_4b_from_flux() -> None:
    """One feed-forward layer is enough."""
    wide = Layer("double_blocks.0.img_mlp.0", 3072, 18432)

    assert base_of([wide]).name == "Flux.2 Klein 4B"
    assert "Flux.2 Klein 4B" not in base_of([wide._replace(outer=12288)]).candidates


def test_a_deep_slider_is_sdxl() -> None:
    """A UNet-only slider without cross-attention is told by the second block of a transformer."""
    slider = only("sdxl", r"attn1")

    assert base_of(slider).name == "SDXL"
    assert base_of(only("sdxl", r"blocks\.4\.1\.transformer_blocks\.[01]\.attn1")).name == "SDXL"


def test_a_shallow_slider_is_ambiguous() -> None:
    """Confined to first blocks, an SDXL slider cannot be told from SD 1 and SD 2."""
    base = base_of(only("sdxl", r"^input_blocks\.4\.1\.transformer_blocks\.0\.attn1"))

    assert (base.name, base.confidence) == (None, Confidence.AMBIGUOUS)
    assert base.candidates == ("SD 1.x", "SD 2.x", "SDXL")


def test_self_attention_of_sd2_may_be_sd1() -> None:
    """Without cross-attention SD 1 and SD 2 look the same, but SDXL is out."""
    base = base_of(only("sd2", "attn1"))

    assert base.candidates == ("SD 1.x", "SD 2.x")
    assert base.confidence is Confidence.AMBIGUOUS


def test_te1_alone_is_not_sdxl() -> None:
    """Flux trainers write te1 too."""
    base = base_of([layer for layer in layers_of("flux-te") if layer.slot == "te1"])

    assert base.confidence is Confidence.AMBIGUOUS
    assert {"SDXL", "Flux.1"} <= set(base.candidates)


def test_te1_beside_flux_blocks_is_flux() -> None:
    """A text encoder does not outvote the denoiser."""
    layers = [*layers_of("flux"), *(y for y in layers_of("flux-te") if y.slot == "te1")]

    assert base_of(layers).name == "Flux.1"


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param({"lokr_w1": (16, 64), "lokr_w2": (40, 32)}, id="both factors full"),
        pytest.param({"lokr_w1": (16, 64), "lokr_w2_a": (40, 4), "lokr_w2_b": (4, 32)}, id="w2"),
        pytest.param(
            {"hada_w1_a": (640, 4), "hada_w1_b": (4, 2048)}
            | {"hada_w2_a": (640, 4), "hada_w2_b": (4, 2048)},
            id="LoHa",
        ),
    ],
)
def test_factors_multiply_to_the_width(parts: dict[str, tuple[int, ...]]) -> None:
    """The width of LoKr and LoHa is in no single tensor."""
    path = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"

    assert inspected(tensors_of(path, parts)).base_model.name == "SDXL"


def test_wan_and_ltx_share_attention_names() -> None:
    """Both say attn1 and attn2; Wan lives under blocks, LTX under transformer_blocks."""
    layers = {f"attn{n}.to_q": (2048, 2048) for n in (1, 2)}

    assert base_of([*stack("transformer_blocks", 4, layers)], "diffusers").name == "LTX-Video"
    assert "LTX-Video" not in base_of([*stack("blocks", 4, layers)], "diffusers").candidates


@pytest.mark.parametrize("layout", ["z-image", "lumina-2", "ideogram-4"])
def test_layers_are_not_only_z_image(layout: str) -> None:
    """Three bases say diffusion_model.layers; width and names part them."""
    base = inspected(adapter_tensors(layout, style="ai-toolkit")).base_model

    assert ("Z-Image" == base.name) is (layout == "z-image")  # noqa: SIM300


def test_an_impossible_width_is_unknown() -> None:
    """Names of a known base at a width that none has are no known base."""
    layers = [*stack("transformer_blocks", 3, {"attn.to_q": (1152, 1152)})]
    base = base_of(layers, "diffusers", "flux1")

    assert (base.name, base.confidence) == (None, Confidence.UNKNOWN)
    assert base.contradictions


@pytest.mark.parametrize(
    ("layers", "candidates"),
    [
        pytest.param(
            [Layer("input_blocks.4.1.transformer_blocks.0.attn1.to_q", 320, 320)],
            ("SD 1.x", "SD 2.x"),
            id="attention 320 wide",
        ),
        pytest.param(
            [Layer("mid_block.attentions.0.proj_in", 1280, 1280, conv=True)],
            ("SD 1.x",),
            id="projection by convolution",
        ),
        pytest.param(
            [Layer("output_blocks.0.1.transformer_blocks.0.attn1.to_q", 1280, 1280)],
            ("SDXL",),
            id="transformer in the first output block",
        ),
        pytest.param(
            [Layer("layers.3.attention.qkv", 4608, 13824)],
            ("Ideogram 4",),
            id="the one base of unknown width",
        ),
    ],
)
def test_one_layer_may_tell(layers: list[Layer], candidates: tuple[str, ...]) -> None:
    """Small differences between relatives narrow the candidates."""
    assert base_of(layers).candidates == candidates


def test_a_language_model_is_no_ideogram() -> None:
    """PEFT adapters of language models live under layers as well."""
    layers = [*stack("model.layers", 4, {"self_attn.q_proj": (4096, 4096)})]
    bare = [*stack("layers", 4, {"self_attn.q_proj": (4096, 4096), "mlp.up_proj": (4096, 11008)})]

    assert base_of(layers, "peft").confidence is Confidence.UNKNOWN
    assert base_of(bare, "peft").confidence is Confidence.UNKNOWN


@pytest.mark.parametrize(
    "prefix",
    [
        "text_encoder.",
        "text_encoders.clip_l.transformer.",
        "lycoris_",
        "base_model.model.",
        "base_model.model.text_encoder.",
    ],
)
def test_a_first_text_encoder_is_of_many_bases(prefix: str) -> None:
    """CLIP-L without a trainer's number is SD 1's, SDXL's and Flux's."""
    path = prefix + "text_model.encoder.layers.0.mlp.fc1"
    path = path.replace(".", "_") if prefix == "lycoris_" else path
    parts = {"lora_A.weight": (4, 768), "lora_B.weight": (3072, 4)}
    inspection = inspected(tensors_of(path, parts))

    assert {"SD 1.x", "SDXL", "Flux.1"} <= set(inspection.base_model.candidates)
    assert [encoder.kind for encoder in inspection.adapter.text_encoders] == ["clip"]
