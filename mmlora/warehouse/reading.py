"""Reading published scores as Arrow, in batches."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import pyarrow as pa
import sqlalchemy as sa

from mmlora.schema import ITEM_ID, POSITION, SCORE, TIMESTAMP, USER_ID, Id, IdTypes
from mmlora.warehouse import loads
from mmlora.warehouse.database import Database
from mmlora.warehouse.publish import Publication
from mmlora.warehouse.tables import Tables

USERS_AT_ONCE = 500
"""Users named in one query."""


def published_schema(ids: IdTypes) -> pa.Schema:
    """Return the columns of both views, which are a contract."""
    return pa.schema(
        [
            pa.field("domain_id", ids.arrow("domain")),
            pa.field("score_date", pa.date32()),
            pa.field("user_id", ids.arrow("user")),
            pa.field("item_id", ids.arrow("item")),
            pa.field("score", pa.float32()),
            pa.field("position", pa.int32()),
            pa.field("model_version", pa.string()),
            pa.field("load_id", pa.string()),
            pa.field("published_at", TIMESTAMP),
            pa.field("age_days", pa.int32()),
            pa.field("is_stale", pa.bool_()),
        ]
    )


def read(
    database: Database,
    tables: Tables,
    ids: IdTypes,
    published: Sequence[Publication],
    *,
    users: Collection[Id] | None,
    limit: int | None,
) -> pa.RecordBatchReader:
    """Return publications' scores in turn, each by user and position, with the views' columns.

    The rows of a load never change, so following the pointer first reads what the view would; and the columns
    that are the same in all rows needn't be carried a row. Where ``mmlora gc`` frees a load in between, the
    reader raises ``DataError`` before the first row of that load, or of the next users.
    """
    schema = published_schema(ids)
    rows = (
        batch
        for publication in published
        for some in _groups(users)
        for batch in _rows(database, tables, publication, some, schema, limit)
    )
    return pa.RecordBatchReader.from_batches(schema, rows if limit is None else _first(rows, limit))


def _groups(users: Collection[Id] | None) -> Iterator[list[Id] | None]:
    """Yield the users in the order in which rows are read, as many at a time as a query may name."""
    if users is None:
        yield None
        return
    ordered = sorted(set(users), key=lambda user: user.encode() if isinstance(user, str) else user)
    for start in range(0, len(ordered), USERS_AT_ONCE):
        yield ordered[start : start + USERS_AT_ONCE]


def _first(batches: Iterator[pa.RecordBatch], limit: int) -> Iterator[pa.RecordBatch]:
    """Yield the first rows, and read no further."""
    for batch in batches:
        yield batch.slice(0, limit)
        limit -= batch.num_rows
        if limit <= 0:
            return


def not_freed(tables: Tables, load_key: int) -> sa.ColumnElement[bool]:
    """Return the condition that a load's rows count: a query with it sees all of them, or none.

    They are freed in a transaction before the first of them is deleted.
    """
    column = tables.score_loads.c
    counts = sa.select(column.load_key).where(column.load_key == load_key, column.rows_freed_at.is_(None))
    return counts.exists()


def _rows(
    database: Database,
    tables: Tables,
    published: Publication,
    users: list[Id] | None,
    schema: pa.Schema,
    limit: int | None,
) -> Iterator[pa.RecordBatch]:
    column = tables.scores.c
    query = (
        sa.select(*(column[name] for name in (USER_ID, ITEM_ID, SCORE, POSITION)))
        .where(column.load_key == published.load_key, column.score_date == published.score_date)
        .where(not_freed(tables, published.load_key))
        .order_by(column.user_id, column.position)
        .limit(limit)
    )
    if users is not None:  # each value a parameter of its own, which every driver takes
        query = query.where(column.user_id.in_([sa.literal(user, column.user_id.type) for user in users]))
    rows = 0
    for batch in database.stream(query, schema, few=users is not None):
        rows += batch.num_rows
        yield _complete(batch, published, schema)
    if not rows:
        with database.reading() as connection:
            loads.refuse_freed(loads.find(connection, tables, published.load_key))


def _complete(batch: pa.RecordBatch, published: Publication, schema: pa.Schema) -> pa.RecordBatch:
    arrays = [
        batch.column(field.name)
        if field.name in batch.schema.names
        else pa.repeat(pa.scalar(getattr(published, field.name), field.type), batch.num_rows)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
