"""How numbers and names are shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_server.evaluation.wording import (
    count,
    file_size,
    moment,
    number,
    percent,
    printable,
    shortened,
)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "\N{EN DASH}"),
        (0.0, "0"),
        (64, "64"),
        (64.0, "64"),
        (6.8512, "6.85"),
        (10.04, "10.0"),
        (123.4, "123"),
        (0.05, "0.0500"),
        (-1.5, "-1.50"),
        (99_900, "99,900"),
        (0.000123, "1.2e-04"),
        (1.5e300, "1.5e+300"),
    ],
)
def test_numbers_have_three_digits(value: float | None, shown: str) -> None:
    """Enough to compare, few enough to read."""
    assert number(value) == shown


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (None, "\N{EN DASH}"),
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.994, "99.4 %"),
        (0.99996, ">99.9 %"),
        (0.00001, "<0.1 %"),
        (0.005, "0.5 %"),
    ],
)
def test_percentages_do_not_round_to_nothing_or_all(share: float | None, shown: str) -> None:
    """Only nothing is 0 %, and only all is 100 %."""
    assert percent(share) == shown


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 bytes"), (999, "999 bytes"), (291_876_543, "292 MB"), (1_500, "1.5 kB")],
)
def test_sizes_are_decimal(size: int, shown: str) -> None:
    """As file managers and network meters count."""
    assert file_size(size) == shown


def test_large_counts_are_words() -> None:
    """Nobody counts digits."""
    assert [count(n) for n in (722, 99_900, 12_800_000)] == ["722", "99,900", "12.8 million"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2026-03-14T09:26:53Z", "14 March 2026, 09:26 UTC"),
        ("yesterday", "yesterday"),
        ("0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00+14:00"),
    ],
)
def test_times_are_shown_for_people(text: str, shown: str) -> None:
    """What is no time stays as it is."""
    assert moment(text) == shown


@given(st.text(st.characters(), max_size=40), st.integers(5, 40))
def test_whatever_a_name_holds_its_form_is_harmless(text: str, width: int) -> None:
    """Escaped once it stays as it is, fits its width, and holds no control character."""
    shown = shortened(text, width)

    assert len(shown) <= width
    assert printable(shown) == shown
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in shown)  # C0, DEL, C1


@pytest.mark.parametrize(
    "text", ["lora_unet_down", "墨絵 スタイル", "naïve 🖌️", "می‌خواهم", "Việt ŉ", "שלום"]
)
def test_names_of_all_scripts_are_left_alone(text: str) -> None:
    """Joiners and variation selectors shape words and pictures; they hide nothing."""
    assert printable(text) == text


def test_a_name_loses_its_middle_and_keeps_its_ends() -> None:
    """The end tells modules of one block apart."""
    name = "lora_unet_" + "block_" * 30 + "to_out_0"

    assert shortened(name, 30).startswith("lora_unet_")
    assert shortened(name, 30).endswith("_to_out_0")
    assert len(shortened("x" * 10**7, 30)) == 30
