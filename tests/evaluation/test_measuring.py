"""Every quantity against the dense computation, on random and on adversarial modules.

The tolerances are those of Gram matrices in float32: 1e-5 of the largest singular value is
what no module may miss, whatever the gauge of its halves.
"""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.files import UNET, Array, Tensors, agrees, evaluated, lora, only, rounded

RNG = np.random.default_rng


def halves(rank: int, out: int = 96, inner: int = 80, seed: int = 0) -> tuple[Array, Array]:
    """Return a random down and up."""
    rng = RNG(seed)
    return rng.standard_normal((rank, inner)) * 0.1, rng.standard_normal((out, rank)) * 0.1


def with_spectrum(sigma: Array, out: int = 96, inner: int = 80) -> tuple[Array, Array]:
    """Return down and up whose product has these singular values."""
    rng = RNG(1)
    left = np.linalg.qr(rng.standard_normal((out, sigma.size)))[0]
    right = np.linalg.qr(rng.standard_normal((inner, sigma.size)))[0]
    return np.sqrt(sigma)[:, None] * right.T, left * np.sqrt(sigma)


@settings(max_examples=40, deadline=None)
@given(
    rank=st.integers(1, 40),
    out=st.integers(1, 90),
    inner=st.integers(1, 90),
    dtype=st.sampled_from(["F16", "BF16", "F32", "F64"]),
    alpha=st.floats(0.5, 64),
    seed=st.integers(0, 2**16),
)
def test_random_modules(  # noqa: PLR0913, PLR0917 - one for each thing that is drawn
    rank: int, out: int, inner: int, dtype: str, alpha: float, seed: int
) -> None:
    """Any rank (also above both widths), any widths, any dtype of floats."""
    down, up = halves(rank, out, inner, seed)
    alpha = float(np.float32(alpha))
    dense = alpha / rank * rounded(dtype, up) @ rounded(dtype, down)

    module = only(lora(UNET, down, up, alpha, dtype))

    agrees(module, dense)
    assert module.rank == rank
    assert module.real_rank == np.linalg.matrix_rank(dense, tol=1e-6 * np.linalg.norm(dense, 2))
    assert module.shape == (out, inner)
    assert module.dtype == dtype


def test_a_missing_alpha_scales_by_one() -> None:
    """So loaders take it."""
    down, up = halves(4)

    module = only(lora(UNET, down, up))

    agrees(module, rounded("F32", up) @ rounded("F32", down))
    assert (module.alpha, module.scale) == (None, 1.0)


def test_small_singular_values_are_real_and_counted() -> None:
    """The spectrum falls to 1e-5 of its first; the ninth value would be below 1e-6."""
    sigma = np.append(np.geomspace(1, 1e-5, 8), 1e-8)

    module = only(lora(UNET, *with_spectrum(sigma), dtype="F64"))

    assert module.real_rank == 8
    np.testing.assert_allclose(module.spectrum[:8], sigma[:8], rtol=1e-5)


@pytest.mark.parametrize("factor", [1e-25, 1e-12, 3.0, 1e12, 1e25])
def test_a_factor_that_moves_between_halves_changes_nothing(factor: float) -> None:
    """A → cA and B → B/c is the same update."""
    down, up = halves(16)

    agrees(only(lora(UNET, down * factor, up / factor)), up @ down)


@pytest.mark.parametrize("power", [2, 12, 18])
def test_a_factor_of_its_own_for_each_row_changes_nothing(power: int) -> None:
    """The rows of A differ by many orders of magnitude and the columns of B undo it."""
    down, up = halves(16)
    factors = np.geomspace(10.0**-power, 10.0**power, 16)

    agrees(only(lora(UNET, down * factors[:, None], up / factors)), up @ down)


@pytest.mark.parametrize("condition", [1e1, 1e3, 1e5])
def test_an_invertible_gauge_changes_nothing(condition: float) -> None:
    """A → GA and B → B G⁻¹, up to where the file's own float32 loses the update."""
    down, up = halves(16)
    rng = RNG(2)
    left, right = (np.linalg.qr(rng.standard_normal((16, 16)))[0] for _ in "lr")
    gauge = left @ np.diag(np.geomspace(1, condition, 16)) @ right
    down, up = rounded("F32", gauge @ down), rounded("F32", up @ np.linalg.inv(gauge))

    agrees(only(lora(UNET, down, up)), up @ down)


def test_halves_that_nearly_cancel() -> None:
    """Two rows almost alike with columns of opposite sign: what is left is a millionth."""
    rng = RNG(3)
    row, little = rng.standard_normal((2, 80))
    column = rng.standard_normal(96)
    down = rounded("F32", np.stack([row + 1e-6 * little, row - 1e-6 * little]))
    up = rounded("F32", np.stack([column, -column], axis=1))

    agrees(only(lora(UNET, down, up)), up @ down)


def test_doubled_rows_do_not_count_twice() -> None:
    """A file merged with itself has twice the rank in tensors and not in fact."""
    down, up = halves(8)
    doubled = lora(UNET, np.concatenate([down, down]), np.concatenate([up, up], axis=1))

    module = only(doubled)

    assert (module.rank, module.real_rank) == (16, 8)
    agrees(module, 2 * rounded("F32", up) @ rounded("F32", down))


def test_rows_that_depend_on_others_do_not_count() -> None:
    """Twelve rows that four span, to the precision of float32; the columns are independent."""
    down, up = halves(12)
    mixed = RNG(10).standard_normal((12, 4)) @ down[:4]

    module = only(lora(UNET, mixed, up))

    assert (module.rank, module.real_rank) == (12, 4)
    agrees(module, up @ mixed)


def test_rows_of_zeros_do_not_count() -> None:
    """A rank padded with zeros is no rank, whichever half has them."""
    down, up = halves(8)
    down[5:] = 0
    up[:, 3:5] = 0

    module = only(lora(UNET, down, up))

    assert (module.rank, module.real_rank) == (8, 3)
    agrees(module, rounded("F32", up) @ rounded("F32", down))


@pytest.mark.parametrize("size", [1e-30, 1e-12, 1e15, 1e30])
def test_values_whose_squares_float32_does_not_hold(size: float) -> None:
    """Neither overflow nor underflow."""
    down, up = halves(8)
    down, up = rounded("F32", down * size), rounded("F32", up * size)

    agrees(only(lora(UNET, down, up)), up @ down)


def test_a_pointwise_convolution_and_one_with_a_kernel() -> None:
    """Kernels are flattened into the width of the matrix."""
    rng = RNG(4)
    down, up = rng.standard_normal((8, 12, 3, 3)), rng.standard_normal((20, 8, 1, 1))

    module = only(lora(UNET, down, up, alpha=4.0))

    assert module.family == "LoCon"
    assert module.shape == (20, 108)
    agrees(module, 0.5 * up.reshape(20, 8) @ down.reshape(8, 108))


def test_a_tucker_core() -> None:
    """`lora_mid` is contracted with the down half."""
    rng = RNG(5)
    down, up = rng.standard_normal((6, 12, 1, 1)), rng.standard_normal((20, 6, 1, 1))
    core = rng.standard_normal((6, 6, 3, 3))
    tensors: Tensors = {**lora(UNET, down, up), f"{UNET}.lora_mid.weight": ("F32", core)}

    module = only(tensors)

    dense = np.einsum("or,rjhw,jn->onhw", up[..., 0, 0], core, down[..., 0, 0])
    assert module.shape == (20, 108)
    agrees(module, dense.reshape(20, -1))


def test_modules_of_unequal_ranks_share_energy() -> None:
    """Norms of the file, and shares of its modules, over ranks that differ."""
    tensors: dict[str, tuple[str, Array]] = {}
    dense = {}
    for index, rank in enumerate((1, 3, 8, 8, 17)):
        path = f"lora_unet_input_blocks_{index}_1_proj_in"
        down, up = halves(rank, seed=index)
        tensors |= lora(path, down, up)
        dense[path] = np.linalg.norm(up @ down)
    total = sum(norm**2 for norm in dense.values())

    measure = evaluated(tensors).measure

    assert measure.frobenius == pytest.approx(np.sqrt(total), rel=1e-5)
    for module in measure.modules:
        assert module.energy == pytest.approx(dense[module.path] ** 2 / total, rel=1e-5)
    assert measure.rank == 8
    assert sum(group.energy for group in measure.groups) == pytest.approx(1, abs=1e-5)


def test_the_resize_advice_keeps_what_it_says() -> None:
    """Cutting every module to the advised rank keeps 99 % of each, and one less does not."""
    falling = [np.geomspace(1, 1e-3, 16), np.geomspace(1, 1e-2, 16)]
    tensors: dict[str, tuple[str, Array]] = {}
    for index, sigma in enumerate(falling):
        tensors |= lora(f"lora_unet_output_blocks_{index}_1_proj_in", *with_spectrum(sigma), 16.0)

    resize = evaluated(tensors).measure.resize

    assert resize is not None
    kept = [np.sqrt(np.sum(s[: resize.rank] ** 2) / np.sum(s**2)) for s in falling]
    before = [np.sqrt(np.sum(s[: resize.rank - 1] ** 2) / np.sum(s**2)) for s in falling]
    assert min(kept) >= 0.99 > min(before)
    assert resize.alpha == resize.rank
    squares = [np.sum(s[: resize.rank] ** 2) for s in falling]
    total = sum(np.sum(s**2) for s in falling)
    assert resize.kept == pytest.approx(np.sqrt(sum(squares) / total), rel=1e-5)


def loha(rank: int, out: int, inner: int) -> tuple[Tensors, Array]:
    """Return the tensors of a LoHa and its update."""
    rng = RNG(6)
    a1, a2 = rng.standard_normal((2, out, rank))
    b1, b2 = rng.standard_normal((2, rank, inner))
    names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    parts = zip(names, (a1, b1, a2, b2), strict=True)
    return {f"{UNET}.{name}": ("F32", part) for name, part in parts}, (a1 @ b1) * (a2 @ b2)


@pytest.mark.parametrize(("rank", "out", "inner"), [(1, 30, 40), (5, 60, 40), (20, 70, 90)])
def test_loha(rank: int, out: int, inner: int) -> None:
    """By factors of rank r², or by rows where those cost more; both are exact."""
    tensors, dense = loha(rank, out, inner)

    module = only({**tensors, f"{UNET}.alpha": ("F32", np.array(rank / 2))})

    assert (module.family, module.rank, module.scale) == ("LoHa", rank, 0.5)
    agrees(module, dense / 2)


def test_a_wide_loha_is_measured_in_part() -> None:
    """The norm is exact, the first singular values are near, and the rest is said to be missing."""
    tensors, dense = loha(20, 400, 350)
    sigma = np.linalg.svd(dense, compute_uv=False)

    module = only(tensors)

    assert module.frobenius == pytest.approx(np.linalg.norm(dense), rel=1e-5)
    assert module.spectral == pytest.approx(sigma[0], rel=0.02)
    np.testing.assert_allclose(module.spectrum[:8], sigma[:8], rtol=0.05)
    assert all(found <= true * 1.0001 for found, true in zip(module.spectrum, sigma, strict=False))
    assert "beginning of the spectrum" in module.partial
    assert module.effective_rank is None


def test_a_loha_with_cores() -> None:
    """Tucker cores in both factors."""
    rng = RNG(7)
    out, inner = rng.standard_normal((2, 3, 20)), rng.standard_normal((2, 3, 12))
    cores = rng.standard_normal((2, 3, 3, 3, 3))
    tensors: dict[str, tuple[str, Array]] = {}
    dense = np.ones((20, 12, 3, 3))
    for n in (0, 1):
        tensors[f"{UNET}.hada_w{n + 1}_a"] = ("F32", out[n])
        tensors[f"{UNET}.hada_w{n + 1}_b"] = ("F32", inner[n])
        tensors[f"{UNET}.hada_t{n + 1}"] = ("F32", cores[n])
        dense *= np.einsum("ijhw,jn,io->onhw", cores[n], inner[n], out[n])

    module = only(tensors)

    assert module.shape == (20, 108)
    agrees(module, dense.reshape(20, -1))


@pytest.mark.parametrize("left", ["whole", "factors"])
@pytest.mark.parametrize("right", ["whole", "factors", "kernel", "core"])
def test_lokr(left: str, right: str) -> None:
    """Every way to store the two factors of a Kronecker product."""
    rng = RNG(8)
    tensors: dict[str, tuple[str, Array]] = {}

    def put(name: str, *shape: int) -> Array:
        values = rounded("F32", rng.standard_normal(shape))
        tensors[f"{UNET}.lokr_{name}"] = ("F32", values)
        return values

    first = put("w1", 5, 4) if left == "whole" else put("w1_a", 5, 2) @ put("w1_b", 2, 4)
    if right == "whole":
        second = put("w2", 12, 10)
    elif right == "kernel":
        second = put("w2", 12, 10, 3, 3).reshape(12, 90)
    elif right == "factors":
        second = put("w2_a", 12, 3) @ put("w2_b", 3, 10)
    else:
        parts = put("t2", 3, 3, 3, 3), put("w2_b", 3, 10), put("w2_a", 3, 12)
        second = np.einsum("ijhw,jn,io->onhw", *parts).reshape(12, 90)

    module = only(tensors)

    agrees(module, np.kron(first, second))
    assert module.shape == (60, 4 * second.shape[1])


def test_a_whole_matrix() -> None:
    """A full `diff` is measured as it stands."""
    matrix = RNG(9).standard_normal((70, 50))

    module = only({f"{UNET}.diff": ("F32", matrix)})

    agrees(module, matrix)


def test_dora_is_measured_in_part_and_says_so() -> None:
    """The magnitude needs the base; the direction does not."""
    down, up = halves(8)
    magnitude = ("F32", np.ones((96, 1)))

    result = evaluated({**lora(UNET, down, up), f"{UNET}.dora_scale": magnitude})

    (module,) = result.measure.modules
    agrees(module, up @ down)
    assert "DoRA" in module.partial
    assert (result.measure.measured_count, result.measure.partial_count) == (1, 1)


def test_rslora_as_the_metadata_says() -> None:
    """PEFT's configuration in the metadata scales where no alpha is stored, as in diffusers."""
    down, up = halves(16)
    tensors: Tensors = {
        "transformer.blocks.0.attn1.to_q.lora_A.weight": ("F32", down),
        "transformer.blocks.0.attn1.to_q.lora_B.weight": ("F32", up),
    }
    config = '{"transformer.r": 16, "transformer.lora_alpha": 8, "transformer.use_rslora": true}'

    module = only(tensors, {"lora_adapter_metadata": config})

    assert module.scale == 2.0
    agrees(module, 2 * up @ down)


@pytest.mark.parametrize("begin", range(0, 2**16, 2**14))
def test_every_half_precision_number(begin: int) -> None:
    """All codes that are numbers, subnormal ones too, count as numpy has them."""
    values = np.arange(begin, begin + 2**14, dtype=np.uint16).view(np.float16)
    values = values[np.isfinite(values)][:, None]

    module = only(lora(UNET, np.ones((1, 1)), values, dtype="F16"))

    expected = np.linalg.norm(values.astype(np.float64))
    assert module.frobenius == pytest.approx(expected, rel=1e-5)
    assert module.max_entry_bound == pytest.approx(np.abs(values).max(), rel=1e-5)


FLOAT8 = {
    # A code, and its value by the formats' definitions.
    "F8_E4M3": {0x38: 1.0, 0x7E: 448.0, 0x01: 2.0**-9, 0xB8: -1.0, 0x08: 2.0**-6},
    "F8_E5M2": {0x3C: 1.0, 0x7B: 57344.0, 0x01: 2.0**-16, 0xBC: -1.0},
    "F8_E4M3FNUZ": {0x40: 1.0, 0x7F: 240.0, 0x01: 2.0**-10, 0xC0: -1.0},
    "F8_E5M2FNUZ": {0x40: 1.0, 0x7F: 57344.0, 0x01: 2.0**-17, 0xC0: -1.0},
}


@pytest.mark.parametrize("dtype", FLOAT8)
def test_floats_of_eight_bits(dtype: str) -> None:
    """Their values are those of the formats' definitions."""
    for code, value in FLOAT8[dtype].items():
        tensors: Tensors = {
            f"{UNET}.lora_down.weight": (dtype, np.full((1, 4), code)),
            f"{UNET}.lora_up.weight": ("F32", np.ones((4, 1))),
        }

        assert only(tensors).frobenius == pytest.approx(4 * abs(value), rel=1e-5)


@pytest.mark.parametrize(
    ("dtype", "code"),
    [
        ("F8_E4M3", 0x7F),
        ("F8_E5M2", 0x7C),
        ("F8_E5M2", 0xFD),
        ("F8_E4M3FNUZ", 0x80),
        ("F8_E5M2FNUZ", 0x80),
    ],
)
def test_floats_of_eight_bits_that_are_no_numbers(dtype: str, code: int) -> None:
    """NaN and Inf of the small formats are found too."""
    tensors: Tensors = {
        f"{UNET}.lora_down.weight": (dtype, np.full((1, 4), code)),
        f"{UNET}.lora_up.weight": ("F32", np.ones((4, 1))),
    }

    assert evaluated(tensors).measure.nonfinite_count == 1


def test_the_mean_spectrum_falls() -> None:
    """It begins at 1, as every module's does."""
    spectrum = evaluated(lora(UNET, *halves(12))).measure.mean_spectrum

    assert spectrum[0] == 1
    assert all(first >= second for first, second in pairwise(spectrum))
