"""The SQLite database under the catalogue: how it is connected to, and its tables made."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, Executable, RowMapping, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from lora_server.catalog.tables import SCHEMA_VERSION, metadata
from lora_server.errors import CatalogUnusable, ConfigInvalid, StorageFull
from lora_server.uninterrupted import uninterrupted

_BUSY_TIMEOUT_S = 5


class Database:
    """One database; every call is one transaction, and is never left half-way by a cancellation.

    Raises:
        CatalogUnusable: from any call, when the database cannot be read or written.
        StorageFull: from any call, when its disk is full.

    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._turn = asyncio.Lock()  # SQLite has one writer; wait here, not in a busy loop

    @classmethod
    @asynccontextmanager
    async def opened(cls, path: Path) -> AsyncIterator["Database"]:
        """Connect, and make the tables of a new database.

        Raises:
            ConfigInvalid: it cannot be read, or was written by another version.

        """
        url = URL.create("sqlite+aiosqlite", database=str(path))
        engine = create_async_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_S})
        event.listen(engine.sync_engine, "connect", _prepare)
        event.listen(engine.sync_engine, "begin", _begin)
        database = cls(engine)
        try:
            try:
                await uninterrupted(database._make_tables())
            except (CatalogUnusable, StorageFull) as error:
                raise ConfigInvalid(f"storage.state_dir: {path}: {error.why}") from error
            yield database
        finally:
            await uninterrupted(engine.dispose())

    async def read(self, *statements: Executable) -> list[Sequence[RowMapping]]:
        """Return the rows of each statement, all of one state of the database."""
        return await uninterrupted(self._run(statements))

    async def write(self, *statements: Executable) -> list[Sequence[RowMapping]]:
        """Run the statements as one transaction, durable on return; returns their rows."""
        return await uninterrupted(self._write(statements))

    async def _write(self, statements: Sequence[Executable]) -> list[Sequence[RowMapping]]:
        async with self._turn:
            return await self._run(statements)

    async def _run(self, statements: Sequence[Executable]) -> list[Sequence[RowMapping]]:
        with _database_errors():
            async with self._engine.begin() as connection:
                return [await _rows(connection, statement) for statement in statements]

    async def _make_tables(self) -> None:
        with _database_errors():
            async with self._engine.begin() as connection:
                version = (await connection.exec_driver_sql("PRAGMA user_version")).scalar_one()
                if version not in (0, SCHEMA_VERSION):  # 0 is a database that was just made
                    raise CatalogUnusable(
                        f"this catalogue is of version {version}, and this lora-server reads "
                        f"version {SCHEMA_VERSION}; run the one that wrote it, or move the file "
                        "away and what the files tell is listed anew"
                    )
                await connection.run_sync(metadata.create_all)
                await connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")


async def _rows(connection: AsyncConnection, statement: Executable) -> Sequence[RowMapping]:
    result = await connection.execute(statement)
    return result.mappings().all() if result.returns_rows else ()


@contextmanager
def _database_errors() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        full = getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        raise (StorageFull if full else CatalogUnusable)(str(error.orig)) from error
    except NoConnectionFree as error:
        raise CatalogUnusable(str(error)) from error


def _prepare(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    # The driver would begin transactions late, and none for a SELECT or a CREATE TABLE; with
    # this off, SQLAlchemy says when (`_begin`).
    connection.isolation_level = None
    # A 200 promises durability, so every commit is synced; WAL: readers never wait for writers.
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
