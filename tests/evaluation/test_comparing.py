"""Whether two files are compared as their dense updates would be, and what breaks on the way."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_server.errors import FileRefused
from lora_server.evaluation.comparison import Comparison, Skipped
from lora_server.evaluation.weights import comparing, opening
from lora_server.evaluation.weights.comparing import MOST_OTHERS, compare, sample
from lora_server.evaluation.weights.opening import Compared
from lora_server.evaluation.weights.sketches import sketch
from lora_server.evaluation.weights.update import Update
from lora_server.evaluation.weights.updates import update_of
from tests.evaluation.updates import (
    dense_cosine,
    dense_norm,
    dense_overlap,
    lora,
    mixed,
    normal,
    opened_file,
    saved,
)

Lay = Callable[..., Compared]
FEW = ((40, 24), (24, 40), (32, 32)) * 2  # no more modules than are sampled


def quiet(share: float, stage: str) -> None:
    """Hear progress and say nothing."""
    assert 0 <= share <= 1
    assert stage


@pytest.fixture
def lay(tmp_path: Path) -> Iterator[Lay]:
    """Return what saves a LoRA and opens it."""
    with ExitStack() as stack:

        def lay_down(updates: Sequence[Update], **options: int) -> Compared:
            path = tmp_path / f"{len(list(tmp_path.iterdir()))}.safetensors"
            return opened_file(saved(path, updates, **options), updates, stack)

        yield lay_down


def norms(updates: Sequence[Update]) -> dict[str, float]:
    """Return the norm of each module."""
    return {update.path: dense_norm([update]) for update in updates}


def compared(lay: Lay, first: Sequence[Update], *others: Sequence[Update]) -> list[Comparison]:
    """Return the comparisons of a LoRA with others, none of which may be skipped."""
    found = compare(lay(first), norms(first), [lay(other) for other in others], quiet)
    comparisons = [each for each in found if isinstance(each, Comparison)]
    assert len(comparisons) == len(others)
    return comparisons


@pytest.mark.parametrize("rank", [1, 3, 9])
@pytest.mark.parametrize("cosine", [0.4, 0.9, 0.9995])
def test_the_cosine_is_exact(lay: Lay, rank: int, cosine: float) -> None:
    """A near file's cosine is that of the dense updates, whatever the two ranks are."""
    random = np.random.default_rng(rank)
    own = lora(random)
    other = mixed(random, own, cosine, rank=rank)
    (found,) = compared(lay, own, other)

    assert found.error == 0
    assert found.cosine == pytest.approx(dense_cosine(own, other), abs=3e-6)
    assert found.strength == pytest.approx(dense_norm(other) / dense_norm(own), rel=1e-5)
    assert found.shared_modules == len(own)


@pytest.mark.parametrize("cosine", [0.05, 0.5, 0.99])
def test_overlaps_are_those_of_singular_vectors(lay: Lay, cosine: float) -> None:
    """Both overlaps agree with dense SVDs in float64."""
    random = np.random.default_rng(1)
    own = lora(random, shapes=FEW)
    other = mixed(random, own, cosine, rank=7)
    (found,) = compared(lay, own, other)

    assert found.overlap == pytest.approx(dense_overlap(own, other, 0), abs=1e-4)
    assert found.input_overlap == pytest.approx(dense_overlap(own, other, 2), abs=1e-4)


def test_random_subspaces_overlap_as_expected(lay: Lay) -> None:
    """Between strangers the overlap is what chance is said to give."""
    random = np.random.default_rng(2)
    own, other = (lora(random, shapes=[(96, 96)] * 8) for _ in range(2))
    (found,) = compared(lay, own, other)

    assert found.overlap == pytest.approx(found.expected_overlap, rel=0.5)
    assert found.input_overlap == pytest.approx(found.expected_input_overlap, rel=0.5)


def test_what_is_written_and_what_is_read_are_told_apart(lay: Lay) -> None:
    """LoRAs that write to the same directions for other inputs fight, at a cosine of nothing."""
    random = np.random.default_rng(3)
    own = lora(random, shapes=[(64, 64)] * 8)
    other = [Update(u.path, u.up, normal(random, *u.down.shape)) for u in own]
    (found,) = compared(lay, own, other)

    assert found.overlap > 0.8
    assert found.input_overlap < 0.3
    assert abs(found.cosine) < 0.3


def test_gauge_does_not_matter(lay: Lay) -> None:
    """Badly balanced factors of the same update are the same update."""
    random = np.random.default_rng(4)
    own = lora(random, shapes=FEW)
    scales = np.array([1e-4, 1, 10, 1e3], np.float32)
    turned = [Update(u.path, u.up * scales, u.down / scales[:, None]) for u in own]
    (found,) = compared(lay, own, turned)

    assert found.cosine == pytest.approx(1, abs=3e-6)
    assert found.overlap == pytest.approx(1, abs=1e-3)


def test_absent_modules_count_as_nothing(lay: Lay) -> None:
    """Half of the modules make half of the overlap and the root of it in cosine."""
    own = lora(np.random.default_rng(5), shapes=[(32, 32)] * 8)
    (found,) = compared(lay, own, own[:4])
    share = (dense_norm(own[:4]) / dense_norm(own)) ** 2

    assert found.shared_modules == 4
    assert found.cosine == pytest.approx(share**0.5, abs=3e-6)
    assert found.overlap == pytest.approx(share, abs=1e-4)


def test_convolutions_are_compared(lay: Lay) -> None:
    """Kernels are flattened, and two files of them have the cosine of the flat updates."""
    random = np.random.default_rng(6)
    own = lora(random, shapes=[(16, 72)] * 6)
    other = mixed(random, own, 0.7)
    found = compare(lay(own, kernel=3), norms(own), [lay(other, kernel=3)], quiet)

    assert isinstance(found[0], Comparison)
    assert found[0].cosine == pytest.approx(dense_cosine(own, other), abs=3e-6)


@pytest.mark.parametrize("turned", [1, -1])
def test_fused_and_separate_layers_are_compared(lay: Lay, turned: int) -> None:
    """A fused layer meets the three that another trainer makes of it, in either direction."""
    random = np.random.default_rng(7)
    fused = [
        Update(
            f"lora_unet_double_blocks_{at}_img_attn_qkv",
            normal(random, 96, 4),
            normal(random, 4, 32),
        )
        for at in range(3)
    ]
    separate = [
        Update(
            f"transformer.transformer_blocks.{at}.attn.to_{name}",
            np.ascontiguousarray(update.up[32 * part : 32 * part + 32]),
            update.down,
        )
        for at, update in enumerate(fused)
        for part, name in enumerate("qkv")
    ]
    pair = (fused, separate)[::turned]
    (found,) = compared(lay, *pair)

    assert found.cosine == pytest.approx(1, abs=3e-6)
    assert found.shared_modules == len(pair[0])


def test_one_name_for_two_widths_is_no_match(lay: Lay) -> None:
    """Modules of the same name and another shape, as of another base, have nothing in common."""
    random = np.random.default_rng(8)
    own, other = lora(random, shapes=[(16, 8)] * 6), lora(random, shapes=[(24, 8)] * 6)
    (found,) = compared(lay, own, other)

    assert found.overlap == 0
    assert abs(found.cosine) < 0.3


def test_what_cannot_fit_is_not_built(lay: Lay, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stored file of huge modules under common names slows nobody's comparison."""
    random = np.random.default_rng(8)
    own, other = lora(random, shapes=[(16, 8)] * 6), lora(random, shapes=[(24, 8)] * 6)
    files = lay(own), lay(other)
    built = []

    def noting(reader: Any, module: Any) -> Update | None:
        built.append(module.geometry.outer)
        return update_of(reader, module)

    monkeypatch.setattr(opening, "update_of", noting)
    compare(files[0], norms(own), [files[1]], quiet)

    assert set(built) == {16}


def test_many_near_files_are_estimated_past_the_bound(
    lay: Lay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the work would be too much the nearest is exact, and the others say their error."""
    monkeypatch.setattr(comparing, "WORK", 1.0)
    random = np.random.default_rng(9)
    own = lora(random)
    others = [mixed(random, own, cosine) for cosine in (0.8, 0.95, 0.6)]
    found = compared(lay, own, *others)

    assert [each.error == 0 for each in found] == [False, True, False]
    for each, other in zip(found, others, strict=True):
        assert abs(each.cosine - dense_cosine(own, other)) <= 4 * each.error + 3e-6


def test_a_stranger_is_not_compared_number_by_number(lay: Lay) -> None:
    """Who cannot be similar keeps the estimate of the sketches."""
    random = np.random.default_rng(10)
    shapes = [(24, 24)] * 250
    (found,) = compared(lay, lora(random, shapes=shapes), lora(random, shapes=shapes))

    assert found.error > 0
    assert abs(found.cosine) < 4 * found.error


def truncated(file: Compared) -> Compared:
    """Cut the file off behind its header."""
    os.truncate(f"/proc/self/fd/{file.fd}", os.fstat(file.fd).st_size // 2)
    return file


def emptied(file: Compared) -> Compared:
    """Leave nothing of the file."""
    os.truncate(f"/proc/self/fd/{file.fd}", 0)
    return file


def closed(file: Compared) -> Compared:
    """Take the descriptor away."""
    return Compared(987_654, file.extension, file.sketch)


def misnamed(file: Compared) -> Compared:
    """Say that it is a pickle."""
    return Compared(file.fd, ".ckpt", file.sketch)


def zeroed(file: Compared) -> Compared:
    """Have the sketch of an update of zero beside it."""
    return Compared(file.fd, file.extension, sketch([]))


@pytest.mark.parametrize("breaking", [truncated, emptied, closed, misnamed, zeroed])
def test_who_cannot_be_read_is_skipped(lay: Lay, breaking: Callable[[Compared], Compared]) -> None:
    """A broken file is left out with its reason, and the others are compared all the same."""
    random = np.random.default_rng(11)
    own = lora(random)
    others = [lay(own), breaking(lay(own)), lay(mixed(random, own, 0.9))]
    first, second, third = compare(lay(own), norms(own), others, quiet)

    assert isinstance(first, Comparison)
    assert isinstance(second, Skipped)
    assert second.reason
    assert isinstance(third, Comparison)
    assert third.cosine > 0.8


def test_a_file_that_shrinks_meanwhile_is_skipped(lay: Lay) -> None:
    """Whose end vanishes between header and weights is left out, too."""
    own = lora(np.random.default_rng(12))
    other = lay(own)

    def cut(share: float, stage: str) -> None:
        if stage == "comparing weights" and share > 0.3:
            truncated(other)

    (found,) = compare(lay(own), norms(own), [other], cut)

    assert isinstance(found, Skipped)
    assert "shorter" in found.reason


def test_ones_own_file_must_be_there(lay: Lay) -> None:
    """Without the file itself there is nothing to tell."""
    own = lora(np.random.default_rng(13))

    with pytest.raises(FileRefused):
        compare(truncated(lay(own)), norms(own), [lay(own)], quiet)


def test_numbers_that_are_none_are_left_out(lay: Lay) -> None:
    """A module of the other file that holds NaN counts as absent."""
    own = lora(np.random.default_rng(14), shapes=[(32, 32)] * 8)
    bad = [Update(u.path, u.up.copy(), u.down) for u in own]
    bad[2].up[0, 0] = np.nan
    good = [*own[:2], *own[3:]]
    whole, broken = lay(good), lay(bad)
    (found,) = compare(
        lay(own), norms(own), [Compared(broken.fd, broken.extension, whole.sketch)], quiet
    )

    assert isinstance(found, Comparison)
    assert found.cosine == pytest.approx(dense_cosine(own, good), abs=3e-6)


@pytest.mark.parametrize("old", [b"", b"LSKE\x63\x00" + bytes(40)])
def test_a_missing_sketch_is_made(lay: Lay, old: bytes) -> None:
    """Without a stored sketch, or with one of another version, the file is read for one."""
    own = lora(np.random.default_rng(15))
    other = lay(own)
    (found,) = compare(lay(own), norms(own), [Compared(other.fd, ".safetensors", old)], quiet)

    assert isinstance(found, Comparison)
    assert found.cosine == pytest.approx(1, abs=3e-6)


def test_too_many_others_are_refused(lay: Lay) -> None:
    """Descriptors and time are bounded."""
    own = lora(np.random.default_rng(16), shapes=FEW)
    file = lay(own)

    with pytest.raises(ValueError, match="at most"):
        compare(file, norms(own), [file] * (MOST_OTHERS + 1), quiet)


def test_nothing_to_compare_with_is_no_fault(lay: Lay) -> None:
    """The first LoRA of a library is compared with none."""
    own = lora(np.random.default_rng(17), shapes=FEW)

    assert compare(lay(own), norms(own), [], quiet) == ()


def test_modules_are_drawn_by_energy() -> None:
    """A module is drawn as often as its energy has it, the same ones every time."""
    strengths = {f"m{at}": 1.0 for at in range(90)} | {"strong": 30.0}
    drawn = sample(strengths, tuple(strengths), 20)

    assert sum(drawn.values()) == pytest.approx(1)
    assert drawn["strong"] == pytest.approx(900 / 990, abs=0.05)
    assert drawn == sample(strengths, tuple(strengths), 20)


@pytest.mark.parametrize("strength", [0.0, float("nan"), float("inf")])
def test_nothing_is_drawn_without_energy(strength: float) -> None:
    """Norms that are zero or none draw no module."""
    assert sample({"a": strength}, ("a", "b"), 4) == {}
