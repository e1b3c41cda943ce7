"""Files whose every weight is known, and what the dense computation says of a module."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lora_server.evaluation.report import ModuleMeasure
from lora_server.evaluation.weights.evaluating import WeightsResult, evaluate
from tests.adapters import placed, safetensors_header

Array = npt.NDArray[Any]
Tensors = Mapping[str, tuple[str, Array]]

_NUMPY = {"F16": np.float16, "F32": np.float32, "F64": np.float64, "I32": np.int32}


def encoded(dtype: str, values: Array) -> bytes:
    """Return values in a dtype, bfloat16 cut off and not rounded."""
    if dtype == "BF16":
        return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    if dtype.startswith("F8"):
        return np.asarray(values, np.uint8).tobytes()  # the codes themselves
    return np.asarray(values, _NUMPY[dtype]).tobytes()


def rounded(dtype: str, values: Array) -> Array:
    """Return in float64 what a file of this dtype holds of these values."""
    raw = encoded(dtype, values)
    if dtype == "BF16":
        bits = np.frombuffer(raw, np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32).astype(np.float64).reshape(np.shape(values))
    return np.frombuffer(raw, _NUMPY[dtype]).astype(np.float64).reshape(np.shape(values))


def content(tensors: Tensors, metadata: Mapping[str, str] | None = None) -> bytes:
    """Return a safetensors file of these (dtype, values)."""
    ordered = placed((name, dtype, np.shape(v)) for name, (dtype, v) in tensors.items())
    data = b"".join(encoded(*tensors[tensor.name]) for tensor in ordered)
    return safetensors_header(ordered, metadata or {}) + data


@contextmanager
def opened(whole: bytes) -> Iterator[int]:
    """Open a file in memory."""
    fd = os.memfd_create("lora")
    try:
        os.write(fd, whole)
        yield fd
    finally:
        os.close(fd)


def evaluated(
    tensors: Tensors, metadata: Mapping[str, str] | None = None, extension: str = ".safetensors"
) -> WeightsResult:
    """Return the evaluation of a file of these tensors."""
    with opened(content(tensors, metadata)) as fd:
        return evaluate(fd, extension, lambda _share, _what: None)


def lora(
    path: str, down: Array, up: Array, alpha: float | None = None, dtype: str = "F32"
) -> Tensors:
    """Return the tensors of a LoRA in kohya's spelling."""
    tensors: dict[str, tuple[str, Array]] = {
        f"{path}.lora_down.weight": (dtype, down),
        f"{path}.lora_up.weight": (dtype, up),
    }
    if alpha is not None:
        tensors[f"{path}.alpha"] = ("F32", np.array(alpha))
    return tensors


UNET = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"


def only(tensors: Tensors, metadata: Mapping[str, str] | None = None) -> ModuleMeasure:
    """Return the measure of the one module of a file."""
    (module,) = evaluated(tensors, metadata).measure.modules
    return module


def agrees(module: ModuleMeasure, dense: Array, tolerance: float = 1e-5) -> None:
    """Hold every quantity of a module against the singular values of its whole update.

    `tolerance` is the error of a singular value as a share of the first. Energies are squares,
    so that shares of them are twice as far off; ranks by energy are whole numbers, which may
    differ only where the dense computation stands that near to the next.
    """
    largest = float(np.abs(dense).max())
    sigma = np.linalg.svd(dense / largest, compute_uv=False) * largest
    energies = (sigma / sigma[0]) ** 2
    shares = energies / energies.sum()
    present = shares[shares > 0]
    assert module.spectral == pytest.approx(sigma[0], rel=tolerance, abs=0)
    frobenius = sigma[0] * np.sqrt(energies.sum())
    assert module.frobenius == pytest.approx(frobenius, rel=tolerance, abs=0)
    listed = sigma[: len(module.spectrum)]
    np.testing.assert_allclose(
        np.array(module.spectrum) / sigma[0], listed / sigma[0], rtol=2e-6, atol=tolerance
    )
    assert module.stable_rank == pytest.approx(energies.sum(), rel=4 * tolerance)
    effective = np.exp(-np.sum(present * np.log(present)))
    assert module.effective_rank == pytest.approx(effective, rel=20 * tolerance)
    participation = energies.sum() ** 2 / np.square(energies).sum()
    assert module.participation == pytest.approx(participation, rel=10 * tolerance)
    for rank, share in ((module.k90, 0.90), (module.k99, 0.99)):
        assert rank is not None
        kept = np.concatenate(([0.0], np.cumsum(shares)))
        assert kept[rank - 1] < share + 4 * tolerance
        assert kept[rank] > share - 4 * tolerance
    assert module.max_entry_bound is not None
    assert module.max_entry_bound >= largest * (1 - tolerance)
