"""The digests that a file claims of itself; trainers define them differently, so none is proof."""

from collections.abc import Iterator, Mapping

from lora_server.inspection import metadata as meta
from lora_server.inspection.record import HashClaim

# Each key with the hex digits that its definition gives.
_KEYS = {"sshs_model_hash": 64, "sshs_legacy_hash": 8, "modelspec.hash_sha256": 64}
_EMPTY_INPUT = "e3b0c442"
_HEX = frozenset("0123456789abcdef")
_SHOWN_CHARS = 80


def hash_claims(metadata: Mapping[str, str]) -> tuple[HashClaim, ...]:
    """Return every claimed digest, normalised, with the reason why some cannot be valid."""
    return tuple(_claims(metadata))


def _claims(metadata: Mapping[str, str]) -> Iterator[HashClaim]:
    for key, digits in _KEYS.items():
        value = meta.said(metadata, key).lower().removeprefix("0x")
        if value:
            reason = _fault(value, digits)
            yield HashClaim(key, value[:_SHOWN_CHARS], not reason, reason)


def _fault(value: str, digits: int) -> str:
    if not _HEX.issuperset(value):
        return "not hexadecimal"
    if len(value) != digits:
        return f"{len(value)} digits instead of {digits}"
    return "the hash of empty input" if value.startswith(_EMPTY_INPUT) else ""
