"""Traps of base-model detection: files that mislead readers of one kind of evidence."""

import re

import pytest

from lora_server.inspection import Confidence
from lora_server.inspection.record import BaseModel, Source
from tests.adapters import adapter_tensors, lora_tensors
from tests.inspection.support import codes, inspected, tensors_of
from tests.layers import Layer, stack
from tests.layouts import bfl, hunyuan, layers_of

CHROMA_CLAIM = {"ss_base_model_version": "chroma"}


def base_of(layers: list[Layer], style: str = "kohya", claim: str = "") -> BaseModel:
    """Return the verdict on a LoRA of these layers."""
    metadata = {"ss_base_model_version": claim} if claim else None
    return inspected(lora_tensors(layers, style=style), metadata).base_model


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


def test_a_claim_settles_klein_4b() -> None:
    """Where the tensors leave several, a claim among them makes one likely."""
    base = base_of(layers_of("klein-4b-attention"), "diffusers", "flux2_klein_4b")

    assert (base.name, base.confidence) == ("Flux.2 Klein 4B", Confidence.LIKELY)


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


def test_a_claim_against_shapes_is_a_contradiction() -> None:
    """A claim that the tensors exclude is reported, and makes the measured base less certain."""
    inspection = inspected(adapter_tensors("sdxl"), {"ss_base_model_version": "sd_v1"})
    base = inspection.base_model

    assert (base.name, base.confidence) == ("SDXL", Confidence.LIKELY)
    assert base.candidates == ("SD 1.x", "SDXL")
    assert any("SD 1.x" in sentence for sentence in base.contradictions)
    assert "base_model_contradiction" in codes(inspection)


def test_a_claim_outside_several_candidates_picks_none() -> None:
    """Where tensors leave several and the claim is none of them, nothing is chosen."""
    base = base_of(layers_of("flux-plain"), claim="sdxl_base_v1-0")

    assert (base.name, base.confidence) == (None, Confidence.AMBIGUOUS)
    assert base.candidates == ("SDXL", "Flux.1", "Chroma")


def test_two_claims_at_odds_are_a_contradiction() -> None:
    """ModelSpec and kohya may disagree; the tensors decide and the quarrel is reported."""
    metadata = {
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "ss_base_model_version": "sdxl_base_v1-0",
    }
    base = inspected(adapter_tensors("sdxl"), metadata).base_model

    assert base.name == "SDXL"
    assert base.contradictions


def test_an_impossible_width_is_unknown() -> None:
    """Names of a known base at a width that none has are no known base."""
    layers = [*stack("transformer_blocks", 3, {"attn.to_q": (1152, 1152)})]
    base = base_of(layers, "diffusers", "flux1")

    assert (base.name, base.confidence) == (None, Confidence.UNKNOWN)
    assert base.contradictions


def test_chroma_without_its_layers_needs_the_claim() -> None:
    """Often only the claim separates Chroma from Flux.1."""
    base = inspected(adapter_tensors("flux-plain"), CHROMA_CLAIM).base_model

    assert (base.name, base.confidence) == ("Chroma", Confidence.LIKELY)
    assert base.evidence[-1].source is Source.CLAIM


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, "SDXL"),
        ({"ss_v2": "True"}, "SD 2.x"),
        ({"ss_v2": "False"}, None),
        ({"lora_adapter_metadata": '{"base_model_name_or_path": "x/FLUX.1-dev"}'}, "Flux.1"),
        (
            {"lora_adapter_metadata": '{"unet.base_model_name_or_path": "C:\\\\a\\\\sdxl.x"}'},
            "SDXL",
        ),
    ],
)
def test_without_known_names_only_a_claim_speaks(
    metadata: dict[str, str], name: str | None
) -> None:
    """An architecture that is not recognised is likely what it claims to be, never certain."""
    tensors = tensors_of("lora_unet_odd", {"lora_down.weight": (4, 8), "lora_up.weight": (8, 4)})
    base = inspected(tensors, metadata).base_model

    assert base.name == name
    assert base.confidence is (Confidence.LIKELY if name else Confidence.UNKNOWN)


@pytest.mark.parametrize(
    ("key", "value", "variant"),
    [
        ("ss_sd_model_name", "ponyDiffusionV6XL.safetensors", "Pony"),
        ("ss_base_model_version", "illustrious", "Illustrious"),
        ("ss_sd_model_name", "sd_xl_base_1.0.safetensors", None),
    ],
)
def test_fine_tunes_of_sdxl_are_claims(key: str, value: str, variant: str | None) -> None:
    """No tensor tells Pony from SDXL, so a name in the metadata is a variant and no base."""
    base = inspected(adapter_tensors("sdxl"), {key: value}).base_model

    assert ("SDXL", variant) == (base.name, base.variant)


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
