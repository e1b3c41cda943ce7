"""Each check: what makes it speak, how loudly, and which modules it names."""

from collections.abc import Mapping

import numpy as np
import pytest

from lora_server.evaluation.report import Finding, Result, Verdict
from lora_server.evaluation.verdict import headline, verdict_of
from lora_server.evaluation.weights.evaluating import evaluate
from tests.evaluation.files import Array, Tensors, evaluated, lora, opened
from tests.formats.torch_bytes import held, tensor, torch_zip

RANK = 8


def path_of(number: int) -> str:
    """Return the path of a healthy module."""
    return f"lora_unet_input_blocks_{number}_1_proj_in"


def healthy(
    count: int = 10, alpha: float | None = 4.0, dtype: str = "F16"
) -> dict[str, tuple[str, Array]]:
    """Return the tensors of an ordinary LoRA: full spectra, alphas, one dtype."""
    rng = np.random.default_rng(0)
    tensors: dict[str, tuple[str, Array]] = {}
    for number in range(count):
        down, up = rng.standard_normal((RANK, 40)), rng.standard_normal((30, RANK))
        tensors |= lora(path_of(number), down * 0.1, up * 0.1, alpha, dtype)
    return tensors


def findings(tensors: Tensors, metadata: Mapping[str, str] | None = None) -> dict[str, Finding]:
    """Return the findings by their ids."""
    return {finding.id: finding for finding in evaluated(tensors, metadata).findings}


def changed(name: str, values: Array, dtype: str = "F16") -> Tensors:
    """Return the healthy LoRA with one tensor of the module number 3 replaced or added."""
    return {**healthy(), f"{path_of(3)}.{name}": (dtype, values)}


def test_an_ordinary_lora_passes() -> None:
    """Without a base model, too: what cannot be known is said and does not count."""
    result = evaluated(healthy())

    assert verdict_of(result.findings) is Verdict.PASS
    assert [f.id for f in result.findings] == [
        *("W01", "W02", "W03", "W04", "W05", "W06", "W07", "W10", "W11", "W12")
    ]
    unavailable = [f.id for f in result.findings if f.result is Result.UNAVAILABLE]
    assert unavailable == ["W04"]
    assert "No base model" in next(f for f in result.findings if f.id == "W04").summary


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("half", ["lora_down.weight", "lora_up.weight"])
def test_one_bad_number_fails_and_the_rest_is_measured(bad: float, half: str) -> None:
    """W01 names the module; the others' numbers stay."""
    values = np.full((RANK, 40) if "down" in half else (30, RANK), 0.1)
    values[2, 5] = bad

    result = evaluated(changed(half, values))

    finding = result.findings[0]
    assert (finding.id, finding.result) == ("W01", Result.FAIL)
    assert (finding.modules, finding.module_count) == ((path_of(3),), 1)
    assert verdict_of(result.findings) is Verdict.FAIL
    assert (result.measure.nonfinite_count, result.measure.measured_count) == (1, 9)
    assert result.measure.frobenius > 0


@pytest.mark.parametrize(
    ("name", "shape"),
    [("alpha", ()), ("dora_scale", (30, 1)), ("diff_b", (30,)), ("lora_up.bias", (30,))],
)
def test_a_bad_number_beside_the_halves_fails_too(name: str, shape: tuple[int, ...]) -> None:
    """W01 speaks of any tensor."""
    tensors = changed(name, np.full(shape, np.nan), "F32")

    assert findings(tensors)["W01"].modules == (path_of(3),)


def test_an_update_beyond_double_precision_fails() -> None:
    """Finite halves whose product is not."""
    tensors = {
        **changed("lora_down.weight", np.full((RANK, 40), 1e300), "F64"),
        f"{path_of(3)}.lora_up.weight": ("F64", np.full((30, RANK), 1e300)),
    }

    assert findings(tensors)["W01"].result is Result.FAIL


def test_nothing_but_zeros_fails() -> None:
    """W02: B is zero everywhere, as before the first step of a training."""
    tensors = {
        name: (dtype, values * ("lora_up" not in name))
        for name, (dtype, values) in healthy().items()
    }

    result = evaluated(tensors)

    assert result.findings[1].result is Result.FAIL
    assert result.measure.zero_count == 10
    assert result.measure.frobenius == 0
    assert result.measure.resize is None


def test_some_zeros_are_information() -> None:
    """W02 gives the share."""
    finding = findings(changed("lora_up.weight", np.zeros((30, RANK))))["W02"]

    assert (finding.result, finding.modules) == (Result.INFO, (path_of(3),))
    assert "10%" in finding.summary


@pytest.mark.parametrize(
    ("alpha", "says"), [(0.0, "not above 0"), (-4.0, "not above 0"), (800.0, "scale over 10")]
)
def test_an_odd_alpha_is_a_warning(alpha: float, says: str) -> None:
    """W03: 0, negative, or a scale above 10."""
    finding = findings(changed("alpha", np.array(alpha), "F32"))["W03"]

    assert (finding.result, finding.modules) == (Result.WARN, (path_of(3),))
    assert says in finding.summary


def test_an_alpha_that_only_one_module_lacks_is_a_warning() -> None:
    """W03; a file that stores none at all is as PEFT writes it."""
    lacking = {name: held for name, held in healthy().items() if name != f"{path_of(3)}.alpha"}

    assert findings(lacking)["W03"].modules == (path_of(3),)
    assert findings(healthy(alpha=None))["W03"].result is Result.PASS


def test_an_alpha_without_weights_is_a_warning() -> None:
    """W03 names what belongs to nothing."""
    finding = findings({**healthy(), "lora_unet_out_2.alpha": ("F32", np.array(1.0))})["W03"]

    assert (finding.result, finding.modules) == (Result.WARN, ("lora_unet_out_2",))


def test_loha_halves_of_different_shapes_fail() -> None:
    """W03: the door looks at each product alone; together they make nothing."""
    shapes = {
        "hada_w1_a": (30, 4),
        "hada_w1_b": (4, 40),
        "hada_w2_a": (30, 4),
        "hada_w2_b": (4, 41),
    }
    odd = {f"lora_unet_out_2.{name}": ("F16", np.ones(shape)) for name, shape in shapes.items()}

    finding = findings({**healthy(), **odd})["W03"]

    assert (finding.result, finding.modules) == (Result.FAIL, ("lora_unet_out_2",))


def test_dtypes_that_are_mixed_or_coarse_are_warned_of() -> None:
    """W05."""
    mixed = findings(changed("lora_up.weight", np.ones((30, RANK)), "F32"))["W05"]
    coarse = findings(changed("lora_up.weight", np.full((30, RANK), 0x38), "F8_E4M3"))["W05"]

    assert (mixed.result, mixed.modules) == (Result.WARN, (path_of(3),))
    assert "mixed" in mixed.summary
    assert "F8_E4M3 is coarse" in coarse.summary


def test_entries_that_may_pass_fp16_are_warned_of() -> None:
    """W05: the bound on an entry, for each module."""
    tensors = {
        **changed("lora_up.weight", np.full((30, RANK), 60000.0)),
        f"{path_of(3)}.alpha": ("F32", np.array(16.0)),
    }

    finding = findings(tensors)["W05"]

    assert (finding.result, finding.modules) == (Result.WARN, (path_of(3),))
    assert "65504" in finding.summary


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"ss_network_dim": "32"}, "ss_network_dim is declared as 32, the tensors have 8"),
        ({"ss_network_alpha": "1.0"}, "ss_network_alpha is declared as 1, the tensors have 4"),
        ({"lora_adapter_metadata": '{"r": 16}'}, "r of denoiser is declared as 16"),
    ],
)
def test_a_declaration_that_does_not_fit_is_a_warning(metadata: dict[str, str], says: str) -> None:
    """W06."""
    finding = findings(healthy(), metadata)["W06"]

    assert finding.result is Result.WARN
    assert says in finding.summary


def test_declarations_that_fit_are_no_warning() -> None:
    """W06, also of convolutions, which have a rank of their own."""
    rng = np.random.default_rng(1)
    conv = lora(
        "lora_unet_out_2",
        rng.standard_normal((2, 4, 3, 3)),
        rng.standard_normal((6, 2, 1, 1)),
        1.0,
        "F16",
    )
    metadata = {
        "ss_network_dim": "8",
        "ss_network_alpha": "4.0",
        "ss_network_args": '{"conv_dim": "2", "conv_alpha": "1"}',
    }

    finding = findings({**healthy(), **conv}, metadata)["W06"]

    assert (finding.result, finding.summary[:11]) == (Result.PASS, "The tensors")


def test_one_module_above_all_others_is_a_warning() -> None:
    """W07."""
    finding = findings(
        changed("lora_up.weight", np.random.default_rng(2).standard_normal((30, RANK)))
    )["W07"]

    assert (finding.result, finding.modules) == (Result.WARN, (path_of(3),))


def test_one_direction_everywhere_is_a_warning() -> None:
    """W07: the first singular value is nearly all of every module."""
    tensors = dict(healthy())
    for number in range(10):
        tensors[f"{path_of(number)}.lora_up.weight"] = ("F16", np.full((30, RANK), 0.1))

    finding = findings(tensors)["W07"]

    assert (finding.result, finding.module_count) == (Result.WARN, 10)


def test_a_strong_text_encoder_is_information() -> None:
    """W10."""
    rng = np.random.default_rng(3)
    encoder = lora(
        "lora_te1_text_model_encoder_layers_0_mlp_fc1",
        rng.standard_normal((RANK, 40)),
        rng.standard_normal((30, RANK)),
        8.0,
        "F16",
    )

    result = evaluated({**healthy(), **encoder})

    finding = next(f for f in result.findings if f.id == "W10")
    assert finding.result is Result.INFO
    assert result.features["text encoder energy"] > 0.5


def test_a_rank_that_is_hardly_used_brings_advice() -> None:
    """W11: the rank to resize to, its alpha, and what that keeps."""
    tensors = dict(healthy())
    for number in range(10):
        down = tensors[f"{path_of(number)}.lora_down.weight"][1].copy()
        down[2:] *= 1e-3
        tensors[f"{path_of(number)}.lora_down.weight"] = ("F16", down)

    finding = findings(tensors)["W11"]

    assert finding.result is Result.INFO
    assert "rank 2 and alpha 1" in finding.advice


def test_foreign_tensors_are_for_a_person_to_look_at() -> None:
    """W12, and so is the verdict."""
    tensors = {**healthy(), "some.buffer": ("F32", np.ones(3))}

    result = evaluated(tensors)

    assert result.findings[-1].modules == ("some.buffer",)
    assert verdict_of(result.findings) is Verdict.REVIEW


@pytest.mark.parametrize(
    ("name", "shape", "says"),
    [
        ("oft_blocks", (4, 10, 10), "turns the base"),
        ("oft_blocks", (2, 4, 10, 10), "turns the base"),
        ("w_norm", (30,), "norm"),
        ("ia3_l", (30, 1), "IA3"),
        ("set_weight", (30, 40), "whole weights"),
        ("diff_b", (30,), "vector"),
    ],
)
def test_what_needs_the_base_leaves_the_verdict_open(
    name: str, shape: tuple[int, ...], says: str
) -> None:
    """A required check that could not be made is no pass; the reason is with the module."""
    result = evaluated({f"{path_of(0)}.{name}": ("F32", np.full(shape, 0.5))})

    (module,) = result.measure.modules
    assert says in module.partial
    assert module.frobenius is None
    assert verdict_of(result.findings) is Verdict.INCONCLUSIVE


def test_a_norm_beside_measured_modules_leaves_nothing_open() -> None:
    """Companions of other modules are counted as not measured, no more."""
    result = evaluated({**healthy(), "lora_unet_out_0.w_norm": ("F16", np.ones(30))})

    assert verdict_of(result.findings) is Verdict.PASS
    assert (result.measure.module_count, result.measure.measured_count) == (11, 10)


def test_a_pickle_is_for_a_person_to_look_at() -> None:
    """W12: the same numbers as from safetensors, from transposed tensors too, and a review."""
    root: dict[object, object] = {}
    for key, (name, (_, values)) in enumerate(healthy(alpha=None).items()):
        transposed = np.ascontiguousarray(values.T.astype(np.float32))
        storage = held(transposed.tobytes(), key=str(key))
        root[name] = tensor(storage, values.shape, (1, values.shape[0]))
    with opened(torch_zip(root)) as fd:
        result = evaluate(fd, ".pt", lambda _share, _what: None)

    expected = evaluated(healthy(alpha=None, dtype="F32")).measure.frobenius
    assert result.measure.frobenius == pytest.approx(expected, rel=1e-5)
    assert result.findings[-1].result is Result.REVIEW


def made(result: Result, *, required: bool = False) -> Finding:
    """Return a finding of this result."""
    return Finding("W99", "Something", result, required, f"It is {result}.")


@pytest.mark.parametrize(
    ("results", "verdict"),
    [
        ([], Verdict.PASS),
        ([made(Result.PASS), made(Result.INFO)], Verdict.PASS),
        ([made(Result.UNAVAILABLE)], Verdict.PASS),
        ([made(Result.WARN), made(Result.PASS)], Verdict.REVIEW),
        ([made(Result.REVIEW)], Verdict.REVIEW),
        ([made(Result.WARN), made(Result.UNAVAILABLE, required=True)], Verdict.INCONCLUSIVE),
        ([made(Result.UNAVAILABLE, required=True), made(Result.FAIL)], Verdict.FAIL),
    ],
)
def test_the_verdict_follows_from_the_findings(results: list[Finding], verdict: Verdict) -> None:
    """A fail fails; else what is open leaves it open; else a warning is a review."""
    assert verdict_of(results) is verdict
    assert headline(results).startswith(str(verdict).capitalize())


def test_the_headline_gives_the_main_reason() -> None:
    """One sentence, with how many more there are."""
    reasons = [made(Result.INFO), made(Result.WARN), made(Result.REVIEW)]

    assert headline(reasons) == "Review: It is warn (1 more)."
