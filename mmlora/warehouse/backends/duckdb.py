"""DuckDB: one file, which one process writes or several processes read.

No published dialect works with SQLAlchemy 2.1 and DuckDB 2 (duckdb-engine 0.17 generates keys by BIGSERIAL,
which DuckDB doesn't have, and can't reflect; duckdb-sqlalchemy 1.5 needs DuckDB < 2). This module therefore
has a small dialect on DuckDB's own Python API and the compiler of PostgreSQL's dialect, without reflection.

A file is open only during a transaction, and read-only for reading, so that several processes can read at
once. While a process has it open for writing, no other can open it, so opening is retried for a while.
DuckDB's SQLite extension must not be loaded: a second SQLite library in a process corrupts its files.
"""

from __future__ import annotations

import re
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import sqlalchemy as sa
from alembic.ddl.impl import DefaultImpl
from sqlalchemy.dialects import postgresql, registry
from sqlalchemy.dialects.postgresql.base import PGCompiler
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.sql.compiler import DDLCompiler, GenericTypeCompiler
from sqlalchemy.types import TypeEngine

from mmlora.errors import TransientError
from mmlora.schema import LOAD_KEY
from mmlora.warehouse.backends import base
from mmlora.warehouse.backends.base import Backend, FaultKind, RowWriter, alone_by_file, excluded

if TYPE_CHECKING:
    from mmlora.warehouse.database import Database
    from mmlora.warehouse.loads import Load

_HELD = re.compile(r"Conflicting lock is held in (.+?) \(PID (\d+)\)|different configuration")
_FOREIGN = re.compile(r"not a valid DuckDB database|Is a directory|with version number")
_RETRY_SECONDS = 0.02
_SPILL_BYTES = 64 << 20


class DuckdbBackend(Backend):
    """A DuckDB file."""

    title = "DuckDB"
    example = "duckdb:///path/to/file.duckdb"
    no_table = re.compile(r"(?:Table|View) with name (\w+) does not exist")

    def accept(self, url: sa.URL) -> sa.URL | None:
        """Accept a file, but not a database in memory or in a service."""
        is_file = url.database and not url.database.startswith((":memory:", "md:", "motherduck:"))
        return url.set(drivername="duckdb+mmlora") if is_file and not url.host and not url.query else None

    def engine(self, url: sa.URL) -> sa.Engine:
        """See :class:`Backend`."""
        engine = sa.create_engine(url)
        sa.event.listen(engine, "begin", _begin)
        return engine

    def file(self, url: sa.URL) -> Path | None:
        """See :class:`Backend`."""
        return Path(url.database or "")

    def alone(self, engine: sa.Engine, name: str) -> AbstractContextManager[None]:
        """See :class:`Backend`."""
        return alone_by_file(Path(engine.url.database or ""), name)

    def reads_in_a_row(self, engine: sa.Engine) -> AbstractContextManager[Any]:
        """Keep the file open: opening it costs 40 ms of CPU, a read 2 ms."""
        return _File.at(engine.url.database).opened(writes=False)

    def upsert(self, table: sa.Table, changed: Sequence[str]) -> sa.Insert:
        """See :class:`Backend`."""
        insert = postgresql.insert(table)
        return insert.on_conflict_do_update(
            index_elements=list(table.primary_key), set_=excluded(insert, changed)
        )

    def timestamp(self) -> TypeEngine[Any]:
        """Return moments without a time zone, in UTC like the sessions; reading zoned ones needs pytz."""
        return sa.DateTime()

    def days_since(self, column: str) -> str:
        """Return SQL that needs neither the session's time zone nor DuckDB's extension for zones."""
        return f"(CAST(make_timestamp(epoch_us(now())) AS DATE) - {column})"

    def add_check(self, connection: sa.Connection, table: str, name: str, condition: str) -> None:
        """Copy the table, which checks its rows: DuckDB can't add a constraint to an existing table."""
        _copy(connection, table, r"PRIMARY KEY\(", f"CONSTRAINT {name} CHECK ({condition}), PRIMARY KEY(")

    def drop_check(self, connection: sa.Connection, table: str, name: str, condition: str) -> None:
        """Copy the table without any CHECK, because DuckDB doesn't keep their names."""
        _copy(connection, table, r"CHECK\(.*\), PRIMARY KEY\(", "PRIMARY KEY(")

    def writer(self, database: Database) -> RowWriter:
        """See :class:`Backend`."""
        return DuckdbWriter(database)

    def batches(
        self, database: Database, query: sa.Select[Any], schema: pa.Schema, *, few: bool
    ) -> Iterator[pa.RecordBatch]:
        """Read everything into memory or a scratch file first, so that slow readers don't block writers."""
        compiled = query.compile(database.engine)
        values = [compiled.params[name] for name in compiled.positiontup or ()]
        with tempfile.SpooledTemporaryFile(_SPILL_BYTES) as spill:
            with database.faults(), _File.at(database.engine.url.database).opened(writes=False) as connection:
                rows: Any = connection.sql(str(compiled), params=values)
                rows = rows.to_arrow_reader(base.BATCH_ROWS)
                with pa.ipc.new_stream(spill, rows.schema) as stream:
                    for batch in rows:
                        stream.write_batch(batch)
            spill.seek(0)
            with pa.ipc.open_stream(spill) as stored:
                yield from stored

    def scores_bytes(self, connection: sa.Connection) -> int:
        """Return the size of the blocks in use, nearly all of which belong to ``scores``."""
        query = "SELECT used_blocks * block_size FROM pragma_database_size()"
        return int(connection.exec_driver_sql(query).scalar_one())

    def fault(self, error: Exception, text: str) -> FaultKind | None:
        """See :class:`Backend`."""
        if "Corrupt database file" in text or isinstance(error, duckdb.FatalException):
            return "corrupt"
        if isinstance(error, duckdb.IOException):
            return "no_database" if _FOREIGN.search(text) else "transient"
        gone = isinstance(error, duckdb.TransactionException | duckdb.OutOfMemoryException)
        return "transient" if (gone and "aborted" not in text) or "read-only mode" in text else None

    def is_duplicate_key(self, error: BaseException) -> bool:
        """See :class:`Backend`."""
        return isinstance(error, duckdb.ConstraintException) and "duplicate key" in str(error).lower()


class DuckdbWriter:
    """Write Arrow batches directly, in one transaction."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def write(self, load: Load, batches: Iterable[pa.RecordBatch]) -> None:
        """See :class:`RowWriter`."""
        file = _File.at(self.database.engine.url.database)
        with self.database.faults(), file.opened(writes=True) as connection:
            for batch in batches:
                key = pa.repeat(pa.scalar(load.load_key, pa.int64()), batch.num_rows)
                connection.register("batch", pa.Table.from_batches([batch.append_column(LOAD_KEY, key)]))
                connection.execute("INSERT INTO scores BY NAME SELECT * FROM batch")
            connection.execute("COMMIT")


class _File:
    """A file shared by the threads of this process: DuckDB opens it once per process, to read or to write."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.turn = threading.Lock()  # held by a transaction that may conflict with others
        self._lock = threading.Lock()
        self._open = 0
        self._writable = False

    @staticmethod
    def at(path: str | None) -> _File:
        """Return the only instance for a path."""
        return _file(str(Path(path or "").resolve()))

    @contextmanager
    def opened(self, *, writes: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the file for a transaction, which is rolled back unless it is committed."""
        connection = self.open(writes=writes)
        try:
            yield connection
        finally:
            self.close(connection)

    def open(self, *, writes: bool) -> duckdb.DuckDBPyConnection:
        """Begin a transaction when other processes have closed the file.

        Raises:
            TransientError: they didn't close it in time.
        """
        until = time.monotonic() + base.LOCK_WAIT_SECONDS
        while True:
            connection, holder = self._try(writes)
            if connection is not None:
                return connection
            if time.monotonic() > until:
                raise TransientError(
                    f"warehouse duckdb:///{self.path}: {holder} still has the file open after "
                    f"{base.LOCK_WAIT_SECONDS} seconds, and DuckDB lets either one process write a file or "
                    "several read it: close it there, or try again later"
                )
            time.sleep(_RETRY_SECONDS)

    def _try(self, writes: bool) -> tuple[duckdb.DuckDBPyConnection | None, str]:
        """Return a connection in a transaction, or a description of who has the file open."""
        with self._lock:
            if self._open and writes and not self._writable:
                return None, "a reader in this process"
            writable = self._writable if self._open else writes or not Path(self.path).exists()
            try:
                connection = duckdb.connect(self.path, read_only=not writable)
                connection.execute("SET TimeZone = 'UTC'; BEGIN")
            except (duckdb.IOException, duckdb.ConnectionException) as error:
                if (held := _HELD.search(str(error))) is None:
                    raise
                return None, f"process {held[2]} ({held[1]})" if held[2] else "this process"
            self._open, self._writable = self._open + 1, writable
        return connection, ""

    def close(self, connection: duckdb.DuckDBPyConnection) -> None:
        """End the transaction and close the file."""
        with self._lock:
            connection.close()
            self._open -= 1


@cache
def _file(path: str) -> _File:
    return _File(path)


class _Connection:
    """A DB-API connection that keeps the file open only during a transaction."""

    def __init__(self, path: str) -> None:
        self._file = _File.at(path)
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


def _begin(connection: sa.Connection) -> None:
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


def _copy(connection: sa.Connection, table: str, old: str, new: str) -> None:
    """Replace a table by a copy whose definition has ``new`` instead of the pattern ``old``."""
    query = "SELECT sql FROM duckdb_tables() WHERE table_name = ?"
    definition: str = connection.exec_driver_sql(query, (table,)).scalar_one()
    changed, times = re.subn(old, new, definition)
    if times != 1:
        raise RuntimeError(f"the table {table} isn't defined as expected: {definition}")
    connection.exec_driver_sql(f"ALTER TABLE {table} RENAME TO {table}_before")
    connection.exec_driver_sql(changed)
    connection.exec_driver_sql(f"INSERT INTO {table} SELECT * FROM {table}_before")
    connection.exec_driver_sql(f"DROP TABLE {table}_before")


registry.register("duckdb.mmlora", __name__, DuckdbDialect.__name__)
BACKEND = DuckdbBackend()
