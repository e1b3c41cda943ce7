"""The catalogue's operations; each is one durable transaction."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, delete, event, insert, select, update
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from lora_server.catalog.selection import (
    Page,
    Selection,
    count_query,
    has_content,
    page_query,
)
from lora_server.catalog.tables import (
    SCHEMA_VERSION,
    as_known,
    at,
    bound_for,
    location_of,
    loras,
    metadata,
    next_location_of,
    record_of,
    searchable,
)
from lora_server.errors import CatalogUnusable
from lora_server.records import FileFacts, Location, Override, Place, Source, StoredLora

_BUSY_TIMEOUT_S = 5


class Catalog:
    """All that is known of the files; made by `opened`.

    Raises:
        CatalogUnusable: from any operation, when the database cannot be read or written.

    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._writing = asyncio.Lock()  # SQLite has one writer; wait here, not in a busy loop

    @classmethod
    @asynccontextmanager
    async def opened(cls, path: Path) -> AsyncIterator["Catalog"]:
        """Open the database, making it when it is missing or of another version."""
        engine = create_async_engine(
            f"sqlite+aiosqlite:///{path}", connect_args={"timeout": _BUSY_TIMEOUT_S}
        )
        event.listen(engine.sync_engine, "connect", _set_pragmas)
        try:
            catalog = cls(engine)
            await catalog._make_tables()
            yield catalog
        finally:
            await engine.dispose()

    async def find(self, location: Location) -> StoredLora | None:
        """Return what is known of the file at a location."""
        return await self._first(*_is_at(location))

    async def find_content(self, sha256: str) -> Sequence[StoredLora]:
        """Return the files in the models tree that hold these bytes, oldest first."""
        query = select(*loras.c).where(loras.c.place == Place.MODELS, has_content(sha256))
        async with self._reading() as connection:
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
        async with self._reading() as connection:
            count = (await connection.execute(count_query(selection))).scalar_one()
            rows = await connection.execute(page_query(selection))
            return Page(tuple(record_of(row) for row in rows.mappings()), count)

    async def known_files(self) -> dict[Location, tuple[int, FileFacts]]:
        """Return id and last known facts of every file outside staging."""
        columns = (loras.c.id, loras.c.place, loras.c.entity_type, loras.c.name)
        query = select(*columns, loras.c.size, loras.c.mtime_ns, loras.c.inode)
        async with self._reading() as connection:
            rows = await connection.execute(query.where(loras.c.place != Place.STAGING))
            return {
                Location(Place(place), entity_type, name): (row_id, FileFacts(*facts))
                for row_id, place, entity_type, name, *facts in rows
            }

    async def unfinished(self) -> Sequence[tuple[StoredLora, Location]]:
        """Return the moves that were begun and neither finished nor withdrawn."""
        async with self._reading() as connection:
            rows = await connection.execute(select(*loras.c).where(loras.c.next_place.is_not(None)))
            moves = [(record_of(row), next_location_of(row)) for row in rows.mappings()]
        return [(lora, target) for lora, target in moves if target]

    async def expired(self, deleted_before: int) -> Sequence[Location]:
        """Return where the files stand that went to the bin before a moment."""
        query = select(*loras.c).where(
            loras.c.place == Place.BIN, loras.c.deleted_at < deleted_before
        )
        async with self._reading() as connection:
            return [location_of(row) for row in (await connection.execute(query)).mappings()]

    async def begin_upload(self, lora: StoredLora, target: Location) -> int:
        """Write the row of a staged file that is about to be published; returns its id."""
        row = _row_of(lora) | bound_for(target)
        async with self._write() as connection:
            insertion = insert(loras).values(**row).returning(loras.c.id)
            row_id: int = (await connection.execute(insertion)).scalar_one()
        return row_id

    async def add_found(self, lora: StoredLora) -> None:
        """Write the row of a file that was put there by hand."""
        async with self._write() as connection:
            await connection.execute(insert(loras).values(**_row_of(lora)))

    async def begin_move(self, lora_id: int, target: Location) -> None:
        """Note where a file is about to be moved."""
        await self._update(lora_id, **bound_for(target))

    async def finish_move(self, lora_id: int, target: Location, **changes: Any) -> StoredLora:
        """Note that a file stands at `target` now, with what else changed by that."""
        await self._update(lora_id, **at(target), **bound_for(None), **changes)
        found = await self._first(loras.c.id == lora_id)
        if found is None:
            raise CatalogUnusable(f"row {lora_id} vanished while its file was moved")
        return found

    async def withdraw_move(self, lora_id: int) -> None:
        """Note that a file stayed where it was."""
        await self._update(lora_id, **bound_for(None))

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

    async def set_override(self, lora_id: int, override: Override) -> None:
        """Note what an admin says; filters see it instead of what was detected."""
        told = {key: value for key, value in asdict(override).items() if value is not None}
        await self._update(
            lora_id, override=json.dumps(told), override_base_model=override.base_model
        )

    async def forget(self, lora_id: int) -> None:
        """Drop a row whose file is gone."""
        async with self._write() as connection:
            await connection.execute(delete(loras).where(loras.c.id == lora_id))

    async def check(self) -> None:
        """Read from the database for real."""
        async with self._reading() as connection:
            await connection.execute(select(loras.c.id).limit(1))

    async def _first(self, *conditions: ColumnElement[bool]) -> StoredLora | None:
        query = select(*loras.c).where(*conditions).order_by(loras.c.id).limit(1)
        async with self._reading() as connection:
            row = (await connection.execute(query)).mappings().first()
        return record_of(row) if row else None

    async def _update(self, lora_id: int, **changes: Any) -> None:
        async with self._write() as connection:
            await connection.execute(update(loras).where(loras.c.id == lora_id).values(**changes))

    async def _make_tables(self) -> None:
        async with self._write() as connection:
            version = (await connection.exec_driver_sql("PRAGMA user_version")).scalar_one()
            if version not in (0, SCHEMA_VERSION):  # 0 is a database that was just made
                raise CatalogUnusable(
                    f"the catalogue is of version {version}, not {SCHEMA_VERSION}"
                )
            await connection.run_sync(metadata.create_all)
            await connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise CatalogUnusable(str(error.orig)) from error

    @asynccontextmanager
    async def _write(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._writing, self._engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            raise CatalogUnusable(str(error.orig)) from error


def _set_pragmas(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    # A 200 promises durability, so every commit is synced; WAL: readers never wait for writers.
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _is_at(location: Location) -> tuple[ColumnElement[bool], ...]:
    return tuple(loras.c[column] == value for column, value in at(location).items())


def _row_of(lora: StoredLora) -> dict[str, Any]:
    return {
        **at(lora.location),
        **as_known(lora.facts),
        "home_name": lora.home_name,
        "filename": lora.filename,
        "search": searchable(lora.filename, lora.home_name),
        "sha256": lora.sha256,
        "uploaded_sha256": lora.uploaded_sha256,
        "uploaded_size": lora.uploaded_size,
        "uploaded_by": lora.uploaded_by,
        "source": lora.source,
        "uploaded_at": lora.uploaded_at,
        "inspection": json.dumps(lora.inspection) if lora.inspection is not None else None,
        "verdict": lora.verdict,
        "deleted_at": lora.deleted_at,
        "deleted_by": lora.deleted_by,
    }
