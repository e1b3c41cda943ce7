"""Whole files, ordinary and odd: each ends in numbers or in a refusal, and JSON can carry them."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from lora_server.errors import FileRefused
from lora_server.evaluation.weights import summing
from lora_server.evaluation.weights.adapted import contents
from lora_server.evaluation.weights.evaluating import WeightsResult, evaluate
from lora_server.evaluation.weights.sketches import nearest, sketch
from lora_server.evaluation.weights.updates import updates
from lora_server.judge.reading import whole_table
from tests.adapters import adapter_tensors, write_safetensors
from tests.evaluation.files import (
    UNET,
    Array,
    Tensors,
    content,
    encoded,
    evaluated,
    lora,
    only,
    opened,
)

Progress = Callable[[float, str], None]


def quiet(_share: float, _what: str) -> None:
    """Hear of progress and say nothing."""


def of_base(folder: Path, base: str, style: str = "kohya") -> WeightsResult:
    """Return the evaluation of a realistic LoRA of rank 4."""
    tensors = adapter_tensors(base, style=style, rank=4, dtype="BF16")
    path = write_safetensors(folder / "lora.safetensors", tensors)
    fd = os.open(path, os.O_RDONLY)
    try:
        return evaluate(fd, ".safetensors", quiet)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("base", "style", "groups", "columns"),
    [
        ("sdxl", "kohya", {"IN", "MID", "OUT"}, ("IN 4", "OUT 5", 11)),
        ("sdxl-diffusers", "diffusers-unet", {"IN", "MID", "OUT"}, ("IN 4", "OUT 5", 11)),
        ("sdxl-te", "kohya", {"te1", "te2"}, ("te1 0", "te2 31", 44)),
        ("flux-plain", "kohya", {"double", "single"}, ("double 0", "single 37", 57)),
        ("flux-attention", "diffusers", {"double", "single"}, ("double 0", "single 37", 57)),
        ("qwen-image", "ai-toolkit", {"blocks"}, ("blocks 0", "blocks 59", 60)),
    ],
)
def test_blocks_have_one_name_in_every_spelling(
    tmp_path: Path, base: str, style: str, groups: set[str], columns: tuple[str, str, int]
) -> None:
    """Groups, and the columns of the heat map from the first to the last block."""
    measure = of_base(tmp_path, base, style).measure

    assert {group.name for group in measure.groups} == groups
    found = measure.heat_map.columns
    assert (found[0], found[-1], len(found)) == columns
    cells = [cell for row in measure.heat_map.energy for cell in row if cell is not None]
    assert sum(cells) == pytest.approx(1, abs=1e-3)
    for kind in (measure.parts, measure.groups, measure.targets):
        assert sum(group.module_count for group in kind) == measure.module_count
        assert sum(group.energy for group in kind) == pytest.approx(1, abs=1e-5)


def test_progress_rises_from_nothing_to_all() -> None:
    """The share done never falls."""
    told: list[float] = []
    with opened(content(lora(UNET, np.ones((1, 4)), np.ones((4, 1))))) as fd:
        evaluate(fd, ".safetensors", lambda share, _what: told.append(share))

    assert (told[0], told[-1]) == (0.0, 1.0)
    assert told == sorted(told)


@pytest.mark.parametrize(
    "values",
    [np.zeros(1), np.full(1, np.nan), np.full(1, np.inf), np.full(1, 3e38), np.full(1, 1e-45)],
    ids=str,
)
@pytest.mark.parametrize("part", ["diff", "diff_b", "w_norm", "lokr_w1"])
def test_one_module_of_four_bytes(part: str, values: Array) -> None:
    """The smallest files end in a report that JSON can carry."""
    shape = (1,) if part in {"diff_b", "w_norm"} else (1, 1)
    tensors: dict[str, tuple[str, Array]] = {f"{UNET}.{part}": ("F32", values.reshape(shape))}
    if part == "lokr_w1":
        tensors[f"{UNET}.lokr_w2"] = ("F32", values.reshape(shape))

    result = evaluated(tensors)

    json.dumps(asdict(result.measure), allow_nan=False)
    json.dumps([asdict(finding) for finding in result.findings], allow_nan=False)
    assert all(np.isfinite(value) for value in result.features.values())


def test_halves_without_partner_refuse_the_file() -> None:
    """So a file that was found in the tree, and that the door never saw, ends clearly."""
    tensors: Tensors = {f"{UNET}.lora_up.weight": ("F32", np.ones((4, 1)))}

    with pytest.raises(FileRefused, match="lack a half"):
        evaluated(tensors)


def test_halves_of_different_ranks_refuse_the_file() -> None:
    """Likewise."""
    with pytest.raises(FileRefused, match="share no rank"):
        evaluated(lora(UNET, np.ones((2, 4)), np.ones((4, 3))))


def test_a_file_that_shrinks_while_it_is_read_is_refused() -> None:
    """It is read and not mapped, so that no signal ends the process."""
    down, up = np.ones((4, 4096)), np.ones((4096, 4))
    tensors = {**lora(UNET, down, up), **lora(UNET + "_2", down, up)}
    with opened(content(tensors)) as fd:

        def shrink(share: float, _what: str) -> None:
            if share >= 0.05:
                os.ftruncate(fd, 4096)

        with pytest.raises(FileRefused, match="shorter"):
            evaluate(fd, ".safetensors", shrink)


def test_ranks_without_end_are_not_measured() -> None:
    """Above the largest rank a module is counted and says why it has no numbers."""
    module = only(lora(UNET, np.ones((1025, 2)), np.ones((2, 1025)), dtype="F16"))

    assert "rank 1025" in module.partial
    assert module.frobenius is None


def test_a_tensor_above_a_piece_is_measured_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers are those of one piece, for either half and for whole matrices."""
    rng = np.random.default_rng(0)
    down, up = rng.standard_normal((6, 90)), rng.standard_normal((70, 6))
    whole: Tensors = {f"{UNET}_0.diff": ("F32", rng.standard_normal((70, 30)))}
    tensors = {**lora(UNET, down, up), **whole}
    expected = evaluated(tensors)

    monkeypatch.setattr("lora_server.evaluation.weights.reading.PIECE_ELEMENTS", 100)
    found = evaluated(tensors)

    for one, other in zip(found.measure.modules, expected.measure.modules, strict=True):
        np.testing.assert_allclose(one.spectrum, other.spectrum, rtol=1e-4)
        assert one.max_entry_bound == pytest.approx(other.max_entry_bound)


def test_reports_of_many_modules_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The strongest modules are kept and the rest is counted; groups still hold all."""
    monkeypatch.setattr(summing, "MAX_MODULES", 5)
    monkeypatch.setattr(summing, "MAX_COLUMNS", 7)
    tensors: dict[str, tuple[str, Array]] = {}
    for number in range(40):
        path = f"lora_unet_double_blocks_{number * 1000}_img_attn_qkv"
        tensors |= lora(path, np.full((1, 3), number + 1.0), np.ones((3, 1)))

    measure = evaluated(tensors).measure

    assert (len(measure.modules), measure.modules_cut, measure.module_count) == (5, 35, 40)
    assert [m.depth for m in measure.modules] == [35000, 36000, 37000, 38000, 39000]
    assert len(measure.heat_map.columns) == 7
    assert sum(cell or 0 for cell in measure.heat_map.energy[0]) == pytest.approx(1, abs=1e-4)


def test_the_sketch_is_that_of_the_updates() -> None:
    """Made in the same pass as the numbers, of whatever family."""
    rng = np.random.default_rng(0)
    tensors: dict[str, tuple[str, Array]] = dict(
        lora(UNET, rng.standard_normal((4, 40)), rng.standard_normal((30, 4)), -8.0)
    )
    tensors |= lora(f"{UNET}_0", 1e-20 * rng.standard_normal((4, 40)), rng.standard_normal((30, 4)))
    tensors[f"{UNET}_1.lokr_w1"] = ("F32", rng.standard_normal((3, 2)))
    tensors[f"{UNET}_1.lokr_w2"] = ("F32", rng.standard_normal((10, 20)))
    whole = content(tensors)
    with opened(whole) as fd:
        expected = sketch(updates(fd, whole_table(fd, ".safetensors")))

    (estimate,) = nearest(evaluated(tensors).sketch, expected, 1)

    assert estimate.cosine == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("family", ["lora", "tucker", "loha", "lokr", "wide lokr", "diff"])
def test_updates_multiply_out_to_what_was_measured(family: str) -> None:
    """The factors that others compare are those whose norm the report gives, scale included."""
    rng = np.random.default_rng(0)
    shapes: dict[str, dict[str, tuple[int, ...]]] = {
        "lora": {"lora_down.weight": (4, 40), "lora_up.weight": (30, 4)},
        "tucker": {
            "lora_down.weight": (4, 10, 1, 1),
            "lora_mid.weight": (4, 4, 2, 2),
            "lora_up.weight": (30, 4, 1, 1),
        },
        "loha": {f"hada_w{n}_{s}": (30, 4) if s == "a" else (4, 40) for n in "12" for s in "ab"},
        "lokr": {"lokr_w1": (3, 4), "lokr_w2_a": (10, 2), "lokr_w2_b": (2, 10)},
        "wide lokr": {"lokr_w1": (3, 4), "lokr_w2": (10, 12)},
        "diff": {"diff": (30, 40)},
    }
    tensors: dict[str, tuple[str, Array]] = {
        f"{UNET}.{part}": ("F32", rng.standard_normal(shape))
        for part, shape in shapes[family].items()
    }
    tensors[f"{UNET}.alpha"] = ("F32", np.array(3.0))
    with opened(content(tensors)) as fd:
        (update,) = updates(fd, whole_table(fd, ".safetensors"))

    module = only(tensors)

    norm = np.linalg.norm(update.up.astype(np.float64) @ update.down.astype(np.float64))
    assert module.frobenius == pytest.approx(norm, rel=1e-5)
    assert (update.up.shape[0], update.down.shape[1]) == module.shape


def test_alphas_are_the_only_bytes_that_gathering_reads() -> None:
    """A header is enough to know the modules."""
    whole = content(lora(UNET, np.ones((4, 40)), np.ones((30, 4)), 2.0))
    asked: list[int] = []

    def read(offset: int, nbytes: int) -> bytes:
        asked.append(nbytes)
        return whole[offset : offset + nbytes]

    with opened(whole) as fd:
        found = contents(whole_table(fd, ".safetensors"), read)

    assert asked == [len(encoded("F32", np.array(2.0)))]
    assert found.modules[0].scale == 0.5
