"""One database by URL: connections, transactions, locks; the one place where its errors get their meaning.

What differs between databases stands in :mod:`mmlora.warehouse.backends`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from mmlora.errors import AccessError, ContractError, DataError, MmloraError, TransientError, UsageError
from mmlora.redaction import redact
from mmlora.warehouse.backends import backend_of, parse_url
from mmlora.warehouse.backends.base import UNCHECKED, UNSYNCED, WRITES, Backend, RowWriter


@dataclass(frozen=True)
class Database:
    """An engine and the kind of database that it speaks to."""

    engine: sa.Engine
    backend: Backend

    @classmethod
    def at(cls, url: str) -> Database:
        """Prepare connections to ``url``; none is made yet.

        Raises:
            UsageError: the URL names no database that mmlora can use.
        """
        parsed, backend = parse_url(url)
        return cls(backend.engine(parsed), backend)

    @property
    def where(self) -> str:
        """The URL without its passwords, for messages."""
        url = self.engine.url
        plain = url.set(drivername=url.get_backend_name())  # as users write it
        return redact(plain.render_as_string(hide_password=True))

    @property
    def file(self) -> Path | None:
        """The file that the warehouse is; None for a server."""
        return self.backend.file(self.engine.url)

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Give the database's errors their meaning; faults of the program pass unchanged."""
        try:
            yield
        except MmloraError:
            raise
        except Exception as error:
            meaning = self._meaning(error)
            if meaning is None:
                raise
            raise meaning from error

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state of the database (SQLite) or of each statement (PostgreSQL)."""
        with self.faults(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self, *, synced: bool = True) -> Iterator[sa.Connection]:
        """A transaction that writes: all of it happens, or nothing.

        Args:
            synced: False for rows that count only once a later transaction says so. SQLite then doesn't wait
                for the disk: the later one follows in the same log, so what makes it last makes both last.
        """
        options = {WRITES: True, UNSYNCED: not synced}
        with self.faults(), self.engine.execution_options(**options).begin() as connection:
            yield connection

    @contextmanager
    def altering(self) -> Iterator[sa.Connection]:
        """A writing transaction that may alter tables.

        SQLite alters a table by copying and dropping it, which its foreign keys forbid, and they can only be
        switched off before a transaction begins: so they are checked at the end instead.
        """
        engine = self.engine.execution_options(**{WRITES: True, UNCHECKED: True})
        try:
            with self.faults(), engine.begin() as connection:
                yield connection
                self.backend.after_migrations(connection)
        finally:
            self.engine.dispose()  # the next connection checks foreign keys again

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Hold a named lock over several transactions, and wait for it as long as another process lives."""
        with self.faults(), self.backend.alone(self.engine, name):
            yield

    def writer(self) -> RowWriter:
        """Return the bulk writer of ``scores``."""
        return self.backend.writer(self)

    def stream(
        self, query: sa.Select[Any], schema: pa.Schema, *, few: bool = False
    ) -> Iterator[pa.RecordBatch]:
        """Yield a query's rows in batches; their columns have the types of the schema's of the same names.

        Args:
            query: what to read.
            schema: a type for each column that the query returns.
            few: whether the rows are few: then it isn't worth setting up a bulk read.
        """
        for batch in self.backend.batches(self, query, schema, few=few):
            names = batch.schema.names
            columns = [
                column.cast(schema.field(name).type)
                for name, column in zip(names, batch.columns, strict=True)
            ]
            kept = pa.schema([schema.field(name) for name in names])
            yield pa.RecordBatch.from_arrays(columns, schema=kept)

    def is_duplicate_key(self, error: BaseException) -> bool:
        """Whether an error of :meth:`writer` says that a row with the same key is there already."""
        return self.backend.is_duplicate_key(error)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def _meaning(self, error: Exception) -> MmloraError | None:
        """Return what a driver's error means to the caller, or None when it is a fault of the program."""
        cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        text, name = _one_line(cause), f"warehouse {self.where}"
        if isinstance(cause, json.JSONDecodeError):
            return ContractError(f"{name}: a JSON value is broken ({text}); restore it from a backup")
        fault = self.backend.fault(cause, text) if isinstance(cause, Exception) else None
        if fault == "unfit":
            return DataError(name, f"{text}: import ids without NUL, of 1,000 bytes at most")
        if (table := self._missing_table(text)) is not None:
            return ContractError(
                f"{name}: its {table} is missing; restore the warehouse from a backup, or set "
                "warehouse_url to another one and score again",
                expected=table,
            )
        if fault == "no_database":
            kind = self.backend.title
            return UsageError(f"{name}: the file is not a {kind} database; set warehouse_url to another file")
        if fault == "corrupt":
            return ContractError(f"{name}: {text}; restore it from a backup")
        if fault == "refused":
            return AccessError(f"{name}: {text}; correct warehouse_url, or the server's users and privileges")
        if fault == "transient" or (isinstance(error, DBAPIError) and error.connection_invalidated):
            return TransientError(f"{name}: {text}; try again later")
        return None

    def _missing_table(self, text: str) -> str | None:
        """Return which of the warehouse's own tables or views a message says is missing."""
        from mmlora.schema import IdTypes
        from mmlora.warehouse.tables import tables, views

        match = self.backend.no_table.search(text)
        ours = {*tables(IdTypes()).metadata.tables, *views()}
        return f"table {match[1]}" if match and match[1] in ours else None


def hold(connection: sa.Connection, *names: object) -> None:
    """Hold a named lock until the transaction ends (where a writing transaction isn't alone anyway)."""
    backend_of(connection.dialect).hold(connection, ":".join(str(part) for part in names))


def clock(connection: sa.Connection) -> datetime:
    """Return the database's own time, where it has one: workers' clocks may differ."""
    return backend_of(connection.dialect).clock(connection)


def upsert(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows; one with the primary key of a row that is there takes its place."""
    changed = [name for name in rows[0] if not table.c[name].primary_key]
    connection.execute(backend_of(connection.dialect).upsert(table, changed), rows)


def _one_line(cause: BaseException) -> str:
    """Return a driver's message on one line; libpq repeats it for each address that it tried."""
    return "; ".join(dict.fromkeys(line.strip() for line in str(cause).splitlines() if line.strip()))
