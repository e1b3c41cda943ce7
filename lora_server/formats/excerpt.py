"""How a client's own text may appear in a message."""

EXCERPT_CHARS = 80


def excerpt(text: str) -> str:
    """Return `text` quoted and escaped to ASCII, in at most `EXCERPT_CHARS` characters."""
    shown = ascii(text[:EXCERPT_CHARS])
    whole = len(text) <= EXCERPT_CHARS and len(shown) <= EXCERPT_CHARS
    return shown if whole else shown[: EXCERPT_CHARS - 3] + "..."
