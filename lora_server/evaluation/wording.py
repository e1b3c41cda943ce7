"""How numbers and names of a report are shown to people, on the page and in a terminal."""

import unicodedata
from datetime import UTC, datetime

MISSING = "\N{EN DASH}"
# They shape words of several scripts, and hide nothing.
_JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"
_MARKS_IN_A_ROW = 4
_TINY_SHARE = 0.0005
_FULL_SHARE = 0.9995
_PLAIN = (1e-3, 1e6)  # between these a number needs no exponent
_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_STEP = 1000
_LARGE = ((10**9, "billion"), (10**6, "million"))
_SURE_CHARS = 4096  # a longer text is cut before its characters are looked at


def printable(text: str) -> str:
    r"""Return `text` without anything that steers instead of showing, each as an escape like \x1b.

    Control and format characters (terminal sequences, changes of writing direction), line ends,
    surrogates and unassigned characters are escaped, and so are heaps of combining marks.
    """
    if text.isascii() and text.isprintable():
        return text
    shown: list[str] = []
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.combining(character) else 0
        harmless = _shows(character) and marks <= _MARKS_IN_A_ROW
        shown.append(character if harmless else character.encode("unicode_escape").decode())
    return "".join(shown)


def shortened(text: str, width: int) -> str:
    """Return `text` printable and in at most `width` characters, without its middle if need be."""
    half = _SURE_CHARS // 2
    clean = printable(text if len(text) <= _SURE_CHARS else text[:half] + text[-half:])
    if len(clean) <= width and len(text) <= _SURE_CHARS:
        return clean
    head = (width - 1) // 2
    return f"{clean[:head]}…{clean[len(clean) - (width - 1 - head) :]}"


def number(value: float | None) -> str:
    """Return a number to three significant digits, a dash where there is none."""
    if value is None:
        return MISSING
    if value == 0:
        return "0"
    if not _PLAIN[0] <= abs(value) < _PLAIN[1]:
        return f"{value:.1e}"
    if abs(value) >= _STEP or value == int(value):
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")


def count(value: int) -> str:
    """Return how many there are, large numbers in words."""
    for size, name in _LARGE:
        if value >= size:
            return f"{value / size:.3g} {name}"
    return f"{value:,}"


def percent(share: float | None) -> str:
    """Return a share of 1 as a percentage that says neither 0 nor 100 of what is not."""
    if share is None:
        return MISSING
    if 0 < share < _TINY_SHARE:
        return "<0.1 %"
    if _FULL_SHARE <= share < 1:
        return ">99.9 %"
    return f"{share:.0%}".replace("%", " %") if share in {0, 1} else f"{share * 100:.1f} %"


def file_size(count: int) -> str:
    """Return bytes in decimal units, as shops and file managers count them."""
    size, unit = float(count), _UNITS[0]
    for unit in _UNITS:  # noqa: B007 - the last one is used below
        if abs(size) < _STEP:
            break
        size /= _STEP
    else:
        size *= _STEP
    return f"{size:,.0f} {unit}" if unit == _UNITS[0] else f"{size:.3g} {unit}"


def moment(created_at: str) -> str:
    """Return a time of a report for people; whatever else it is, as it is."""
    try:
        parsed = datetime.fromisoformat(created_at).astimezone(UTC)
    except (ValueError, OverflowError):
        return created_at
    return f"{parsed.day} {parsed:%B %Y, %H:%M} UTC"


def _shows(character: str) -> bool:
    if character.isprintable() or character in _JOINERS:
        return True
    return unicodedata.category(character) == "Zs"  # spaces of every width
