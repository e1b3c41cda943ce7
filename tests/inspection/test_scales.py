"""Ranks, alphas and scales: what is stored, what is missing, what is ignored."""

import math

import pytest

from lora_server.inspection.record import Spread
from tests.adapters import Named
from tests.inspection.support import Shape, inspected, tensors_of


def module(path: str, rank: int, *, alpha: bool = True) -> list[Named]:
    """Return one kohya module of this rank."""
    parts: dict[str, Shape] = {"lora_down.weight": (rank, 32), "lora_up.weight": (64, rank)}
    return tensors_of(path, {**parts, "alpha": ()} if alpha else parts)


def test_ranks_and_scales_vary_by_module() -> None:
    """Minimum, maximum and mode describe a resized LoRA; the scale is alpha over rank."""
    tensors = [*module("lora_unet_a", 4), *module("lora_unet_b", 16), *module("lora_unet_c", 16)]
    adapter = inspected(tensors, alpha=8).adapter

    assert adapter.rank == Spread(4, 16, 16)
    assert adapter.alpha == Spread(8, 8, 8)
    assert adapter.scale == Spread(0.5, 2.0, 0.5)
    assert adapter.alpha_count == 3


def test_a_missing_alpha_is_scale_1() -> None:
    """No alpha means alpha = rank, not alpha = 1."""
    adapter = inspected(module("lora_unet_a", 4, alpha=False)).adapter

    assert adapter.scale == Spread(1.0, 1.0, 1.0)
    assert (adapter.alpha, adapter.alpha_count) == (None, 0)


def test_alpha_of_oft_is_a_constraint() -> None:
    """In OFT alpha bounds the rotation and scales nothing."""
    adapter = inspected(tensors_of("lora_unet_a", {"oft_blocks": (8, 8, 8), "alpha": ()})).adapter

    assert adapter.constraint == Spread(8, 8, 8)
    assert (adapter.alpha, adapter.scale) == (None, None)


def test_alpha_of_a_whole_lokr_is_ignored() -> None:
    """With both factors full there is no rank to scale by."""
    parts: dict[str, Shape] = {"lokr_w1": (4, 4), "lokr_w2": (16, 8), "alpha": ()}

    assert inspected(tensors_of("lora_unet_a", parts)).adapter.scale is None


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32", "F64", "I64"])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_alpha_is_read_in_every_dtype(dtype: str, shape: Shape) -> None:
    """Trainers store alpha as a scalar or one element, in whatever dtype they train."""
    tensors = [*module("lora_unet_a", 4, alpha=False), ("lora_unet_a.alpha", dtype, shape)]

    assert inspected(tensors, alpha=12).adapter.alpha == Spread(12, 12, 12)


@pytest.mark.parametrize("alpha", [math.nan, math.inf])
def test_an_alpha_that_is_no_number_stays_out(alpha: float) -> None:
    """NaN has no place in JSON and none in a summary."""
    adapter = inspected(module("lora_unet_a", 4), alpha=alpha).adapter

    assert (adapter.alpha, adapter.scale) == (None, None)
    assert adapter.alpha_count == 1
