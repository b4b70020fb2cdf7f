"""Bulk writers: a load's staged Parquet files into ``scores``, streamed, at about the drivers' own speed.

PostgreSQL is written with ADBC. SQLite is written with Python's sqlite3 and nothing else: a second SQLite
library in the process corrupts the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from itertools import repeat
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import sqlalchemy as sa

from mmlora.content_hash import ContentHash
from mmlora.errors import ContractError, DataError, Fault
from mmlora.schema import (
    DOMAIN_ID,
    ITEM_ID,
    LOAD_KEY,
    POSITION,
    SCORE,
    SCORE_DATE,
    USER_ID,
    IdTypes,
    scores_schema,
)
from mmlora.warehouse.database import LOCK_WAIT_SECONDS, Database, hold
from mmlora.warehouse.loads import Load

BATCH_ROWS = 65_536


class RowWriter(Protocol):
    """Writes the rows of one load; what a killed call left behind is the caller's to delete."""

    def write(self, load: Load, batches: Iterable[pa.RecordBatch]) -> None:
        """Write batches of ``scores_schema`` rows under the load's key."""


def writer_for(database: Database) -> RowWriter:
    """Return the bulk writer of a kind of database."""
    return SqliteWriter(database) if database.kind == "sqlite" else PostgresWriter(database)


class SqliteWriter:
    """Writes by batched ``executemany``, a transaction a batch: other writers get their turn between."""

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


class PostgresWriter:
    """Writes with ADBC's ingestion (binary COPY) into the month's partition, in one transaction."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def write(self, load: Load, batches: Iterable[pa.RecordBatch]) -> None:
        """See :class:`RowWriter`."""
        from adbc_driver_postgresql import dbapi

        table = ensure_partition(self.database, load.score_date)
        with (
            self.database.faults(),
            dbapi.connect(self.database.driver_url()) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(f"SET lock_timeout = '{LOCK_WAIT_SECONDS}s'")
            for batch in batches:
                key = pa.repeat(pa.scalar(load.load_key, pa.int64()), batch.num_rows)
                cursor.adbc_ingest(table, batch.append_column(LOAD_KEY, key), mode="append")
            connection.commit()


def partition_name(score_date: date) -> str:
    """Return the name of the partition of ``scores`` that holds a date."""
    return f"scores_{score_date:%Y_%m}"


def ensure_partition(database: Database, score_date: date) -> str:
    """Make the partition of a date's month unless it is there, and return its name.

    It is made as a table of its own and attached, which waits for no reader and no writer; ``CREATE TABLE ...
    PARTITION OF`` would wait for them all.
    """
    name = partition_name(score_date)
    # Asked of the catalogue's rows: to_regclass answers from a cache that may not know another's commit yet.
    there = sa.text(
        "SELECT count(*) > 0 FROM pg_inherits JOIN pg_class ON pg_class.oid = pg_inherits.inhrelid "
        "WHERE pg_inherits.inhparent = 'scores'::regclass AND pg_class.relname = :name"
    ).bindparams(name=name)
    with database.reading() as connection:
        if connection.execute(there).scalar_one():
            return name
    start = score_date.replace(day=1)
    end = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    with database.writing() as connection:
        hold(connection, "partition")
        if not connection.execute(there).scalar_one():
            connection.exec_driver_sql(
                f"CREATE TABLE {name} (LIKE scores INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"
            )
            connection.exec_driver_sql(
                f"ALTER TABLE scores ATTACH PARTITION {name} FOR VALUES FROM ('{start}') TO ('{end}')"
            )
    return name


def staged_batches(files: Iterable[Path], ids: IdTypes, load: Load) -> Iterator[pa.RecordBatch]:
    """Stream a load's staged files, a row group in memory at a time; each batch in the key's order.

    In that order the key's index grows at its right edge. PostgreSQL's is a third smaller than with rows
    by position, and faster to write and to count.

    Raises:
        ContractError: a file's columns aren't those of ``scores_schema``.
        DataError: a file can't be read, rows aren't fit to publish, or they aren't those that the audit saw.
            That is known after the last batch, so nothing that was written counts before this ends.
    """
    schema = scores_schema(ids)
    content, rows, names = ContentHash(schema), 0, []
    for path in files:
        names.append(path.name)
        with _readable(path), pq.ParquetFile(path) as file:
            _check_columns(file.schema_arrow, schema, path)
            for batch in file.iter_batches(BATCH_ROWS):
                _check(batch, load, path)
                content.update(pa.Table.from_batches([batch]))
                rows += batch.num_rows
                yield batch.sort_by([(USER_ID, "ascending"), (ITEM_ID, "ascending")])
    if content.hexdigest() != load.content_hash:
        raise _not_audited(load, names, rows)


def _not_audited(load: Load, names: Sequence[str], rows: int) -> DataError:
    """Return the error for staged files that changed between the audit and the publication."""
    listed = f"{', '.join(names[:3]) or 'none'}{', ...' if len(names) > 3 else ''}"
    return DataError(
        f"load {load.load_id}",
        f"its staged files ({listed}) hold {rows:,} rows, which aren't the {load.rows or 0:,} that the audit "
        "saw: a file is missing, or was cut or changed since. Nothing was published. Put the files back as "
        f"they were, or score again: `mmlora score --date {load.score_date} --domain {load.domain_id}`",
    )


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise DataError(str(path), "the staged file is gone: put it back, or score the date again") from None
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(
            str(path), f"the staged file can't be read ({error}): put it back, or score the date again"
        ) from error


def _check_columns(found: pa.Schema, wanted: pa.Schema, path: Path) -> None:
    if [(f.name, f.type) for f in found] != [(f.name, f.type) for f in wanted]:
        raise ContractError(
            f"{path}: columns are {_columns(found)}; a staged load has {_columns(wanted)}",
            expected=wanted,
            found=found,
        )


def one_ahead(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Make each batch while the one before is written: the database needn't wait for the files."""
    with ThreadPoolExecutor(1, "read-ahead") as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


def _check(batch: pa.RecordBatch, load: Load, path: Path) -> None:
    faults = [
        Fault("null", name, batch.column(name).null_count)
        for name in batch.schema.names
        if batch.column(name).null_count
    ]
    fit = {
        DOMAIN_ID: (pc.equal(batch.column(DOMAIN_ID), load.domain_id), f"not the load's {load.domain_id!r}"),
        SCORE_DATE: (
            pc.equal(batch.column(SCORE_DATE), load.score_date),
            f"not the load's {load.score_date}",
        ),
        SCORE: (
            pc.and_(pc.greater_equal(batch.column(SCORE), 0.0), pc.less_equal(batch.column(SCORE), 1.0)),
            "not a probability from 0 to 1",
        ),
    }
    for name, (mask, what) in fit.items():
        wrong = mask.false_count
        if wrong:
            row = pc.index(mask, False).as_py()
            faults.append(Fault(what, name, wrong, (str(batch.column(name)[row].as_py()),)))
    if faults:
        raise DataError(str(path), faults)


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)
