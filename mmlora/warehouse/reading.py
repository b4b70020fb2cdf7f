"""Reading published scores as Arrow, in batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from mmlora.schema import ITEM_ID, POSITION, SCORE, TIMESTAMP, USER_ID, Id, IdTypes
from mmlora.warehouse import loads
from mmlora.warehouse.database import Database
from mmlora.warehouse.publish import Publication
from mmlora.warehouse.tables import Tables


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
        ]
    )


def read(
    database: Database,
    tables: Tables,
    ids: IdTypes,
    published: Publication | None,
    *,
    user: Id | None,
    limit: int | None,
) -> pa.RecordBatchReader:
    """Return a publication's scores by user and position, with the views' columns.

    The rows of a load never change, so following the pointer first reads what the view would; and the columns
    that are the same in all rows needn't be carried a row. Where ``mmlora gc`` frees the load in between, the
    reader raises ``DataError`` before its first row.
    """
    schema = published_schema(ids)
    if published is None:
        return pa.RecordBatchReader.from_batches(schema, [])
    column = tables.scores.c
    query = (
        sa.select(*(column[name] for name in (USER_ID, ITEM_ID, SCORE, POSITION)))
        .where(column.load_key == published.load_key, column.score_date == published.score_date)
        .order_by(column.user_id, column.position)
        .limit(limit)
    )
    if user is not None:
        query = query.where(column.user_id == user)
    rows = _rows(database, tables, published, query, schema, few=user is not None)
    return pa.RecordBatchReader.from_batches(schema, rows)


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
    query: sa.Select[Any],
    schema: pa.Schema,
    *,
    few: bool,
) -> Iterator[pa.RecordBatch]:
    rows = 0
    for batch in database.stream(query.where(not_freed(tables, published.load_key)), schema, few=few):
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
