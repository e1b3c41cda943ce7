"""Claims of the metadata beside what the tensors say: picked, outvoted, or at odds."""

import pytest

from lora_server.inspection import Confidence
from lora_server.inspection.record import Source
from tests.adapters import adapter_tensors
from tests.inspection.support import base_of, codes, inspected, tensors_of
from tests.layouts import layers_of

CHROMA_CLAIM = {"ss_base_model_version": "chroma"}


def test_a_claim_settles_klein_4b() -> None:
    """Where the tensors leave several, a claim among them makes one likely."""
    base = base_of(layers_of("klein-4b-attention"), "diffusers", "flux2_klein_4b")

    assert (base.name, base.confidence) == ("Flux.2 Klein 4B", Confidence.LIKELY)


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
