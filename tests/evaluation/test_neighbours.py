"""Which kind of neighbour a comparison makes, which stacks conflict, and what W09 says."""

import pytest

from lora_server.evaluation.comparison import Comparison
from lora_server.evaluation.neighbours import (
    MOST_LINKS,
    Known,
    conflicts,
    duplicates_finding,
    neighbours,
)
from lora_server.evaluation.report import Result

INK = Known("styles/ink.safetensors", "a" * 64, "styles")


def known(name: str, entity_type: str = "styles") -> Known:
    """Return another stored LoRA."""
    return Known(f"{entity_type}/{name}.safetensors", name.ljust(64, "0"), entity_type)


def comparison(
    cosine: float, *, strength: float = 1.0, overlap: float = 0.05, expected: float = 0.01
) -> Comparison:
    """Return a comparison in which little is said but this."""
    return Comparison(
        cosine=cosine,
        error=0.0,
        strength=strength,
        shared_modules=70,
        overlap=overlap,
        expected_overlap=expected,
        input_overlap=overlap,
        expected_input_overlap=expected,
    )


@pytest.mark.parametrize(
    ("cosine", "strength", "kind"),
    [
        (1.0, 1.0, "same weights"),
        (0.999999, 1.0002, "same weights"),  # both factors rounded to 16 bits
        (1.0, 0.5, "near duplicate"),  # a copy of half the strength
        (0.9995, 1.0, "near duplicate"),
        (0.95, 1.0, "same training"),
        (0.62, 1.3, "same training"),
        (0.45, 1.0, "similar"),
    ],
)
def test_kinds_of_neighbours(cosine: float, strength: float, kind: str) -> None:
    """The cosine, and where that is 1 the strength, tell what a stored LoRA is to this one."""
    (found,) = neighbours(INK, [(known("other"), comparison(cosine, strength=strength))])

    assert (found.kind, found.cosine, found.shared_modules) == (kind, cosine, 70)


@pytest.mark.parametrize("cosine", [0.3, 0.1, 0.0, -0.9])
def test_strangers_are_no_neighbours(cosine: float) -> None:
    """What has little in common is not named."""
    assert neighbours(INK, [(known("other"), comparison(cosine))]) == ()


def test_the_nearest_kind_comes_first() -> None:
    """Neighbours are in order of kind, then of cosine."""
    beside = [
        (known("similar"), comparison(0.4)),
        (known("epoch"), comparison(0.8)),
        (known("later"), comparison(0.9)),
    ]
    found = neighbours(INK, beside, [(known("twin"), "same bytes")])

    assert [each.partial_path for each in found] == [
        f"styles/{name}.safetensors" for name in ("twin", "later", "epoch", "similar")
    ]
    assert (found[0].cosine, found[0].overlap) == (1.0, None)


def test_digests_know_better_than_a_comparison() -> None:
    """A twin that was compared, too, is named once, with the overlap that was found."""
    twin = known("twin")
    found = neighbours(INK, [(twin, comparison(0.99999, overlap=0.98))], [(twin, "same weights")])

    assert [(each.kind, each.cosine, each.overlap) for each in found] == [
        ("same weights", 1.0, 0.98)
    ]


def test_nobody_is_its_own_neighbour() -> None:
    """The file itself, whichever way it got in, is left out."""
    assert neighbours(INK, [(INK, comparison(1.0))]) == ()
    assert neighbours(INK, [], [(INK, "same bytes")]) == ()


@pytest.mark.parametrize(
    ("overlap", "expected", "conflict"),
    [(0.6, 0.01, True), (0.31, 0.01, True), (0.29, 0.01, False), (0.6, 0.2, False)],
)
def test_conflicts_are_far_above_chance(overlap: float, expected: float, conflict: bool) -> None:  # noqa: FBT001 - a table's column
    """Only an overlap that is large, and is not what narrow modules have anyway, is a conflict."""
    beside = [(known("face", "faces"), comparison(0.1, overlap=overlap, expected=expected))]

    assert bool(conflicts(INK, beside)) is conflict


def test_conflicts_are_between_types() -> None:
    """Two styles are not stacked, so they may write to the same directions."""
    assert conflicts(INK, [(known("other"), comparison(0.9, overlap=0.9))]) == ()


@pytest.mark.parametrize(
    ("cosine", "effect"), [(0.5, "too strong"), (-0.5, "cancel"), (0.0, "disturbs")]
)
def test_a_conflict_says_what_happens(cosine: float, effect: str) -> None:
    """The sign of the cosine tells whether two LoRAs add up or cancel."""
    (found,) = conflicts(INK, [(known("face", "faces"), comparison(cosine, overlap=0.55))])

    assert "55%" in found.summary
    assert effect in found.summary


def test_a_duplicate_is_a_warning_with_a_link() -> None:
    """W09 warns of what is stored already, and says where and what to do."""
    near = neighbours(INK, [(known("copy"), comparison(0.9999)), (known("far"), comparison(0.5))])
    found = duplicates_finding(near, (), compared=12)

    assert (found.id, found.result, found.required) == ("W09", Result.WARN, False)
    assert found.links == ("styles/copy.safetensors",)
    assert "styles/copy.safetensors" in found.advice
    assert "12 stored LoRAs searched" in found.summary


def test_relatives_and_conflicts_are_information() -> None:
    """An earlier version, or a stack that conflicts, is told without a warning."""
    near = neighbours(INK, [(known("epoch"), comparison(0.8))])
    fights = conflicts(INK, [(known("face", "faces"), comparison(0.1, overlap=0.5))])
    found = duplicates_finding(near, fights, compared=2)

    assert found.result is Result.INFO
    assert found.links == ("styles/epoch.safetensors", "faces/face.safetensors")
    assert "overlap 50%" in found.summary
    assert found.advice


def test_nothing_near_passes() -> None:
    """A LoRA like no other passes, and so does the first one of a library."""
    assert duplicates_finding((), (), compared=1).summary == (
        "Nothing is similar; 1 stored LoRA searched."
    )
    assert duplicates_finding((), (), compared=0).result is Result.PASS


def test_a_copy_is_named_where_nothing_else_is_stored() -> None:
    """Copies are found by their digests, without a search: the summary tells why it warns."""
    near = neighbours(INK, [], [(known("copy"), "same bytes")])
    found = duplicates_finding(near, (), compared=0)

    assert found.result is Result.WARN
    assert "styles/copy.safetensors is the same file" in found.summary


def test_many_duplicates_stay_readable() -> None:
    """A hundred copies make one sentence and a few links."""
    beside = [(known(f"copy{at}"), comparison(0.9995)) for at in range(100)]
    found = duplicates_finding(neighbours(INK, beside), (), compared=100)

    assert len(found.links) == MOST_LINKS
    assert "97 more are related" in found.summary
    assert len(found.summary) < 400
