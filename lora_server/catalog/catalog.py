"""The catalogue's operations; each is one durable transaction."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, bindparam, delete, insert, select, update

from lora_server.catalog.database import Database
from lora_server.catalog.selection import (
    Page,
    Selection,
    count_query,
    has_content,
    page_query,
)
from lora_server.catalog.tables import (
    as_known,
    at,
    bound_for,
    location_of,
    loras,
    move_of,
    record_of,
    row_of,
    standing_at,
)
from lora_server.errors import CatalogUnusable
from lora_server.moves import Move
from lora_server.records import FileFacts, Location, Override, Place, Source, StoredLora


class Catalog:
    """All that is known of the files; made by `opened`.

    Raises:
        CatalogUnusable: from any operation, when the database cannot be read or written.

    """

    def __init__(self, database: Database) -> None:
        self._database = database

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
        query = select(*loras.c).where(loras.c.place == Place.MODELS, has_content(sha256))
        async with self._database.reading() as connection:
            rows = await connection.execute(query.order_by(loras.c.id))
            return [record_of(row) for row in rows.mappings()]

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
        async with self._database.reading() as connection:
            count = (await connection.execute(count_query(selection))).scalar_one()
            rows = await connection.execute(page_query(selection))
            return Page(tuple(record_of(row) for row in rows.mappings()), count)

    async def known_files(self) -> dict[Location, StoredLora]:
        """Return what is known of every file outside staging, by its place."""
        query = select(*loras.c).where(loras.c.place != Place.STAGING)
        async with self._database.reading() as connection:
            records = map(record_of, (await connection.execute(query)).mappings())
            return {lora.location: lora for lora in records}

    async def unfinished(self) -> Sequence[Move]:
        """Return the moves that were begun and neither finished nor withdrawn."""
        query = select(*loras.c).where(loras.c.next_place.is_not(None)).order_by(loras.c.id)
        async with self._database.reading() as connection:
            return [move_of(row) for row in (await connection.execute(query)).mappings()]

    async def expired(self, deleted_before: int) -> Sequence[Location]:
        """Return where the files stand that went to the bin before a moment."""
        query = select(*loras.c).where(
            loras.c.place == Place.BIN, loras.c.deleted_at < deleted_before
        )
        async with self._database.reading() as connection:
            return [location_of(row) for row in (await connection.execute(query)).mappings()]

    async def begin_upload(self, lora: StoredLora, target: Location) -> int:
        """Write the row of a staged file that is about to be published; returns its id."""
        row = row_of(lora) | bound_for(target)
        async with self._database.writing() as connection:
            insertion = insert(loras).values(**row).returning(loras.c.id)
            row_id: int = (await connection.execute(insertion)).scalar_one()
        return row_id

    async def add_found(self, lora: StoredLora) -> None:
        """Write the row of a file that was put there by hand."""
        async with self._database.writing() as connection:
            await connection.execute(insert(loras).values(**row_of(lora)))

    async def begin_move(
        self, lora_id: int, target: Location, *, deleted_by: str | None = None
    ) -> None:
        """Note where a file is about to be moved, and by whom if that deletes it."""
        await self._update(lora_id, **bound_for(target, deleted_by))

    async def finish_move(self, lora_id: int, target: Location, **changes: Any) -> StoredLora:
        """Note that a file stands at `target` now, with what else changed by that.

        Another row that claims the place is dropped: its file went away and nobody noticed yet.
        """
        stale = delete(loras).where(*_is_at(target), loras.c.id != lora_id)
        arrival = update(loras).where(loras.c.id == lora_id)
        arrival = arrival.values(**standing_at(target), **changes)
        async with self._database.writing() as connection:
            await connection.execute(stale)
            rows = await connection.execute(arrival.returning(*loras.c))
            if (row := rows.mappings().first()) is None:
                raise CatalogUnusable(f"row {lora_id} vanished while its file was moved")
            return record_of(row)

    async def withdraw_move(self, lora_id: int) -> None:
        """Note that a file stayed where it was."""
        await self._update(lora_id, **bound_for(None))

    async def set_facts(self, lora_id: int, facts: FileFacts) -> None:
        """Note that a file was touched or put back by hand with the same bytes."""
        await self._update(lora_id, **as_known(facts))

    async def set_content(self, lora_id: int, sha256: str, facts: FileFacts) -> None:
        """Note that a file was changed by hand; what was found out about it no longer holds."""
        await self._update(
            lora_id,
            **as_known(facts),
            sha256=sha256,
            uploaded_sha256=sha256,
            uploaded_size=facts.size,
            source=Source.FOUND,
            inspection=None,
            verdict=None,
            adapter=None,
            base_model=None,
        )

    async def set_inspection(
        self,
        lora_id: int,
        *,
        inspection: Mapping[str, Any] | None,
        verdict: str,
        adapter: str | None,
        base_model: str | None,
    ) -> None:
        """Note what was found out about a file."""
        await self._update(
            lora_id,
            inspection=json.dumps(inspection) if inspection is not None else None,
            verdict=verdict,
            adapter=adapter,
            base_model=base_model,
        )

    async def set_override(self, lora_id: int, override: Override) -> StoredLora | None:
        """Note what an admin says; filters see it instead of what was detected."""
        told = {key: value for key, value in asdict(override).items() if value is not None}
        return await self._update(
            lora_id, override=json.dumps(told), override_base_model=override.base_model
        )

    async def forget(self, *lora_ids: int) -> None:
        """Drop rows whose files are gone."""
        if lora_ids:
            forgetting = delete(loras).where(loras.c.id == bindparam("gone"))
            async with self._database.writing() as connection:
                await connection.execute(forgetting, [{"gone": lora_id} for lora_id in lora_ids])

    async def check(self) -> None:
        """Read from the database for real."""
        async with self._database.reading() as connection:
            await connection.execute(select(loras.c.id).limit(1))

    async def _first(self, *conditions: ColumnElement[bool]) -> StoredLora | None:
        query = select(*loras.c).where(*conditions).order_by(loras.c.id).limit(1)
        async with self._database.reading() as connection:
            row = (await connection.execute(query)).mappings().first()
        return record_of(row) if row else None

    async def _update(self, lora_id: int, **changes: Any) -> StoredLora | None:
        statement = update(loras).where(loras.c.id == lora_id).values(**changes)
        async with self._database.writing() as connection:
            rows = await connection.execute(statement.returning(*loras.c))
            row = rows.mappings().first()
            return record_of(row) if row else None


def _is_at(location: Location) -> tuple[ColumnElement[bool], ...]:
    return tuple(loras.c[column] == value for column, value in at(location).items())
