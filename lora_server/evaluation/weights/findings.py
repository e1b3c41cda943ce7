"""Findings in short: the ones that have no more to say than a sentence, and names to show."""

from collections.abc import Iterable
from itertools import islice

from lora_server.evaluation.report import Finding, Result
from lora_server.inspection.metadata import text

MAX_NAMED = 20
PATH_CHARS = 300


def plain(
    check: str, name: str, summary: str, *, result: Result = Result.PASS, required: bool = False
) -> Finding:
    """Return a finding that asks for nothing."""
    return Finding(check, name, result, required, summary)


def named(paths: Iterable[str]) -> tuple[str, ...]:
    """Return the first paths, fit to be shown."""
    return tuple(text(path, max_chars=PATH_CHARS) for path in islice(paths, MAX_NAMED))
