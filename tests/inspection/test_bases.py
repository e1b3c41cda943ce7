"""Every base model in the spellings that its trainers use."""

import pytest

from lora_server.inspection import Confidence
from lora_server.inspection.bases import spelled
from lora_server.inspection.record import Source
from tests.adapters import adapter_tensors, lora_tensors
from tests.inspection.support import inspected
from tests.layers import stack

NATIVE = ("kohya", "ai-toolkit", "bare", "lycoris", "peft")
JOINT = ("diffusers", "onetrainer", "peft-transformer")

CERTAIN = (
    ("sd1", "SD 1.x", ("kohya", "diffusers-unet")),
    ("sd1-te", "SD 1.x", ("kohya",)),
    ("sd2", "SD 2.x", ("kohya", "diffusers-unet")),
    ("sd2-te", "SD 2.x", ("kohya", "diffusers-unet")),
    ("sdxl", "SDXL", ("kohya", "ai-toolkit", "lycoris")),
    ("sdxl-diffusers", "SDXL", ("kohya", "diffusers-unet")),
    ("sd3", "SD 3", NATIVE),
    ("flux", "Flux.1", NATIVE),
    ("chroma", "Chroma", NATIVE),
    ("flux2-dev", "Flux.2 dev", JOINT),
    ("klein-4b", "Flux.2 Klein 4B", JOINT),
    ("klein-4b-bfl", "Flux.2 Klein 4B", NATIVE),
    ("klein-9b", "Flux.2 Klein 9B", JOINT),
    ("qwen-image", "Qwen-Image", JOINT),
    ("z-image", "Z-Image", ("kohya__", *NATIVE)),
    ("lumina-2", "Lumina 2", NATIVE),
    ("ideogram-4", "Ideogram 4", NATIVE),
    ("wan-1.3b", "Wan 2.1 1.3B", ("kohya__", *NATIVE)),
    ("wan-5b", "Wan 2.2 5B", NATIVE),
    ("wan-14b", "Wan 2.1/2.2 14B", NATIVE),
    ("wan-14b-diffusers", "Wan 2.1/2.2 14B", JOINT),
    ("anima", "Anima / Cosmos-Predict2", NATIVE),
    ("hunyuan-video", "HunyuanVideo", NATIVE),
    ("hunyuan-video-1.5", "HunyuanVideo 1.5", NATIVE),
    ("hunyuan-image", "HunyuanImage 2.1", NATIVE),
    ("ltx-video", "LTX-Video", JOINT),
    ("ltx-2", "LTX-2", JOINT),
    ("hidream", "HiDream-I1", JOINT),
    ("krea-2", "Krea 2", NATIVE),
    ("krea-2-diffusers", "Krea 2", JOINT),
)


@pytest.mark.parametrize(
    ("layout", "name", "style"),
    [
        pytest.param(layout, name, style, id=f"{layout}-{style}")
        for layout, name, styles in CERTAIN
        for style in styles
    ],
)
def test_a_base_is_certain_from_its_tensors(layout: str, name: str, style: str) -> None:
    """Names and shapes alone tell the base, however the trainer spells."""
    base = inspected(adapter_tensors(layout, style=style, rank=4)).base_model

    assert (name, Confidence.CERTAIN, (name,)) == (base.name, base.confidence, base.candidates)
    assert not base.contradictions
    assert all(name in piece.says for piece in base.evidence)


def test_stable_cascade_is_told_by_its_prefix() -> None:
    """Only Stable Cascade has a prior."""
    tensors = [
        ("lora_prior_unet_down_blocks_0_attention_to_q.lora_down.weight", "F16", (4, 2048)),
        ("lora_prior_unet_down_blocks_0_attention_to_q.lora_up.weight", "F16", (2048, 4)),
    ]

    assert inspected(tensors).base_model.name == "Stable Cascade"


@pytest.mark.parametrize("layout", ["flux-plain", "flux-diffusers", "flux-attention", "flux-te"])
def test_flux_is_likely_with_chroma_beside_it(layout: str) -> None:
    """Without modulation layers Flux.1 and Chroma look the same, and custom picks Flux.1."""
    base = inspected(adapter_tensors(layout)).base_model

    assert (base.name, base.confidence) == ("Flux.1", Confidence.LIKELY)
    assert base.candidates == ("Flux.1", "Chroma")


def test_text_encoders_of_sdxl_alone_are_likely_sdxl() -> None:
    """SD 3 has both of SDXL's text encoders, so they prove nothing alone."""
    base = inspected(adapter_tensors("sdxl-te")).base_model

    assert (base.name, base.confidence) == ("SDXL", Confidence.LIKELY)
    assert "SD 3" in base.candidates


def test_an_unheard_of_architecture_is_unknown() -> None:
    """A base that no rule knows is not guessed."""
    layers = [*stack("strange_blocks", 4, {"mixer.in": (512, 512)})]
    base = inspected(lora_tensors(layers)).base_model

    assert (base.name, base.confidence, base.candidates) == (None, Confidence.UNKNOWN, ())


def test_evidence_names_its_kinds() -> None:
    """A verdict from keys, shapes and counts shows all three."""
    base = inspected(adapter_tensors("sdxl")).base_model

    assert {piece.source for piece in base.evidence} == {Source.KEYS, Source.SHAPES, Source.COUNTS}


@pytest.mark.parametrize(
    ("layout", "variant"), [("sd3", "3.5 large"), ("sdxl", None), ("flux", None)]
)
def test_the_size_of_sd3_is_a_variant(layout: str, variant: str | None) -> None:
    """SD 3 comes in widths that name it further."""
    assert inspected(adapter_tensors(layout)).base_model.variant == variant


@pytest.mark.parametrize(
    ("claim", "names"),
    [
        ("sd_v1", {"SD 1.x"}),
        ("sd_1.5", {"SD 1.x"}),
        ("stable-diffusion-v1", {"SD 1.x"}),
        ("sd_v2_v", {"SD 2.x"}),
        ("stable-diffusion-v2-768-v", {"SD 2.x"}),
        ("sdxl_base_v1-0", {"SDXL"}),
        ("sdxl_1.0", {"SDXL"}),
        ("sdxl_", {"SDXL"}),
        ("animagine-xl-3.1", {"SDXL"}),
        ("stable-diffusion-3-medium", {"SD 3"}),
        ("flux1", {"Flux.1"}),
        ("flux-1-schnell", {"Flux.1"}),
        ("flux.1_kontext", {"Flux.1"}),
        ("flux_kontext", {"Flux.1"}),
        ("chroma", {"Chroma"}),
        ("Flux.2-dev", {"Flux.2 dev"}),
        ("flux2_klein_4b", {"Flux.2 Klein 4B"}),
        ("flux_2_klein_9b", {"Flux.2 Klein 9B"}),
        ("flux2", {"Flux.2 dev", "Flux.2 Klein 4B", "Flux.2 Klein 9B"}),
        ("lumina-2", {"Lumina 2"}),
        ("Qwen-Image-Edit-2511", {"Qwen-Image"}),
        ("zimage", {"Z-Image"}),
        ("Z-Image", {"Z-Image"}),
        ("wan_2.1", {"Wan 2.1 1.3B", "Wan 2.1/2.2 14B"}),
        ("wan_2.2_14b", {"Wan 2.1/2.2 14B"}),
        ("wan_2.2_5b", {"Wan 2.2 5B"}),
        ("wan", {"Wan 2.1 1.3B", "Wan 2.2 5B", "Wan 2.1/2.2 14B"}),
        ("anima-preview", {"Anima / Cosmos-Predict2"}),
        ("hunyuan_video", {"HunyuanVideo"}),
        ("framepack", {"HunyuanVideo"}),
        ("hunyuan_video_1_5", {"HunyuanVideo 1.5"}),
        ("hunyuan-image-2.1", {"HunyuanImage 2.1"}),
        ("ltx2", {"LTX-2"}),
        ("hidream_i1", {"HiDream-I1"}),
        ("ideogram4", {"Ideogram 4"}),
        ("krea2", {"Krea 2"}),
    ],
)
def test_a_claim_is_understood_in_each_spelling(claim: str, names: set[str]) -> None:
    """The table of spellings covers what the trainers write."""
    known = spelled(claim)

    assert known is not None
    assert {str(base) for base in known[1]} == names


@pytest.mark.parametrize("claim", ["", "kandinsky5", "hidream_o1_image", "wanderlust", "7"])
def test_other_claims_say_nothing(claim: str) -> None:
    """What is not in the table is no claim."""
    assert spelled(claim) is None
