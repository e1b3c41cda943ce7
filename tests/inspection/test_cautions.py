"""Each warning appears for its reason and for no other."""

import json
import math
from collections.abc import Mapping

import pytest

from lora_server.formats.tensors import Container
from lora_server.inspection import inspect
from lora_server.inspection.layout import MAX_PATTERNS
from tests.adapters import Named, adapter_tensors, held
from tests.inspection.support import codes, inspected, tensors_of

LORA: Mapping[str, tuple[int, ...]] = {"lora_down.weight": (4, 32), "lora_up.weight": (64, 4)}
SAID = {"ss_network_dim": "4"}
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def lora(**more: tuple[int, ...]) -> list[Named]:
    """Return a module with further parts."""
    return tensors_of("lora_unet_x", {**LORA, **more})


def test_an_ordinary_file_has_no_warning() -> None:
    """A sound file with metadata passes in silence."""
    assert not codes(inspected(adapter_tensors("sdxl", rank=4), SAID))


@pytest.mark.parametrize(
    ("tensors", "code"),
    [
        pytest.param(lora(dora_scale=(64, 1)), "dora", id="dora"),
        pytest.param(
            [*lora(), *tensors_of("lora_unet_y", {"oft_blocks": (8, 8, 8)})],
            "mixed_families",
            id="mixed",
        ),
        pytest.param(tensors_of("x", {"vera_lambda_b": (64,)}), "unknown_family", id="vera"),
        pytest.param([*lora(), ("lora_unet_y.alpha", "F32", ())], "stray_tensors", id="alpha"),
        pytest.param([*lora(), ("extra", "F32", (4, 4))], "plain_tensors", id="plain"),
        pytest.param([*lora(alpha=(2,))], "alpha_unreadable", id="two alphas"),
        pytest.param(
            [
                *tensors_of("x", {"lora_A.a.weight": (4, 8), "lora_B.a.weight": (8, 4)}),
                *tensors_of("x", {"lora_A.b.weight": (4, 8), "lora_B.b.weight": (8, 4)}),
            ],
            "several_adapters",
            id="two adapters",
        ),
    ],
)
def test_tensors_that_deserve_a_warning(tensors: list[Named], code: str) -> None:
    """What loads wrongly somewhere is said, once."""
    assert codes(inspected(tensors, SAID)) == [code]


@pytest.mark.parametrize(
    ("alpha", "code"),
    [(0.0, "alpha_zero"), (math.nan, "alpha_not_finite"), (-math.inf, "alpha_not_finite")],
)
def test_alphas_that_deserve_a_warning(alpha: float, code: str) -> None:
    """An alpha that silences or destroys the output is said."""
    assert codes(inspected(lora(alpha=()), SAID, alpha=alpha)) == [code]


def test_a_short_read_is_no_alpha() -> None:
    """A reader that gives fewer bytes makes the alpha unreadable, not wrong."""
    table, _ = held(lora(alpha=()), SAID)

    assert "alpha_unreadable" in codes(inspect(table, read=lambda _offset, _nbytes: b""))


def test_only_alphas_are_read() -> None:
    """Inspection asks for a few bytes of each alpha and for nothing else of the file."""
    table, read = held(adapter_tensors("sdxl"))
    asked = []

    def watched(offset: int, nbytes: int) -> bytes:
        asked.append(nbytes)
        return read(offset, nbytes)

    inspect(table, read=watched)

    assert asked == [2] * 722


@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        ({}, "no_metadata"),
        ({"ss_network_dim": "32"}, "rank_mismatch"),
        ({"lora_adapter_metadata": json.dumps({"unet.r": 32})}, "rank_mismatch"),
        ({"lora_adapter_metadata": '{"r": 4, "lora_alpha": 8}'}, "scale_in_metadata"),
        ({"sshs_model_hash": EMPTY}, "hash_implausible"),
    ],
)
def test_claims_that_deserve_a_warning(metadata: dict[str, str], code: str) -> None:
    """Claims are set beside the measurements."""
    assert codes(inspected(lora(), metadata)) == [code]


@pytest.mark.parametrize(
    "metadata",
    [
        {"ss_network_dim": "None"},
        {"ss_network_dim": "Dynamic"},
        {"ss_network_dim": "9" * 5000},
        {"lora_adapter_metadata": '{"r": 4, "lora_alpha": 4}'},
        {"lora_adapter_metadata": '{"r": 0, "lora_alpha": 4}'},
        {"lora_adapter_metadata": '{"r": "4"}'},
        {"lora_adapter_metadata": '{"r": NaN, "lora_alpha": Infinity}'},
    ],
)
def test_claims_that_say_nothing_are_no_mismatch(metadata: dict[str, str]) -> None:
    """None, Dynamic and nonsense are no ranks to disagree with."""
    assert not codes(inspected(lora(), metadata))


@pytest.mark.parametrize("container", [Container.TORCH_ZIP, Container.TORCH_LEGACY])
def test_a_pickle_is_noted(container: Container) -> None:
    """Pickles run code in programs that load them."""
    assert codes(inspected(lora(), SAID, container=container)) == ["pickle_container"]


def test_a_layout_without_end_is_cut() -> None:
    """A file of ever new layer names costs no more than a real one, and the cut is said."""
    tensors = [
        tensor
        for number in range(MAX_PATTERNS + 5)
        for tensor in tensors_of(f"lora_unet_x{number}y", LORA)
    ]
    inspection = inspected(tensors, SAID)

    assert codes(inspection) == ["layout_cut"]
    assert inspection.adapter.module_count == MAX_PATTERNS + 5
