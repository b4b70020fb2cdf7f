"""SQLAlchemy's and Alembic's dialect for DuckDB.

No published dialect works with SQLAlchemy 2.1 and DuckDB 2 (duckdb-engine 0.17 generates keys by BIGSERIAL,
which DuckDB doesn't have, and can't reflect; duckdb-sqlalchemy 1.5 needs DuckDB < 2). This is a small one on
DuckDB's own Python API and the compiler of PostgreSQL's dialect, without reflection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb
import sqlalchemy as sa
from alembic.ddl.impl import DefaultImpl
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.base import PGCompiler
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.sql.compiler import DDLCompiler, GenericTypeCompiler

from mmlora.errors import TransientError
from mmlora.warehouse.backends import base
from mmlora.warehouse.backends.duckdb_file import DuckdbFile


class _Connection:
    """A DB-API connection that keeps the file open only during a transaction."""

    def __init__(self, path: str) -> None:
        self._file = DuckdbFile.at(path)
        self._writes = False
        self.raw: duckdb.DuckDBPyConnection | None = None

    def begin(self, *, writes: bool) -> None:
        """Open the file."""
        if writes and not self._file.turn.acquire(timeout=base.LOCK_WAIT_SECONDS):
            raise TransientError(
                f"warehouse duckdb:///{self._file.path}: locked by another writer; try again later"
            )
        self._writes = writes
        try:
            self.raw = self._file.open(writes=writes)
        except BaseException:
            if writes:
                self._file.turn.release()
            raise

    def cursor(self) -> _Cursor:
        return _Cursor(self)

    def commit(self) -> None:
        """Commit and close the file."""
        if self.raw is not None:
            try:
                self.raw.execute("COMMIT")
            finally:
                self.rollback()

    def rollback(self) -> None:
        """Roll back what isn't committed, and close the file."""
        if self.raw is not None:
            raw, self.raw = self.raw, None
            self._file.close(raw)
            if self._writes:
                self._file.turn.release()

    close = rollback


class _Cursor:
    """A DB-API cursor that fetches all rows at once."""

    arraysize = 1

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._rows: list[tuple[Any, ...]] = []
        self.description: Any = None
        self.rowcount = -1

    def execute(self, text: str, values: Sequence[Any] = ()) -> None:
        """Run one statement, or several without values."""
        raw = self._raw().execute(text, list(values) or None)
        self.description, self.rowcount, self._rows = raw.description, raw.rowcount, []
        if self.rowcount >= 0:  # it changed rows and returns none
            self.description = None
        elif self.description is not None:
            self._rows = raw.fetchall()

    def executemany(self, text: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement for each row."""
        self._raw().executemany(text, [list(row) for row in rows])
        self.description, self.rowcount = None, -1

    def fetchone(self) -> tuple[Any, ...] | None:
        return self._rows.pop(0) if self._rows else None

    def fetchmany(self, size: int = arraysize) -> list[tuple[Any, ...]]:
        rows, self._rows = self._rows[:size], self._rows[size:]
        return rows

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self.fetchmany(len(self._rows))

    def close(self) -> None:
        """Do nothing: the rows are already fetched."""

    def _raw(self) -> duckdb.DuckDBPyConnection:
        assert self._connection.raw is not None  # SQLAlchemy begins before it executes
        return self._connection.raw


def begin(connection: sa.Connection) -> None:
    """Open the file when SQLAlchemy begins a transaction; for writing if its options say so."""
    raw: Any = connection.connection.dbapi_connection
    raw.begin(writes=connection.get_execution_options().get(base.WRITES, False))


class _Compiler(PGCompiler):
    def for_update_clause(self, select: Any, **options: object) -> str:
        return ""  # only one transaction writes at a time


class _DDLCompiler(DDLCompiler):
    def visit_create_table(self, create: Any, **options: object) -> str:
        statement = str(super().visit_create_table(create, **options))  # type: ignore[no-untyped-call]
        generated = create.element.autoincrement_column
        if generated is None:
            return statement
        return f"CREATE SEQUENCE IF NOT EXISTS {_sequence(generated)};{statement}"

    def visit_foreign_key_constraint(self, constraint: Any, **options: object) -> None:  # type: ignore[override]
        """Omit foreign keys: a table with references to it can be neither copied nor dropped."""

    def get_column_default_string(self, column: Any) -> str | None:
        if column is column.table.autoincrement_column:
            return f"nextval('{_sequence(column)}')"
        return super().get_column_default_string(column)


class _TypeCompiler(GenericTypeCompiler):
    def visit_JSON(self, type_: Any, **options: object) -> str:
        return "JSON"

    def visit_datetime(self, type_: Any, **options: object) -> str:
        return "TIMESTAMP"


class DuckdbDialect(DefaultDialect):
    """The parts of a dialect that the warehouse needs."""

    name = "duckdb"
    driver = "mmlora"
    default_paramstyle = "qmark"
    supports_statement_cache = True
    supports_native_boolean = True
    insert_returning = True
    postfetch_lastrowid = False
    statement_compiler = _Compiler
    ddl_compiler = _DDLCompiler
    type_compiler_cls = _TypeCompiler

    @classmethod
    def import_dbapi(cls) -> Any:
        """Return DuckDB's module, for its errors and the style of its parameters."""
        return duckdb

    def create_connect_args(self, url: sa.URL) -> Any:
        """Return the path to connect to."""
        return [url.database], {}

    def connect(self, *arguments: Any, **options: object) -> Any:
        """Return a connection without opening the file."""
        return _Connection(*arguments)

    def initialize(self, connection: sa.Connection) -> None:
        """Do nothing: the file isn't open, and nothing needs to be queried."""

    def has_table(
        self, connection: Any, table_name: str, schema: str | None = None, **options: object
    ) -> bool:
        """Return whether a table exists; Alembic uses it for its version table."""
        query = "SELECT count(*) FROM duckdb_tables() WHERE table_name = ? AND NOT internal"
        return bool(connection.exec_driver_sql(query, (table_name,)).scalar_one())


class _AlembicImpl(DefaultImpl):
    __dialect__ = "duckdb"
    transactional_ddl = True


def _sequence(column: Any) -> str:
    return f"{column.table.name}_{column.name}"


registry.register("duckdb.mmlora", __name__, DuckdbDialect.__name__)
