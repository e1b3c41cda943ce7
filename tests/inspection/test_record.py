"""Inspections travel as JSON and withhold what is private."""

import json

import pytest

from lora_server.inspection import Inspection
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
def test_an_inspection_survives_json(layout: str) -> None:
    """What a child process sends is what the server reads."""
    inspection = inspected(adapter_tensors(layout, rank=4), PRIVATE)
    sent = json.dumps(inspection.to_json(), allow_nan=False)

    assert Inspection.from_json(json.loads(sent)) == inspection


def test_the_public_part_holds_no_private_name() -> None:
    """Names, paths and captions are in the training part alone."""
    inspection = inspected(adapter_tensors("sdxl", rank=4), PRIVATE)
    public = json.dumps(inspection.public())

    assert "smith" in json.dumps(inspection.to_json())
    assert "smith" not in public
    assert "running" not in public
    assert "training" not in inspection.public()


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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("adapter", None),
        ("tensor_count", "7"),
        ("tensor_count", True),
        ("warnings", {}),
        ("dtypes", []),
        ("base_model", {"name": "SDXL"}),
        ("container", 7),
    ],
)
def test_data_of_another_shape_is_no_inspection(name: str, value: object) -> None:
    """A catalogue written by another version is refused and not half read."""
    data = inspected(adapter_tensors("krea-2")).to_json() | {name: value}

    with pytest.raises(ValueError, match=r"belongs|plain data"):
        Inspection.from_json(data)


def test_a_missing_part_is_no_inspection() -> None:
    """Every part has to be there; unknown ones do no harm."""
    data = inspected(adapter_tensors("krea-2")).to_json()

    assert Inspection.from_json(data | {"later": 1}).to_json() == data
    with pytest.raises(ValueError, match="Inspection"):
        Inspection.from_json({name: part for name, part in data.items() if name != "adapter"})
