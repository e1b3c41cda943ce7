"""What a report amounts to: the order of findings, the first step, and what a cut keeps."""

import math
from dataclasses import replace

from lora_server.evaluation.report import Finding, Report, Resize, Result
from lora_server.evaluation.telling import by_severity, cuts, first_step, resize_advice
from tests.evaluation.measures import measured, module
from tests.evaluation.reports import PASSED, healthy, unmeasured


def finding(result: Result, *, required: bool = False, advice: str = "") -> Finding:
    """Return a finding that came out so."""
    return Finding("W00", "Check", result, required=required, summary="So.", advice=advice)


def with_resize(rank: int, kept: float = 0.99) -> Report:
    """Return a report that advises this rank."""
    report = healthy()
    return replace(report, weights=replace(report.weights, resize=Resize(rank, None, kept)))


def test_severity_follows_the_verdict() -> None:
    """A required check that is open stands between a fail and a warning, as in the verdict."""
    mixed = [finding(r) for r in reversed(Result)]
    mixed.append(finding(Result.UNAVAILABLE, required=True))

    assert [(f.result.value, f.required) for f in by_severity(mixed)] == [
        ("fail", False),
        ("unavailable", True),
        ("warn", False),
        ("review", False),
        ("info", False),
        ("unavailable", False),
        ("pass", False),
    ]


def test_the_first_step_is_that_of_the_worst_finding() -> None:
    """The advice of a note does not stand before that of a warning."""
    note = finding(Result.INFO, advice="Resize it.")
    warning = finding(Result.WARN, advice="Compare them.")
    report = healthy()

    assert first_step(replace(report, findings=(note, warning))) == "Compare them."
    assert first_step(replace(report, findings=(note,))).endswith("Optional: Resize it.")
    assert first_step(replace(report, findings=PASSED)) == "Nothing has to be done."


def test_a_cut_keeps_the_largest_singular_values() -> None:
    """Values 3, 2, 1 and 1 cut to rank 2 keep the root of 13/15."""
    one = replace(
        module("a", "attention", 0, strength=1, sharpness=0.1),
        spectrum=(3.0, 2.0, 1.0, 1.0),
        frobenius=math.sqrt(15),
        rank=4,
    )
    weights = replace(measured([one]), resize=Resize(3, None, math.sqrt(14 / 15)))
    report = replace(healthy(), weights=weights)

    two, three = cuts(report)
    assert (two.rank, three.rank) == (2, 3)
    assert math.isclose(two.kept, math.sqrt(13 / 15))
    assert math.isclose(three.kept, math.sqrt(14 / 15))
    assert (two.advised, three.advised) == (False, True)
    assert two.size == round(report.lora.file_size / 2)


def test_the_weakest_module_is_told_apart_from_the_whole() -> None:
    """A strong module that keeps all hides a weak one that loses much, unless both are told."""
    flat = replace(
        module("a", "x", 0, strength=1, sharpness=0), frobenius=8.0, spectrum=(1.0,) * 64
    )
    steep = module("b", "x", 0, strength=1000, sharpness=2)
    report = replace(healthy(), weights=measured([flat, steep]))

    sixteen = next(cut for cut in cuts(report) if cut.rank == 16)
    assert math.isclose(sixteen.weakest, 0.5)
    assert sixteen.kept > 0.999


def test_extreme_norms_do_not_break_the_sums() -> None:
    """Squares of what float holds overflow or vanish; shares do not."""
    report = healthy()
    for norm in (1e-200, 1e200):
        one = replace(
            report.weights.modules[0], spectrum=(norm, norm), frobenius=norm * math.sqrt(2)
        )
        (two,) = cuts(replace(report, weights=replace(report.weights, modules=(one,))))

        assert two.rank == 2
        assert math.isclose(two.kept, 1.0)


def test_resize_advice_is_a_sentence() -> None:
    """What is used, what a cut keeps, and what the file would weigh; or why not to cut."""
    assert resize_advice(with_resize(16, 0.994)).endswith(
        "Cutting to rank 16 keeps 99.4 % of the strength and makes 292 MB about 73 MB."
    )
    assert "keep the rank" in resize_advice(with_resize(63))
    assert "could not be measured" in resize_advice(unmeasured())
