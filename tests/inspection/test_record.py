"""Inspections are plain data, and what is private stands in one part of it."""

import json

import pytest

from tests.adapters import adapter_tensors
from tests.inspection.support import inspected
from tests.inspection.test_metadata import KOHYA
from tests.layouts import layers_of

PRIVATE = {
    **KOHYA,
    "ss_output_name": "customer-smith",
    "ss_sd_model_name": "/home/smith/pony.safetensors",
    "ss_dataset_dirs": json.dumps({"/home/smith/faces": {"img_count": 3}}),
    "ss_base_model_version": "sdxl_base_v1-0",
}


@pytest.mark.parametrize("layout", ["sdxl", "flux-te", "klein-4b-attention", "sd3"])
def test_an_inspection_is_plain_data(layout: str) -> None:
    """What a child process sends is what the server reads."""
    sent = inspected(adapter_tensors(layout, rank=4), PRIVATE).to_json()

    assert json.loads(json.dumps(sent, allow_nan=False)) == sent


def test_the_training_part_alone_is_private() -> None:
    """Names, paths and captions that are no trigger words stand in no other part."""
    inspection = inspected(adapter_tensors("sdxl", rank=4), PRIVATE)
    training = json.dumps(inspection.to_json()["training"])
    rest = {name: part for name, part in inspection.to_json().items() if name != "training"}
    told = json.dumps([rest, inspection.short()])

    assert "smith" in training
    assert "running" in training
    assert "smith" not in told
    assert "running" not in told


def test_the_short_form_answers_an_upload() -> None:
    """Family, rank, base model, modules, triggers and warnings, and no more."""
    short = inspected(
        adapter_tensors("sdxl", rank=16), {"modelspec.trigger_phrase": "ohwx"}
    ).short()

    assert short == {
        "adapter": "LoRA",
        "rank": {"min": 16, "max": 16, "mode": 16},
        "base_model": "SDXL",
        "confidence": "certain",
        "candidates": ["SDXL"],
        "module_count": 722,
        "trigger_words": [{"word": "ohwx", "source": "modelspec.trigger_phrase"}],
        "warnings": [],
    }


def test_the_sums_are_of_all_tensors() -> None:
    """Tensors, parameters and dtypes are counted over the whole file."""
    tensors = [*adapter_tensors("sd1", rank=4), ("extra", "F32", (3, 5))]
    inspection = inspected(tensors)

    assert inspection.container == "safetensors"
    assert inspection.tensor_count == len(tensors) == 577
    assert inspection.dtypes == {"F16": 576, "F32": 1}
    assert inspection.parameter_count == 15 + sum(
        1 + 4 * (layer.inner + layer.outer) for layer in layers_of("sd1")
    )
