"""Whether a sketch estimates the dense cosine, as well as it says, whatever it is fed."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from lora_server.evaluation.weights.sketches import (
    SIZE_BYTES,
    Estimate,
    Sketcher,
    frobenius,
    nearest,
    sketch,
)
from lora_server.evaluation.weights.update import Matrix, Update
from tests.evaluation.updates import (
    dense_cosine,
    dense_norm,
    lora,
    mixed,
    normal,
    spelled,
)
from tests.layers import Layer
from tests.layouts import layers_of

STORED = 5_000
FLOOR = 1 / 32  # the standard error for unrelated files of many modules
CANDIDATES = 16
ZERO = np.zeros((1, 1), np.float32)


def estimate(first: Sequence[Update], second: Sequence[Update]) -> Estimate:
    """Return what the sketches of two files say."""
    return nearest(sketch(first), sketch(second), 1)[0]


def test_the_error_is_as_stated() -> None:
    """Over many pairs at each cosine the error is centred, and no larger than it claims."""
    random = np.random.default_rng(1)
    for cosine in (0.001, 0.3, 0.9):
        off = []
        for _ in range(16):
            first = lora(random)
            second = mixed(random, first, cosine)
            found = estimate(first, second)
            off.append((found.cosine - dense_cosine(first, second)) / found.error)
        assert np.sqrt(np.mean(np.square(off))) < 1.2, cosine
        assert abs(np.mean(off)) < 0.6, cosine


def test_unrelated_files_are_near_nothing() -> None:
    """Between unrelated files the estimate scatters as the number of dimensions has it."""
    random = np.random.default_rng(2)
    query = sketch(lora(random))
    found = nearest(query, b"".join(sketch(lora(random)) for _ in range(100)), 100)

    assert len(found) == 100
    assert 0.75 * FLOOR < np.std([each.cosine for each in found]) < 1.25 * FLOOR


def test_a_neighbour_is_found_among_thousands() -> None:
    """A file at cosine 0.3 is among the first sixteen of 5,000, time after time."""
    random = np.random.default_rng(3)
    own = lora(random)
    query = sketch(own)
    # The others scatter a little more than unrelated files do.
    noise = np.sort(random.normal(0, 1.25 * FLOOR, STORED))[-CANDIDATES]
    neighbours = b"".join(sketch(mixed(random, own, 0.3)) for _ in range(100))

    assert all(each.cosine > noise for each in nearest(query, neighbours, 100))


@pytest.mark.parametrize("shape", [(1, 1), (3, 70_000), (70_000, 2), (33_000, 33_000)])
def test_any_width_is_sketched(shape: tuple[int, int]) -> None:
    """A module of one number, or one wider than the table of signs, is near to itself alone."""
    random = np.random.default_rng(4)
    module, other = (lora(random, rank=1, shapes=[shape]) for _ in range(2))

    assert estimate(module, module).cosine == pytest.approx(1, abs=1e-6)
    if shape != (1, 1):
        assert abs(estimate(module, other).cosine) < 0.9


def test_gauge_and_rank_do_not_matter() -> None:
    """The same dW in other factors, even of another rank, has the same sketch but for rounding."""
    random = np.random.default_rng(5)
    own = lora(random)
    gauge = normal(random, 4, 6)
    inverse = np.asarray(np.linalg.pinv(gauge), np.float32)
    turned = [Update(u.path, u.up @ gauge, inverse @ u.down) for u in own]

    assert turned[0].up.shape[1] == 6
    assert estimate(own, turned).cosine == pytest.approx(1, abs=1e-5)


def scaled(update: Update) -> Update:
    """Return an update a thousandth as strong."""
    return Update(update.path, update.up * np.float32(1e-3), update.down)


def rounded(update: Update) -> Update:
    """Return an update whose factors are rounded to bfloat16."""
    half = [
        ((m.view(np.uint32) + 0x8000) & 0xFFFF0000).view(np.float32)
        for m in (update.up, update.down)
    ]
    return Update(update.path, *half)


def respelled(update: Update) -> Update:
    """Return an update under the name that diffusers gives the module."""
    at, name = update.path.removeprefix("lora_unet_input_blocks_7_1_").rsplit("_attn1_", 1)
    path = f"unet.down_blocks.2.attentions.0.{at.replace('blocks_', 'blocks.')}.attn1.{name}"
    return Update(path, update.up, update.down)


@pytest.mark.parametrize("change", [scaled, rounded, respelled])
def test_a_copy_is_recognised(change: Callable[[Update], Update]) -> None:
    """Neither strength nor storage nor spelling hides a copy."""
    own = lora(np.random.default_rng(6))

    assert estimate(own, [change(update) for update in own]).cosine > 0.9999


def test_fused_and_separate_layers_meet() -> None:
    """Flux's fused projections and diffusers' three make the same sketch."""
    random = np.random.default_rng(7)
    fused = Update("lora_unet_double_blocks_3_img_attn_qkv", *_factors(random, 3 * 32, 32))
    apart = [
        Update(
            f"transformer.transformer_blocks.3.attn.to_{name}",
            fused.up[at * 32 : (at + 1) * 32],
            fused.down,
        )
        for at, name in enumerate("qkv")
    ]

    assert estimate([fused], apart).cosine == pytest.approx(1, abs=1e-6)


def _factors(random: np.random.Generator, rows: int, columns: int) -> tuple[Matrix, Matrix]:
    return normal(random, rows, 4), normal(random, 4, columns)


def test_modules_of_one_file_alone_count_as_nothing() -> None:
    """Half of the energy in shared modules leaves a cosine of a half."""
    random = np.random.default_rng(8)
    own = lora(random, shapes=[(64, 64)] * 60)

    assert estimate(own, own[:30]).cosine == pytest.approx(
        dense_cosine(own, own[:30]), abs=4 * FLOOR
    )


def test_training_on_moves_away_step_by_step() -> None:
    """Later epochs of one training are ever farther, and all nearer than a stranger."""
    random = np.random.default_rng(9)
    own = lora(random)
    epochs = [mixed(random, own, cosine) for cosine in (0.98, 0.9, 0.75, 0.5)]
    found = nearest(sketch(own), b"".join(map(sketch, [lora(random), *epochs])), 5)

    assert [each.position for each in found] == [1, 2, 3, 4, 0]


def test_the_norm_is_kept() -> None:
    """The sketch carries the norm of the whole update."""
    own = lora(np.random.default_rng(10))

    assert frobenius(sketch(own)) == pytest.approx(dense_norm(own), rel=1e-6)


INTEGERS = """
import numpy as np, sys
from lora_server.evaluation.weights.sketches import sketch
from lora_server.evaluation.weights.update import Matrix, Update
up = (np.arange(60 * 3, dtype=np.float32) % 7 - 3).reshape(60, 3)
down = (np.arange(3 * 40, dtype=np.float32) % 5 - 2).reshape(3, 40)
sys.stdout.buffer.write(sketch([Update(f"lora_unet_{at}", up, down) for at in range(9)]))
"""


def test_every_process_makes_the_same_sketch() -> None:
    """What is stored today means the same tomorrow, on another machine."""
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    made = subprocess.run(
        [sys.executable, "-c", INTEGERS], check=True, capture_output=True, env=environment
    ).stdout

    assert hashlib.sha256(made).hexdigest() == GOLDEN


GOLDEN = "5125e2787a1da08ac391d327346bb55e1089efc07df76c60d756ffce97dc9f8e"


def broken(value: float) -> list[Update]:
    """Return a LoRA whose every module holds a number that is none."""
    updates = lora(np.random.default_rng(11))
    for update in updates:
        update.up[0, 0] = value
    return updates


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_numbers_that_are_none_are_near_nothing(value: float) -> None:
    """NaN, infinity and overflow give a sketch that finds nothing and is not found."""
    own, bad = sketch(lora(np.random.default_rng(12))), sketch(broken(value))

    assert len(bad) == SIZE_BYTES
    assert nearest(bad, own + bad, 5) == []
    assert [each.position for each in nearest(own, bad + own + bad, 5)] == [1]


@pytest.mark.parametrize("updates", [[], [Update("a", ZERO, ZERO)]])
def test_nothing_is_near_to_nothing(updates: list[Update]) -> None:
    """A file without a module, or with an update of zero, has no neighbours."""
    empty = sketch(updates)

    assert nearest(empty, empty + sketch(lora(np.random.default_rng(13))), 5) == []


def test_one_broken_module_does_not_spoil_the_rest() -> None:
    """A module that holds NaN counts as absent when the file's norm is given without it."""
    own = lora(np.random.default_rng(14))
    good = sketch(own)
    own[3].up[0, 0] = np.nan
    sketcher = Sketcher()
    for update in own:
        sketcher.add(update)
    (found,) = nearest(good, sketcher.finish(dense_norm(own[:3] + own[4:])), 1)

    assert found.cosine > 0.95


def test_a_module_without_rank_counts_as_absent() -> None:
    """Factors of no columns, or no rows, change nothing."""
    own = lora(np.random.default_rng(15))
    odd = [
        Update("a", np.empty((8, 0), np.float32), np.empty((0, 8), np.float32)),
        Update("b", np.empty((0, 2), np.float32), np.empty((2, 0), np.float32)),
    ]

    assert sketch([*own, *odd]) == sketch(own)


def test_an_empty_bundle_holds_no_neighbour() -> None:
    """Without stored files there is nothing to find."""
    assert nearest(sketch(lora(np.random.default_rng(16))), b"", 5) == []


def test_the_bundle_is_numbered_as_it_was_laid_out() -> None:
    """Sketches of another version, and garbled ones, are passed over in the numbering."""
    own = sketch(lora(np.random.default_rng(17)))
    newer = own[:4] + (2).to_bytes(2, "little") + own[6:]
    longer = own[:4] + (3).to_bytes(2, "little") + (SIZE_BYTES + 64).to_bytes(2, "little")
    longer += own[8:] + bytes(64)
    no_number = own[:-2] + b"\x00\x7e"  # the last of the values is NaN
    no_norm = own[:8] + b"\xff" * 8 + own[16:]
    found = nearest(own, newer + longer + no_number + no_norm + own, 9)

    assert [each.position for each in found] == [4]


@pytest.mark.parametrize("count", [-1, 0, 1, 3, 99])
def test_no_more_than_asked_for(count: int) -> None:
    """At most `count` come back, and equal ones in the order of the bundle."""
    own = sketch(lora(np.random.default_rng(18)))
    found = nearest(own, own * 5, count)

    assert [each.position for each in found] == list(range(max(0, min(count, 5))))


@pytest.mark.parametrize("torn", [slice(0, 7), slice(0, -1), slice(1, None)])
def test_a_torn_bundle_is_refused(torn: slice) -> None:
    """Half a sketch is an error of who stored it, and said to be one."""
    own = sketch(lora(np.random.default_rng(19)))

    with pytest.raises(ValueError, match="sketch"):
        nearest(own, own + own[torn], 5)
    with pytest.raises(ValueError, match="sketch"):
        nearest(own[torn], own, 5)


def test_paths_of_a_whole_model_spread_over_the_sketch() -> None:
    """SDXL's modules share signs and blocks, and still do not disturb each other."""
    random = np.random.default_rng(20)
    layers = [Layer(la.path, 24, 16) for la in layers_of("sdxl")]
    first, second = (
        [Update(spelled(la, "kohya"), *_factors(random, la.outer, la.inner)) for la in layers]
        for _ in range(2)
    )
    # One direction in all modules would add up if their signs were related.
    for update in first + second:
        update.up[:] = 1
        update.down[:] = np.float32(random.choice([-1, 1]))

    assert abs(estimate(first, second).cosine - dense_cosine(first, second)) < 4 * FLOOR
