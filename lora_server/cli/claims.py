"""A token laid out for people: header, claims, and times that can be read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_TIMES = ("iat", "nbf", "exp")
_LATEST = datetime.max.replace(tzinfo=UTC).timestamp() - 1


@dataclass(frozen=True, slots=True)
class Inspected:
    """What a token says, and what the settings say of it: None where no key could judge."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    refusal: str | None
    judged: bool

    @property
    def verdict(self) -> str:
        """One line on whether a server with these settings would take it."""
        if not self.judged:
            return "not judged: no key is configured"
        return f"refused: {self.refusal}" if self.refusal else "valid"

    def as_json(self) -> str:
        """Return the same facts for programs; `valid` is null where no key could judge."""
        valid = self.refusal is None if self.judged else None
        facts = {"header": self.header, "claims": self.claims}
        return json.dumps({**facts, "valid": valid, "reason": self.refusal}, indent=2)


def print_for_people(token: Inspected, now: float) -> None:
    """Print to stdout; whatever the token holds is escaped, as anyone may have written it."""
    table = Table.grid(padding=(0, 2))
    for part, members in (("header", token.header), ("claim", token.claims)):
        for name, value in members.items():
            said = json.dumps(value)
            if name in _TIMES and part == "claim":
                said += _in_words(value, now)
            table.add_row(part, Text(json.dumps(name)[1:-1]), Text(said, overflow="fold"))
    console = Console(highlight=False)
    console.print(table)
    console.print(Text(token.verdict))


def _in_words(value: object, now: float) -> str:
    if not isinstance(value, int | float) or not 0 <= value <= _LATEST:
        return "  (no time)"
    moment = datetime.fromtimestamp(value, UTC)
    away = timedelta(seconds=abs(int(value - now)))
    return f"  {moment:%Y-%m-%dT%H:%M:%SZ}, " + (f"in {away}" if value > now else f"{away} ago")
