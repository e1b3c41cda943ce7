"""The tables, and how a row becomes a record."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    Column,
    Index,
    Integer,
    MetaData,
    RowMapping,
    String,
    Table,
    text,
)

from lora_server import names
from lora_server.moves import Move
from lora_server.records import (
    FileFacts,
    Judgement,
    Location,
    Override,
    Place,
    Source,
    StoredLora,
    Verdict,
)

SCHEMA_VERSION = 1  # PRAGMA user_version; a database of another version is refused

UNREAD_TENSORS = "tensors_sha256 IS NULL AND data_begin > 0"

metadata = MetaData()

# A row with a next_place is a move in progress: the intent is written before the rename and
# cleared after it, so that a start can tell which of the two a crash has left.
loras = Table(
    "loras",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("place", String, nullable=False),
    Column("entity_type", String, nullable=False),
    Column("name", String, nullable=False),
    Column("next_place", String),
    Column("next_entity_type", String),
    Column("next_name", String),
    Column("next_deleted_by", String),
    Column("home_name", String, nullable=False),
    Column("filename", String, nullable=False),
    Column("name_key", String, nullable=False),
    Column("filename_key", String, nullable=False),
    Column("size", Integer, nullable=False),
    Column("mtime_ns", Integer, nullable=False),
    Column("inode", Integer, nullable=False),
    Column("sha256", String, nullable=False),
    Column("uploaded_sha256", String, nullable=False),
    Column("uploaded_size", Integer, nullable=False),
    Column("uploaded_by", String),
    Column("source", String, nullable=False),
    Column("uploaded_at", Integer, nullable=False),
    Column("tensors_sha256", String),
    Column("verdict", String),
    Column("summary", String),
    Column("inspection", String),
    Column("adapter", String),
    Column("base_model", String),
    Column("data_begin", Integer, nullable=False, server_default="0"),
    Column("override_base_model", String),
    Column("override", String, nullable=False, server_default="{}"),
    Column("deleted_at", Integer),
    Column("deleted_by", String),
)

Index("one_row_per_file", loras.c.place, loras.c.entity_type, loras.c.name, unique=True)
Index("by_sha256", loras.c.sha256)
Index("by_uploaded_sha256", loras.c.uploaded_sha256)
Index("by_tensors", loras.c.tensors_sha256)
Index("unread_tensors", loras.c.id, sqlite_where=text(UNREAD_TENSORS))
Index("by_age", loras.c.place, loras.c.uploaded_at, loras.c.entity_type, loras.c.name)
Index("by_size", loras.c.place, loras.c.size, loras.c.entity_type, loras.c.name)
Index("by_name", loras.c.place, loras.c.name, loras.c.entity_type)
Index("unfinished", loras.c.next_place, sqlite_where=text("next_place IS NOT NULL"))


# What a listing shows; whole inspections are read one at a time.
LISTED = tuple(column for column in loras.c if column.name != "inspection")


def location_of(row: RowMapping) -> Location:
    """Return where a row says that its file stands."""
    return Location(Place(row["place"]), row["entity_type"], row["name"])


def move_of(row: RowMapping) -> Move:
    """Return the move that a row says was begun."""
    target = Location(Place(row["next_place"]), row["next_entity_type"], row["next_name"])
    return Move(record_of(row), target, row["next_deleted_by"])


def record_of(row: RowMapping) -> StoredLora:
    """Turn a row into the record that the rest of the server speaks of."""
    return StoredLora(
        id=row["id"],
        location=location_of(row),
        home_name=row["home_name"],
        filename=row["filename"],
        facts=FileFacts(size=row["size"], mtime_ns=row["mtime_ns"], inode=row["inode"]),
        sha256=row["sha256"],
        uploaded_sha256=row["uploaded_sha256"],
        uploaded_size=row["uploaded_size"],
        uploaded_by=row["uploaded_by"],
        source=Source(row["source"]),
        uploaded_at=row["uploaded_at"],
        judgement=_judgement_of(row),
        tensors_sha256=row["tensors_sha256"],
        override=_override_of(json.loads(row["override"])),
        deleted_at=row["deleted_at"],
        deleted_by=row["deleted_by"],
    )


def _judgement_of(row: RowMapping) -> Judgement | None:
    if row["verdict"] is None:
        return None
    inspection = row.get("inspection")  # listings leave it out
    return Judgement(
        verdict=Verdict(row["verdict"]),
        summary=json.loads(row["summary"]),
        inspection=json.loads(inspection) if inspection else None,
        adapter=row["adapter"],
        base_model=row["base_model"],
        data_begin=row["data_begin"],
    )


def judged(judgement: Judgement | None) -> dict[str, Any]:
    """Return the columns that hold what was found out about a file."""
    if judgement is None:
        unknown = ("verdict", "summary", "inspection", "adapter", "base_model")
        return {**dict.fromkeys(unknown), "data_begin": 0}
    inspection = judgement.inspection
    return {
        "verdict": judgement.verdict,
        "summary": json.dumps(judgement.summary),
        "inspection": None if inspection is None else json.dumps(inspection),
        "adapter": judgement.adapter,
        "base_model": judgement.base_model,
        "data_begin": judgement.data_begin,
    }


def _override_of(data: Mapping[str, Any]) -> Override:
    triggers = data.get("trigger_words")
    return Override(
        base_model=data.get("base_model"),
        trigger_words=None if triggers is None else tuple(triggers),
        notes=data.get("notes"),
    )


def at(location: Location) -> dict[str, str]:
    """Return the columns that say where a file stands."""
    return {
        "place": location.place,
        "entity_type": location.entity_type,
        "name": location.name,
    }


def standing_at(location: Location) -> dict[str, str | None]:
    """Return what is written when a file has come to stand somewhere."""
    return {**at(location), "name_key": names.key(location.name), **bound_for(None)}


def bound_for(location: Location | None, deleted_by: str | None = None) -> dict[str, str | None]:
    """Return the columns that say where a file is on its way to, and who deletes it by that."""
    columns = at(location) if location else dict.fromkeys(("place", "entity_type", "name"))
    heading = {f"next_{column}": value for column, value in columns.items()}
    return {**heading, "next_deleted_by": deleted_by}


def as_known(facts: FileFacts) -> dict[str, int]:
    """Return the columns that tell whether a file changed since it was last looked at."""
    return {"size": facts.size, "mtime_ns": facts.mtime_ns, "inode": facts.inode}


def row_of(lora: StoredLora) -> dict[str, Any]:
    """Turn a record into a row; what is overridden is noted apart."""
    return {
        **standing_at(lora.location),
        **as_known(lora.facts),
        "home_name": lora.home_name,
        "filename": lora.filename,
        "filename_key": names.key(lora.filename),
        "sha256": lora.sha256,
        "uploaded_sha256": lora.uploaded_sha256,
        "uploaded_size": lora.uploaded_size,
        "uploaded_by": lora.uploaded_by,
        "source": lora.source,
        "uploaded_at": lora.uploaded_at,
        **judged(lora.judgement),
        "tensors_sha256": lora.tensors_sha256,
        "deleted_at": lora.deleted_at,
        "deleted_by": lora.deleted_by,
    }
