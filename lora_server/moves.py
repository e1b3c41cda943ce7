"""A file on its way between two places, and what its arrival changes."""

from dataclasses import dataclass
from typing import Any

from lora_server.records import Location, Place, StoredLora


@dataclass(frozen=True, slots=True)
class Move:
    """A file on its way, by a rename that may or may not have happened yet."""

    lora: StoredLora
    target: Location
    deleted_by: str | None = None

    def arrival(self, now: int) -> dict[str, Any]:
        """Return what changes besides the place, also when the move was made by hand."""
        if self.target.place is not Place.BIN:
            return {"home_name": self.target.name, "deleted_at": None, "deleted_by": None}
        if self.lora.location.place is Place.BIN:
            return {}  # it is deleted already
        return {"deleted_at": now, "deleted_by": self.deleted_by}  # its home name stays
