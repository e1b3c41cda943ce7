"""Whether a LoRA is held beside its company robustly, and never fails for being odd."""

import math

import numpy as np
import pytest

from lora_server.evaluation.cohort import MIN_SIZE, cohort, cohort_finding
from lora_server.evaluation.report import Cohort, Finding, Result

NAMES = ("log10 frobenius norm", "log10 spectral norm", "log10 effective rank", "energy")


def company(size: int, names: tuple[str, ...] = NAMES) -> list[dict[str, float]]:
    """Return the features of stored LoRAs, normal around 1 with a spread of 0.1."""
    random = np.random.default_rng(size)
    return [{name: float(random.normal(1, 0.1)) for name in names} for _ in range(size)]


def beside(features: dict[str, float], others: list[dict[str, float]]) -> Cohort:
    """Return a LoRA beside others."""
    return cohort(features, others, entity_type="styles", base_model="SDXL")


def found(features: dict[str, float], others: list[dict[str, float]]) -> Finding:
    """Return what W08 says."""
    return cohort_finding(beside(features, others))


def test_the_score_is_the_modified_z() -> None:
    """0.6745 (value - median) / MAD, of the others alone."""
    others = [{"a": float(at)} for at in range(21)]
    (feature,) = beside({"a": 25.0}, others).features

    assert (feature.value, feature.median, feature.mad) == (25.0, 10.0, 5.0)
    assert feature.robust_z == pytest.approx(0.6745 * 15 / 5)


def test_a_few_odd_ones_do_not_move_the_score() -> None:
    """A third of the company may be absurd, and an outlier is still seen as one."""
    others = company(60)
    for other in others[:20]:
        other["energy"] = 1e12
    scores = {each.name: each.robust_z for each in beside({"energy": 3.0}, others).features}

    assert scores["energy"] is not None
    assert scores["energy"] > 5


def test_a_usual_one_passes() -> None:
    """Who is like the others is told so."""
    assert found(dict.fromkeys(NAMES, 1.0), company(50)).result is Result.PASS


def test_one_outlier_is_information() -> None:
    """A single odd number is told with its score, and is no warning however odd."""
    told = found({**dict.fromkeys(NAMES, 1.0), "energy": 1e9}, company(50))

    assert (told.id, told.result, told.required) == ("W08", Result.INFO, False)
    assert "energy (z +" in told.summary
    assert "spectral" not in told.summary


@pytest.mark.parametrize("value", [1e300, -1e300, 3.0])
def test_being_odd_is_never_a_failure(value: float) -> None:
    """Everything odd at once is a warning, and that is the worst."""
    told = found(dict.fromkeys(NAMES, value), company(50))

    assert told.result is Result.WARN
    assert not told.required
    assert told.advice


def test_small_company_tells_nothing() -> None:
    """Below the least size no score is given, and the reason is."""
    few = beside(dict.fromkeys(NAMES, 9.0), company(MIN_SIZE - 1))

    assert few.features == ()
    assert str(MIN_SIZE) in few.note
    assert cohort_finding(few).result is Result.UNAVAILABLE
    assert beside(dict.fromkeys(NAMES, 9.0), company(MIN_SIZE)).features


def test_company_that_is_all_alike_gives_no_score() -> None:
    """Without any spread there is no saying how far is far."""
    (feature,) = beside({"a": 2.0}, [{"a": 1.0}] * 30).features

    assert (feature.mad, feature.robust_z) == (0.0, None)
    assert cohort_finding(beside({"a": 2.0}, [{"a": 1.0}] * 30)).result is Result.PASS


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_left_out(value: float) -> None:
    """Neither one's own nor the company's spoil the rest; every number told is finite."""
    others = company(50)
    others[3]["energy"] = value
    told = beside({**dict.fromkeys(NAMES, 1.0), "log10 effective rank": value}, others)
    numbers = [n for each in told.features for n in (each.value, each.median, each.mad)]

    assert [each.name for each in told.features] == [
        name for name in NAMES if name != "log10 effective rank"
    ]
    assert all(map(math.isfinite, numbers))


def test_features_that_few_have_are_left_out() -> None:
    """Each feature needs company of its own."""
    others = [*company(50), *company(MIN_SIZE - 1, ("new",))]

    assert [each.name for each in beside({"new": 1.0, "energy": 1.0}, others).features] == [
        "energy"
    ]
    assert beside({"unknown": 1.0}, others).note


def test_numbers_at_the_end_of_the_range_are_left_out() -> None:
    """Company whose spread is beyond a float has no score."""
    others = [{"a": 1.7e308 * (-1) ** at} for at in range(40)]

    assert beside({"a": 1.0}, others).features == ()
