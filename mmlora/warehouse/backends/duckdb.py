"""DuckDB: one file, which one process writes or several processes read.

DuckDB's SQLite extension must not be loaded: a second SQLite library in a process corrupts its files.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from mmlora.schema import LOAD_KEY
from mmlora.warehouse.backends import base
from mmlora.warehouse.backends.base import Backend, FaultKind, RowWriter, alone_by_file, excluded
from mmlora.warehouse.backends.duckdb_dialect import begin
from mmlora.warehouse.backends.duckdb_file import DuckdbFile

if TYPE_CHECKING:
    from mmlora.warehouse.database import Database
    from mmlora.warehouse.loads import Load

_FOREIGN = re.compile(r"not a valid DuckDB database|Is a directory|with version number")
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
        sa.event.listen(engine, "begin", begin)
        return engine

    def file(self, url: sa.URL) -> Path | None:
        """See :class:`Backend`."""
        return Path(url.database or "")

    def alone(self, engine: sa.Engine, name: str) -> AbstractContextManager[None]:
        """See :class:`Backend`."""
        return alone_by_file(Path(engine.url.database or ""), name)

    def reads_in_a_row(self, engine: sa.Engine) -> AbstractContextManager[Any]:
        """Keep the file open: opening it costs 40 ms of CPU, a read 2 ms."""
        return DuckdbFile.at(engine.url.database).opened(writes=False)

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
            with (
                database.faults(),
                DuckdbFile.at(database.engine.url.database).opened(writes=False) as connection,
            ):
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
        file = DuckdbFile.at(self.database.engine.url.database)
        with self.database.faults(), file.opened(writes=True) as connection:
            for batch in batches:
                key = pa.repeat(pa.scalar(load.load_key, pa.int64()), batch.num_rows)
                connection.register("batch", pa.Table.from_batches([batch.append_column(LOAD_KEY, key)]))
                connection.execute("INSERT INTO scores BY NAME SELECT * FROM batch")
            connection.execute("COMMIT")


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


BACKEND = DuckdbBackend()
