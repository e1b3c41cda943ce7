"""What the server says, as records; `raw` keeps the whole answer for whoever wants it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lora_server.client.errors import NoServer

Raw = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Lora:
    """A stored LoRA; what is None is not known, or not for this principal to know."""

    raw: Raw
    partial_path: str
    file_size: int  # bytes
    sha256: str | None
    uploaded_at: datetime
    inspection: Raw
    verdict: str | None  # accepted or refused
    evaluation: str | None  # pass, review, fail, inconclusive

    @classmethod
    def of(cls, raw: Raw) -> "Lora":
        """Read one; NoServer where it is none."""
        return cls(
            raw=raw,
            partial_path=_text(raw, "partial_path"),
            file_size=_count(raw, "file_size"),
            sha256=_maybe(raw, "sha256"),
            uploaded_at=_moment(raw, "upload_timestamp"),
            inspection=part(raw, "inspection"),
            verdict=_maybe(raw, "verdict"),
            evaluation=_maybe(raw, "evaluation"),
        )

    @property
    def base_model(self) -> str | None:
        """The base model: what was set by hand, else what was detected."""
        return _maybe(part(self.raw, "overrides"), "base_model") or self._said("base_model", "name")

    @property
    def adapter(self) -> str | None:
        """The adapter's family."""
        return self._said("adapter", "family")

    @property
    def rank(self) -> str | None:
        """The rank, or the range of ranks."""
        return _range(part(self.inspection, "rank") or self._measured("rank"))

    @property
    def alpha(self) -> str | None:
        """The alpha, or the range of alphas; only details tell."""
        return _range(self._measured("alpha"))

    def _said(self, name: str, within: str) -> str | None:
        """Return a word of the short form, which details have within an object."""
        return _maybe(self.inspection, name) or _maybe(part(self.inspection, name), within)

    def _measured(self, name: str) -> Raw:
        return part(part(self.inspection, "adapter"), name)


@dataclass(frozen=True, slots=True)
class Binned:
    """A deleted LoRA that can be restored."""

    raw: Raw
    bin_path: str
    partial_path: str  # where it goes back to
    file_size: int  # bytes
    deleted_at: datetime | None
    deleted_by: str | None
    purge_after: datetime | None

    @classmethod
    def of(cls, raw: Raw) -> "Binned":
        """Read one; NoServer where it is none."""
        return cls(
            raw=raw,
            bin_path=_text(raw, "bin_path"),
            partial_path=_text(raw, "partial_path"),
            file_size=_count(raw, "file_size"),
            deleted_at=_moment(raw, "deleted_at") if raw.get("deleted_at") else None,
            deleted_by=_maybe(raw, "deleted_by"),
            purge_after=_moment(raw, "purge_after") if raw.get("purge_after") else None,
        )


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a deletion did."""

    raw: Raw
    bin_path: str | None

    @classmethod
    def of(cls, raw: Raw) -> "Deleted":
        """Read one."""
        return cls(raw, _maybe(raw, "bin_path"))


@dataclass(frozen=True, slots=True)
class Outlook:
    """What an upload would come to: why it would be refused, if it would."""

    reasons: tuple[Raw, ...]

    @classmethod
    def of(cls, raw: Raw) -> "Outlook":
        """Read one; NoServer where it is none."""
        reasons = raw.get("reasons")
        if not isinstance(reasons, list) or not all(isinstance(item, dict) for item in reasons):
            raise _missing("reasons")
        return cls(tuple(reasons))


@dataclass(frozen=True, slots=True)
class Page:
    """Items of a listing, and how many there are in all."""

    items: tuple[Raw, ...]
    count: int

    @classmethod
    def of(cls, raw: Raw) -> "Page":
        """Read one; NoServer where it is none."""
        items = raw.get("data")
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise _missing("data")
        return cls(tuple(items), _count(raw, "count"))


def _range(spread: Raw) -> str | None:
    bounds = [spread.get(name) for name in ("min", "max")]
    numbers = [f"{bound:g}" for bound in bounds if isinstance(bound, int | float)]
    return "-".join(dict.fromkeys(numbers)) or None


def part(raw: Raw, name: str) -> Raw:
    """Return an object within an answer, an empty one where there is none."""
    value = raw.get(name)
    return value if isinstance(value, dict) else {}


def _text(raw: Raw, name: str) -> str:
    value = raw.get(name)
    if not isinstance(value, str) or not value:
        raise _missing(name)
    return value


def _maybe(raw: Raw, name: str) -> str | None:
    value = raw.get(name)
    return value if isinstance(value, str) else None


def _count(raw: Raw, name: str) -> int:
    value = raw.get(name)
    if not isinstance(value, int):
        raise _missing(name)
    return value


def _moment(raw: Raw, name: str) -> datetime:
    try:
        moment = datetime.fromisoformat(_text(raw, name))
    except ValueError as error:
        raise _missing(name) from error
    if moment.tzinfo is None:
        raise _missing(name)
    return moment


def _missing(name: str) -> NoServer:
    return NoServer(
        f"the server's answer has no usable {name!r}; its version and this client's do not match"
    )
