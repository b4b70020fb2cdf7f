"""Statistics of the columns of an imported profile table: counts, lengths, quantiles, date formats.

They are taken over each entity's latest version. :mod:`mmlora.features.columns` chooses the columns' kinds by
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

from mmlora.duck import in_memory
from mmlora.features.asof.source import literal, quote
from mmlora.features.dates import NUMBER_FORMATS, TEXT_FORMATS, parse_sql
from mmlora.schema import CREATED_TIMESTAMP, ENTITY_KEYS, EVENT_TIMESTAMP, Entity

MOST_VALUES = 10_000
"""Maximum number of distinct values kept for comparison with other columns."""


@dataclass(frozen=True)
class ColumnStats:
    """One column of a profile table.

    Attributes:
        name: the column's name.
        type: its Arrow type.
        rows: number of entities.
        missing: entities without a value.
        distinct: number of distinct values; of the elements for lists of text, 0 for vectors.
        values: the distinct values of texts, integers and lists of text, unless there are too many.
        low, median, high, top: minimum, median, 99% quantile and maximum of numbers.
        words: mean number of words of a text.
        dates: date formats and the share of values that each parses; empty when none fits.
        longest: 99.9% quantile of the lengths of lists of text.
        widths: distinct lengths of lists of floats.
    """

    name: str
    type: pa.DataType
    rows: int
    missing: int
    distinct: int
    values: frozenset[Any] = frozenset()
    low: float = 0.0
    median: float = 0.0
    high: float = 0.0
    top: float = 0.0
    words: float = 0.0
    dates: tuple[tuple[str, float], ...] = ()
    longest: int = 0
    widths: tuple[int, ...] = ()

    @property
    def valid(self) -> int:
        """Entities with a value."""
        return self.rows - self.missing


def profile_schema(folder: Path) -> pa.Schema:
    """Return the feature columns of a profile table (empty when the table does not exist)."""
    schemas = [pq.read_schema(path).remove_metadata() for path in sorted(folder.glob("*.parquet"))]
    reserved = {*ENTITY_KEYS.values(), EVENT_TIMESTAMP, CREATED_TIMESTAMP}
    whole = pa.unify_schemas(schemas, promote_options="permissive") if schemas else pa.schema([])
    return pa.schema([field for field in whole if field.name not in reserved])


def read_stats(offline: Path, entity: Entity) -> list[ColumnStats]:
    """Return the statistics of each column of an entity's profiles; empty without profiles."""
    folder = offline / "profiles" / entity
    schema = profile_schema(folder)
    if not len(schema):
        return []
    files = ", ".join(literal(str(path)) for path in sorted(folder.glob("*.parquet")))
    # Vectors are the bulk of a table, and only their lengths are needed.
    columns = [
        f"len({quote(f.name)}) AS {quote(f.name)}" if _is_vector(f.type) else quote(f.name) for f in schema
    ]
    with in_memory(offline / ".spill", ordered=False) as connection:
        connection.execute(
            f"CREATE TEMP TABLE latest AS SELECT {', '.join(columns)} "
            f"FROM read_parquet([{files}], union_by_name = true) "
            f"QUALIFY row_number() OVER (PARTITION BY {ENTITY_KEYS[entity]} "
            f"ORDER BY {EVENT_TIMESTAMP} DESC, {CREATED_TIMESTAMP} DESC) = 1"
        )
        return [_stats(connection, field.name, field.type) for field in schema]


def _is_vector(kind: pa.DataType) -> bool:
    return bool(pt.is_list(kind) and pt.is_floating(kind.value_type))


def _stats(connection: duckdb.DuckDBPyConnection, name: str, kind: pa.DataType) -> ColumnStats:
    column = quote(name)
    rows, valid = _fetch_row(connection, f"SELECT count(*), count({column}) FROM latest")
    stats = ColumnStats(name, kind, rows, rows - valid, distinct=0)
    if _is_vector(kind):
        widths = _column(connection, f"SELECT DISTINCT {column} FROM latest WHERE {column} > 0 ORDER BY 1")
        return replace(stats, widths=tuple(widths))
    if pt.is_list(kind):
        return _list_stats(connection, column, stats)
    if pt.is_string(kind):
        return _text_stats(connection, column, stats)
    if pt.is_integer(kind) or pt.is_floating(kind):
        return _number_stats(connection, column, stats)
    (distinct,) = _fetch_row(connection, f"SELECT count(DISTINCT {column}) FROM latest")
    return replace(stats, distinct=distinct)


def _list_stats(connection: duckdb.DuckDBPyConnection, column: str, stats: ColumnStats) -> ColumnStats:
    (longest,) = _fetch_row(
        connection, f"SELECT coalesce(quantile_disc(len({column}), 0.999), 0) FROM latest"
    )
    distinct, values = _values(connection, f"(SELECT unnest({column}) AS value FROM latest)", "value")
    return replace(stats, longest=int(longest), distinct=distinct, values=values)


def _text_stats(connection: duckdb.DuckDBPyConnection, column: str, stats: ColumnStats) -> ColumnStats:
    words = rf"avg(len(string_split_regex(trim({column}), '\s+')))"
    (mean,) = _fetch_row(connection, f"SELECT coalesce({words}, 0) FROM latest")
    dates = _dates(connection, column, TEXT_FORMATS)
    distinct, values = _values(connection, "latest", column)
    return replace(stats, words=float(mean), dates=dates, distinct=distinct, values=values)


def _number_stats(connection: duckdb.DuckDBPyConnection, column: str, stats: ColumnStats) -> ColumnStats:
    query = f"SELECT min({column}), quantile_cont({column}, [0.5, 0.99]), max({column}) FROM latest"
    low, quantiles, top = _fetch_row(connection, query)
    low, median, high, top = (float(value or 0) for value in (low, *(quantiles or (None, None)), top))
    stats = replace(stats, low=low, median=median, high=high, top=top)
    if pt.is_integer(stats.type):
        dates = _dates(connection, column, NUMBER_FORMATS)
        distinct, values = _values(connection, "latest", column)
        return replace(stats, dates=dates, distinct=distinct, values=values)
    (distinct,) = _fetch_row(connection, f"SELECT count(DISTINCT {column}) FROM latest")
    return replace(stats, distinct=distinct)


def _dates(
    connection: duckdb.DuckDBPyConnection, column: str, formats: Sequence[str]
) -> tuple[tuple[str, float], ...]:
    """Return the formats that parse some values as dates, with their share of all values, the best first."""
    counts = ", ".join(f"count({parse_sql(column, written)})" for written in formats)
    valid, *parsed = _fetch_row(connection, f"SELECT count({column}), {counts} FROM latest")
    shares = [(written, count / valid) for written, count in zip(formats, parsed, strict=True) if count]
    return tuple(sorted(shares, key=lambda format_share: -format_share[1]))


def _values(connection: duckdb.DuckDBPyConnection, source: str, column: str) -> tuple[int, frozenset[Any]]:
    """Return the number of distinct values, and these unless they are too many."""
    (distinct,) = _fetch_row(connection, f"SELECT count(DISTINCT {column}) FROM {source}")
    if distinct > MOST_VALUES:
        return distinct, frozenset()
    query = f"SELECT DISTINCT {column} FROM {source} WHERE {column} IS NOT NULL"
    return distinct, frozenset(_column(connection, query))


def _fetch_row(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = connection.execute(query).fetchone()
    assert row is not None
    return row


def _column(connection: duckdb.DuckDBPyConnection, query: str) -> list[Any]:
    return [row[0] for row in connection.execute(query).fetchall()]
