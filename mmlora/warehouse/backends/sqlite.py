"""SQLite: one file, with one writer at a time and concurrent readers.

The file is written only with Python's sqlite3: a second SQLite library in the process would corrupt it.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.types import TypeEngine

from mmlora.schema import DOMAIN_ID, ITEM_ID, LOAD_KEY, POSITION, SCORE, SCORE_DATE, USER_ID
from mmlora.warehouse.backends import base
from mmlora.warehouse.backends.base import (
    Backend,
    FaultKind,
    RowWriter,
    alone_by_file,
    excluded,
    rows_as_batches,
)

if TYPE_CHECKING:
    from mmlora.warehouse.database import Database
    from mmlora.warehouse.loads import Load

_TRANSIENT = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
}
_ISO_TEXT = (
    "%(year)04d-%(month)02d-%(day)02dT%(hour)02d:%(minute)02d:%(second)02d.%(microsecond)06d+00:00",
    r"(\d+)-(\d+)-(\d+)T(\d+):(\d+):(\d+)\.(\d+)",
)


class SqliteBackend(Backend):
    """An SQLite file in WAL mode."""

    title = "SQLite"
    example = "sqlite:///path/to/file.db"
    no_table = re.compile(r"no such table: (?:main\.)?(\w+)")

    def accept(self, url: sa.URL) -> sa.URL | None:
        """Accept a file, but not a database in memory."""
        is_file = url.database and url.database != ":memory:"
        return url.set(drivername="sqlite+pysqlite") if is_file else None

    def engine(self, url: sa.URL) -> sa.Engine:
        """See :class:`Backend`."""
        engine = sa.create_engine(url, connect_args={"timeout": base.LOCK_WAIT_SECONDS})
        sa.event.listen(engine, "connect", _prepare)
        sa.event.listen(engine, "begin", _begin)
        return engine

    def file(self, url: sa.URL) -> Path | None:
        """See :class:`Backend`."""
        return Path(url.database or "")

    def alone(self, engine: sa.Engine, name: str) -> AbstractContextManager[None]:
        """See :class:`Backend`."""
        return alone_by_file(Path(engine.url.database or ""), name)

    def upsert(self, table: sa.Table, changed: Sequence[str]) -> sa.Insert:
        """See :class:`Backend`."""
        insert = sqlite.insert(table)
        return insert.on_conflict_do_update(
            index_elements=list(table.primary_key), set_=excluded(insert, changed)
        )

    def timestamp(self) -> TypeEngine[Any]:
        """Return ISO text, because SQLite has no type for moments."""
        storage, regexp = _ISO_TEXT
        text: TypeEngine[Any] = sqlite.DATETIME(storage_format=storage, regexp=regexp)  # type: ignore[no-untyped-call]
        return text

    def generated_key(self) -> TypeEngine[Any]:
        """Return INTEGER, the only type that SQLite generates keys for."""
        return sqlite.INTEGER()

    def before_migrations(self, connection: sa.Connection, views: Iterable[str]) -> None:
        """Drop the views: SQLite alters a table by copying it, which fails if a view uses it."""
        for name in views:
            connection.exec_driver_sql(f"DROP VIEW IF EXISTS {name}")

    def after_migrations(self, connection: sa.Connection) -> None:
        """Check the foreign keys, which are switched off while tables are copied."""
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        if broken:
            raise RuntimeError(f"the migration broke foreign keys: {broken[:5]}")

    def days_since(self, column: str) -> str:
        """Return SQL by Julian days: SQLite's dates are texts."""
        return f"CAST(julianday(date('now')) - julianday({column}) AS INTEGER)"

    def create_view(self, connection: sa.Connection, name: str, query: str) -> None:
        """Create the view that :meth:`before_migrations` dropped."""
        query = query.replace("string_agg(", "group_concat(")  # string_agg needs SQLite 3.44
        connection.exec_driver_sql(f"CREATE VIEW {name} AS {query}")

    def add_check(self, connection: sa.Connection, table: str, name: str, condition: str) -> None:
        """See :class:`Backend`."""
        key = f"CONSTRAINT pk_{table} PRIMARY KEY"
        _redefine(connection, table, key, f"CONSTRAINT {name} CHECK ({condition}), {key}")

    def drop_check(self, connection: sa.Connection, table: str, name: str, condition: str) -> None:
        """See :class:`Backend`."""
        key = f"CONSTRAINT pk_{table} PRIMARY KEY"
        _redefine(connection, table, f"CONSTRAINT {name} CHECK ({condition}), {key}", key)

    def overwrite_deleted(self, connection: sa.Connection) -> None:
        """Have deleted rows overwritten with zeros, from now on and by this connection."""
        connection.exec_driver_sql("PRAGMA secure_delete = ON")

    def writer(self, database: Database) -> RowWriter:
        """See :class:`Backend`."""
        return SqliteWriter(database)

    def batches(
        self, database: Database, query: sa.Select[Any], schema: pa.Schema, *, few: bool
    ) -> Iterator[pa.RecordBatch]:
        """See :class:`Backend`."""
        return rows_as_batches(database, query, schema)

    def scores_bytes(self, connection: sa.Connection) -> int:
        """Return the size of the pages in use, nearly all of which belong to ``scores``."""
        pages, free, size = (
            int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size

    def fault(self, error: Exception, text: str) -> FaultKind | None:
        """See :class:`Backend`."""
        if not isinstance(error, sqlite3.Error):
            return None
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the primary code
        if code == sqlite3.SQLITE_NOTADB:
            return "no_database"
        if code == sqlite3.SQLITE_CORRUPT:
            return "corrupt"
        return "transient" if code in _TRANSIENT else None

    def is_duplicate_key(self, error: BaseException) -> bool:
        """See :class:`Backend`."""
        return getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY


class SqliteWriter:
    """Write by ``executemany`` with one transaction per batch, so that other writers get a turn."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def write(self, load: Load, batches: Iterable[pa.RecordBatch]) -> None:
        """See :class:`RowWriter`."""
        columns = (LOAD_KEY, DOMAIN_ID, SCORE_DATE, USER_ID, ITEM_ID, SCORE, POSITION)
        insert = f"INSERT INTO scores ({', '.join(columns)}) VALUES (?, ?, ?, ?, ?, ?, ?)"
        constants = (repeat(load.load_key), repeat(load.domain_id), repeat(load.score_date.isoformat()))
        for batch in batches:
            values = (batch.column(name).to_pylist() for name in (USER_ID, ITEM_ID, SCORE, POSITION))
            with self.database.writing(synced=False) as connection:
                raw: Any = connection.connection.dbapi_connection
                raw.cursor().executemany(insert, zip(*constants, *values, strict=False))


def _prepare(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # transactions are begun by _begin, not by sqlite3
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA wal_autocheckpoint = 10000")  # pages; the default is one batch of scores
    connection.execute("PRAGMA foreign_keys = ON")


def _begin(connection: sa.Connection) -> None:
    # BEGIN IMMEDIATE: a transaction that reads first and writes later fails if another wrote in between.
    options = connection.get_execution_options()
    if options.get(base.UNCHECKED, False):
        connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
    writes = options.get(base.WRITES, False)
    if writes:
        synchronous = "NORMAL" if options.get(base.UNSYNCED, False) else "FULL"
        connection.exec_driver_sql(f"PRAGMA synchronous = {synchronous}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _redefine(connection: sa.Connection, table: str, old: str, new: str) -> None:
    """Change the text of a table's definition; the only alternative is to copy all rows.

    A constraint is stored only in this text (https://sqlite.org/lang_altertable.html, "Making other kinds of
    table schema changes"); a trigger instead would slow inserts by a third.
    """
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    connection.execute(
        sa.text(
            "UPDATE sqlite_master SET sql = replace(sql, :old, :new) WHERE type = 'table' AND name = :table"
        ),
        {"old": old, "new": new, "table": table},
    )
    connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")  # so that every connection reads it
    connection.exec_driver_sql("PRAGMA writable_schema = OFF")
    text = connection.execute(
        sa.text("SELECT sql FROM sqlite_master WHERE name = :table"), {"table": table}
    ).scalar_one()
    if new not in text:
        raise RuntimeError(f"the table {table} isn't defined as expected: {text}")


BACKEND = SqliteBackend()
