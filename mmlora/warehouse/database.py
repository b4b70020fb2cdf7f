"""A database by URL: connections, transactions, locks, and the translation of its errors.

Differences between databases are in :mod:`mmlora.warehouse.backends`.
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

from mmlora.errors import (
    AccessError,
    ContractError,
    DataError,
    MmloraError,
    TransientError,
    UsageError,
    meaning_of,
)
from mmlora.redaction import redact
from mmlora.warehouse.backends import backend_of, parse_url
from mmlora.warehouse.backends.base import UNCHECKED, UNSYNCED, WRITES, Backend, RowWriter


@dataclass(frozen=True)
class Database:
    """An engine and its kind of database."""

    engine: sa.Engine
    backend: Backend

    @classmethod
    def at(cls, url: str) -> Database:
        """Prepare connections to ``url`` without opening one.

        Raises:
            UsageError: the URL doesn't name a database that mmlora can use.
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
        """The file of the warehouse; None for a server."""
        return self.backend.file(self.engine.url)

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Translate the database's errors into mmlora's; programming errors pass unchanged."""
        try:
            yield
        except MmloraError:
            raise
        except Exception as error:
            translated = self._translate(error)
            if translated is None:
                raise
            raise translated from error

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Read in a transaction: one snapshot for all statements (SQLite) or per statement (PostgreSQL)."""
        with self.faults(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self, *, synced: bool = True) -> Iterator[sa.Connection]:
        """Write in a transaction, all or nothing.

        Args:
            synced: False for rows that count only after a later transaction. SQLite then doesn't wait for the
                disk: the later transaction follows in the same log, and syncing it syncs both.
        """
        options = {WRITES: True, UNSYNCED: not synced}
        with self.faults(), self.engine.execution_options(**options).begin() as connection:
            yield connection

    @contextmanager
    def altering(self) -> Iterator[sa.Connection]:
        """Write in a transaction that may alter tables.

        SQLite alters a table by copying and dropping it, which foreign keys forbid. They can only be switched
        off before a transaction begins, so they are checked at its end instead.
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
        """Hold a named lock over several transactions; wait while another live process holds it."""
        with self.faults(), self.backend.alone(self.engine, name):
            yield

    def writer(self) -> RowWriter:
        """Return the bulk writer of ``scores``."""
        return self.backend.writer(self)

    def stream(
        self, query: sa.Select[Any], schema: pa.Schema, *, few: bool = False
    ) -> Iterator[pa.RecordBatch]:
        """Yield a query's rows in batches, cast to the schema's types by column name.

        Args:
            query: the query.
            schema: a type for each column that the query returns.
            few: whether few rows are expected, so that setting up a bulk read isn't worth it.
        """
        for batch in self.backend.batches(self, query, schema, few=few):
            names = batch.schema.names
            columns = [
                column.cast(schema.field(name).type)
                for name, column in zip(names, batch.columns, strict=True)
            ]
            selected = pa.schema([schema.field(name) for name in names])
            yield pa.RecordBatch.from_arrays(columns, schema=selected)

    def is_duplicate_key(self, error: BaseException) -> bool:
        """Whether an error of :meth:`writer` means that a row with the same key already exists."""
        return self.backend.is_duplicate_key(error)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def _translate(self, error: Exception) -> MmloraError | None:
        """Return mmlora's error for a driver's error, or None for a programming error."""
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
        return meaning_of(error)  # of its files

    def _missing_table(self, text: str) -> str | None:
        """Return the warehouse table or view that a message reports as missing."""
        from mmlora.schema import IdTypes
        from mmlora.warehouse.tables import tables, views

        match = self.backend.no_table.search(text)
        warehouse_tables = {*tables(IdTypes()).metadata.tables, *views()}
        return f"table {match[1]}" if match and match[1] in warehouse_tables else None


def hold(connection: sa.Connection, *names: object) -> None:
    """Hold a named lock until the transaction ends (a no-op where only one transaction can write)."""
    backend_of(connection.dialect).hold(connection, ":".join(str(part) for part in names))


def clock(connection: sa.Connection) -> datetime:
    """Return the server's time, where there is a server, because workers' clocks may differ."""
    return backend_of(connection.dialect).clock(connection)


def upsert(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows; an existing row with the same primary key is replaced."""
    changed = [name for name in rows[0] if not table.c[name].primary_key]
    connection.execute(backend_of(connection.dialect).upsert(table, changed), rows)


def _one_line(cause: BaseException) -> str:
    """Return a driver's message on one line, without the repeats of libpq for each address that it tried."""
    return "; ".join(dict.fromkeys(line.strip() for line in str(cause).splitlines() if line.strip()))
