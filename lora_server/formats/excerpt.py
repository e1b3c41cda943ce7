"""How a client's own text may appear in a message."""

EXCERPT_CHARS = 80


def excerpt(text: str | bytes) -> str:
    """Return `text` quoted and escaped to ASCII, in at most `EXCERPT_CHARS` characters."""
    if isinstance(text, bytes):
        text = text[: EXCERPT_CHARS + 1].decode("latin-1")
    shown = ascii(text[:EXCERPT_CHARS])
    whole = len(text) <= EXCERPT_CHARS and len(shown) <= EXCERPT_CHARS
    return shown if whole else shown[: EXCERPT_CHARS - 3] + "..."
