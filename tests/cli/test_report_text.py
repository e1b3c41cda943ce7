"""The short form of a report in a terminal, in a pipe, and where Unicode has no place."""

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from lora_server.cli.report_text import print_report
from lora_server.evaluation.wording import printable
from tests.evaluation.reports import ALL

REPORTS = sorted(ALL)
ESCAPE = "\x1b"


def printed(name: str, width: int = 80, *, terminal: bool = False, **env: str) -> str:
    """Return what is printed of a report."""
    out = io.StringIO()
    console = Console(
        file=out, width=width, force_terminal=terminal, _environ={"TERM": "xterm", **env}
    )
    print_report(ALL[name](), console)
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 40])
@pytest.mark.parametrize("name", REPORTS)
def test_no_line_is_wider_than_the_terminal(name: str, width: int) -> None:
    """Names that are too long are folded or lose their middle; nothing runs over the edge."""
    assert max(map(cell_len, printed(name, width).splitlines())) <= width


@pytest.mark.parametrize("terminal", [True, False])
def test_names_cannot_steer_the_terminal(terminal: bool) -> None:  # noqa: FBT001 - a parameter
    """Of a hostile report no control character arrives but line ends and our own colours."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", printed("hostile", terminal=terminal))

    assert "\\x1b[31mred" in text
    assert [c for c in text if c != "\n" and printable(c) != c] == []
    assert "[bold red]mark" in text  # what rich would take for markup
    assert "]:smile:" in text


def test_a_terminal_gets_colour() -> None:
    """The verdict is green, yellow or red at a glance."""
    assert f"{ESCAPE}[1;32mPASS" in printed("healthy", terminal=True)
    assert f"{ESCAPE}[1;31mFAIL" in printed("failing", terminal=True)


def test_no_colour_where_none_is_wanted() -> None:
    """A pipe gets plain text, and NO_COLOR is obeyed in a terminal."""
    assert ESCAPE not in printed("failing")
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", printed("failing", terminal=True, NO_COLOR="1"))


@pytest.mark.parametrize("name", REPORTS)
def test_a_terminal_without_unicode_gets_ascii(name: str) -> None:
    """An old locale is no reason to end with an encoding error."""
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding="ascii") as out:
        print_report(ALL[name](), Console(file=out, width=80))
        out.flush()
        text = raw.getvalue().decode("ascii")

    assert ALL[name]().verdict.upper() in text.splitlines()[0]


def test_the_first_lines_say_what_matters() -> None:
    """Verdict and file, headline, and what to do first."""
    first, second, third = printed("failing").splitlines()[:3]

    assert first.split() == ["FAIL", "styles/ink.safetensors"]
    assert second.rstrip() == "Broken: 2 of 78 modules hold NaN or infinity."
    assert third.startswith("First: Do not use this file")


def test_findings_stand_with_their_advice_worst_first() -> None:
    """Each finding has its severity as a word, its modules and an arrow to what to do."""
    text = printed("failing")
    body = text[text.index("Findings") :]

    assert body.index("fail ") < body.index("note ") < body.index("not checked ")
    assert "→ Do not use this file" in body
    assert "lora_unet_mid_block_attentions_0_proj_in" in body
    assert re.search(r"pass +3 checks", body)


def test_the_numbers_that_matter_are_there() -> None:
    """Rank in use, spectrum, energy, the nearest three, and what could not be told."""
    text = printed("healthy")

    assert "Rank 64 is declared, about 6.85 is used" in text
    assert re.search(r"Spectrum +█+▇+▆+▅+▄+▃+", text)
    assert re.search(r"denoiser +99\.7 % █{24}", text)
    assert re.search(r"0\.9300 +same training +styles/ink_v2", text)
    assert "- How images look" in text


@pytest.mark.parametrize("name", ["huge", "hostile"])
def test_the_short_form_stays_short(name: str) -> None:
    """However much a report holds, it scrolls by within a few screens."""
    assert len(printed(name).splitlines()) < 150
