"""The catalogue's operations; each is one durable transaction."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import Boolean, ColumnElement, delete, insert, literal_column, select, update

from lora_server.catalog.database import Database
from lora_server.catalog.evaluations import EvaluationCatalog
from lora_server.catalog.measurements import MeasurementCatalog
from lora_server.catalog.selection import (
    Page,
    Selection,
    count_query,
    has_content,
    page_query,
)
from lora_server.catalog.tables import (
    LISTED,
    UNREAD_TENSORS,
    as_known,
    at,
    bound_for,
    judged,
    location_of,
    loras,
    move_of,
    record_of,
    row_of,
    standing_at,
)
from lora_server.errors import CatalogUnusable
from lora_server.moves import Move
from lora_server.records import (
    FileFacts,
    Judgement,
    Location,
    Override,
    Place,
    Source,
    StoredLora,
)

_BATCH = 500  # ids in one statement; SQLite allows 32,766 variables


class Catalog:
    """All that is known of the files; made by `opened`.

    Raises:
        CatalogUnusable: from any operation, when the database cannot be read or written.
        StorageFull: from any operation, when its disk is full.

    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.evaluations = EvaluationCatalog(database)
        self.measurements = MeasurementCatalog(database)

    @classmethod
    @asynccontextmanager
    async def opened(cls, path: Path) -> AsyncIterator["Catalog"]:
        """Open the database, making it when it is missing.

        Raises:
            ConfigInvalid: it cannot be read, or was written by another version.

        """
        async with Database.opened(path) as database:
            yield cls(database)

    async def find(self, location: Location) -> StoredLora | None:
        """Return what is known of the file at a location."""
        return await self._first(*_is_at(location))

    async def find_content(self, sha256: str) -> Sequence[StoredLora]:
        """Return the files in the models tree that hold these bytes, oldest first."""
        return await self._live(has_content(sha256))

    async def find_tensors(self, tensors_sha256: str) -> Sequence[StoredLora]:
        """Return the files in the models tree with this tensor section, oldest first."""
        return await self._live(loras.c.tensors_sha256 == tensors_sha256)

    async def find_upload(
        self, uploaded_by: str, entity_type: str, filename: str, sha256: str
    ) -> StoredLora | None:
        """Return the live result of an earlier, equal upload."""
        return await self._first(
            loras.c.place == Place.MODELS,
            loras.c.uploaded_by == uploaded_by,
            loras.c.entity_type == entity_type,
            loras.c.filename == filename,
            loras.c.uploaded_sha256 == sha256,
        )

    async def page(self, selection: Selection) -> Page:
        """Return one page of a listing and the number of all matches."""
        counted, rows = await self._database.read(count_query(selection), page_query(selection))
        return Page(tuple(map(record_of, rows)), counted[0]["matches"])

    async def known_files(self) -> dict[Location, StoredLora]:
        """Return what is known of every file outside staging, by its place."""
        (rows,) = await self._database.read(select(*LISTED).where(loras.c.place != Place.STAGING))
        return {lora.location: lora for lora in map(record_of, rows)}

    async def next_unread_tensors(self, after_id: int) -> StoredLora | None:
        """Return the next file whose tensor section has not been hashed, by its row's id."""
        return await self._first(literal_column(UNREAD_TENSORS, Boolean), loras.c.id > after_id)

    async def unfinished(self) -> Sequence[Move]:
        """Return the moves that were begun and neither finished nor withdrawn."""
        query = select(*loras.c).where(loras.c.next_place.is_not(None)).order_by(loras.c.id)
        (rows,) = await self._database.read(query)
        return [move_of(row) for row in rows]

    async def expired(self, deleted_before: int) -> Sequence[Location]:
        """Return where the files stand that went to the bin before a moment."""
        in_bin = select(*LISTED).where(loras.c.place == Place.BIN)
        (rows,) = await self._database.read(in_bin.where(loras.c.deleted_at < deleted_before))
        return [location_of(row) for row in rows]

    async def begin_upload(self, lora: StoredLora, target: Location) -> int:
        """Write the row of a staged file that is about to be published; returns its id."""
        row = row_of(lora) | bound_for(target)
        (rows,) = await self._database.write(insert(loras).values(**row).returning(loras.c.id))
        return int(rows[0]["id"])

    async def add_found(self, lora: StoredLora) -> None:
        """Write the row of a file that was put there by hand."""
        await self._database.write(insert(loras).values(**row_of(lora)))

    async def begin_move(
        self, lora_id: int, target: Location, *, deleted_by: str | None = None
    ) -> None:
        """Note where a file is about to be moved, and by whom if that deletes it."""
        await self._update(lora_id, **bound_for(target, deleted_by))

    async def finish_move(self, lora_id: int, target: Location, **changes: Any) -> StoredLora:
        """Note that a file stands at `target` now, with what else changed by that.

        Another row that claims the place is dropped: its file went away and nobody noticed yet.
        """
        moved = select(loras.c.id).where(loras.c.id == lora_id).exists()
        stale = delete(loras).where(*_is_at(target), loras.c.id != lora_id, moved)
        arrival = update(loras).where(loras.c.id == lora_id)
        arrival = arrival.values(**standing_at(target), **changes)
        _, rows = await self._database.write(stale, arrival.returning(*loras.c))
        if not rows:
            raise CatalogUnusable(f"row {lora_id} vanished while its file was moved")
        return record_of(rows[0])

    async def withdraw_move(self, lora_id: int) -> None:
        """Note that a file stayed where it was."""
        await self._update(lora_id, **bound_for(None))

    async def set_facts(self, lora_id: int, facts: FileFacts) -> None:
        """Note that a file was touched or put back by hand with the same bytes."""
        await self._update(lora_id, **as_known(facts))

    async def set_content(
        self, lora_id: int, sha256: str, facts: FileFacts, judgement: Judgement
    ) -> None:
        """Note that a file was changed by hand, and what it is now."""
        await self._update(
            lora_id,
            **as_known(facts),
            **judged(judgement),
            sha256=sha256,
            uploaded_sha256=sha256,
            uploaded_size=facts.size,
            tensors_sha256=None,
            source=Source.FOUND,
        )

    async def set_judgements(self, judgements: Mapping[int, Judgement]) -> None:
        """Note what was found out about files, by the ids of their rows."""
        await self._database.write(
            *(
                update(loras).where(loras.c.id == lora_id).values(**judged(judgement))
                for lora_id, judgement in judgements.items()
            )
        )

    async def set_tensors(self, lora_id: int, tensors_sha256: str) -> None:
        """Note the digest of a file's tensor section."""
        await self._update(lora_id, tensors_sha256=tensors_sha256)

    async def set_override(self, lora_id: int, override: Override) -> StoredLora | None:
        """Note what an admin says; filters see it instead of what was detected."""
        told = {key: value for key, value in asdict(override).items() if value is not None}
        return await self._update(
            lora_id, override=json.dumps(told), override_base_model=override.base_model
        )

    async def forget(self, *lora_ids: int) -> None:
        """Drop rows whose files are gone."""
        batches = (lora_ids[at : at + _BATCH] for at in range(0, len(lora_ids), _BATCH))
        await self._database.write(*(delete(loras).where(loras.c.id.in_(ids)) for ids in batches))

    async def check(self) -> None:
        """Read from the database for real."""
        await self._database.read(select(loras.c.id).limit(1))

    async def _first(self, *conditions: ColumnElement[bool]) -> StoredLora | None:
        query = select(*loras.c).where(*conditions).order_by(loras.c.id).limit(1)
        (rows,) = await self._database.read(query)
        return record_of(rows[0]) if rows else None

    async def _live(self, condition: ColumnElement[bool]) -> Sequence[StoredLora]:
        query = select(*LISTED).where(loras.c.place == Place.MODELS, condition)
        (rows,) = await self._database.read(query.order_by(loras.c.id))
        return [record_of(row) for row in rows]

    async def _update(self, lora_id: int, **changes: Any) -> StoredLora | None:
        statement = update(loras).where(loras.c.id == lora_id).values(**changes)
        (rows,) = await self._database.write(statement.returning(*loras.c))
        return record_of(rows[0]) if rows else None


def _is_at(location: Location) -> tuple[ColumnElement[bool], ...]:
    return tuple(loras.c[column] == value for column, value in at(location).items())
