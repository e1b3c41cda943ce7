"""How facts are put for people: sizes, ages, and text that others wrote."""

from datetime import UTC, datetime

_UNITS = (("y", 365 * 86400), ("d", 86400), ("h", 3600), ("min", 60))
_BIG = 10  # from here on, decimals say nothing
_THOUSAND = 1000


def plain(text: str) -> str:
    """Return text that a terminal can only print: no escape sequence, no line break."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def size(nbytes: int) -> str:
    """Return a size as disks and networks are sold, in powers of a thousand."""
    value, unit = float(nbytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < _THOUSAND:
            break
        value, unit = value / _THOUSAND, larger
    return f"{value:.0f} {unit}" if value >= _BIG or unit == "B" else f"{value:.1f} {unit}"


def age(moment: datetime, now: datetime | None = None) -> str:
    """Return how long ago something was, in its largest unit."""
    return duration(((now or datetime.now(UTC)) - moment).total_seconds())


def duration(seconds: float) -> str:
    """Return a length of time in its largest unit."""
    for unit, length in _UNITS:
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
