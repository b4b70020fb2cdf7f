"""Point-in-time joins as DuckDB queries: prepare a feature view's rows, then join them as of a time.

An entity row at time t reads, among the view's rows with ``event <= t`` and ``created <= k``, the one with
the latest event, then the latest created. k is t itself, one moment for all rows, or no limit.

* One t for all rows (scoring): filter, keep one row per entity, hash join.
* Many t, one k or none: filter on k, keep the latest created per event, ASOF join on ``event <= t``.
* Many t, k = t: two inequalities, which DuckDB's ASOF join doesn't support. A row can be read from
  ``available`` = max(event, created) on. In that order, a row with an earlier event than a row available
  before it is never read; the rest have ascending events, so one ASOF join on ``available <= t`` finds the
  latest.

The time to live needs no further inequality: when the latest event has expired, so have all earlier ones. It
is applied after the join, so that the join needn't carry events.

Windows and joins carry only keys, times and row numbers. Features are gathered by row number afterwards,
which costs a fraction of sorting them as well and keeps the rows in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from mmlora.features.asof.source import ParquetSource, quote

ROW = "__row"
TIME = "__time"
Known = Literal["row", "cutoff", "all"]
"""Which rows can be read: those created by the entity row's time, those created by one moment, or all."""


@dataclass(frozen=True)
class ViewColumns:
    """The columns to read from one feature view.

    Attributes:
        name: the view's name, for messages.
        source: its Parquet source.
        keys: per key, its column in the entity rows and in the source.
        features: per feature, its column in the result and in the source.
        event: the source's event time column.
        created: the source's created time column, or empty.
        ttl: time to live of a row; None if rows don't expire.
    """

    name: str
    source: ParquetSource
    keys: tuple[tuple[str, str], ...]
    features: tuple[tuple[str, str], ...]
    event: str
    created: str
    ttl: timedelta | None


def read_sql(view: ViewColumns, scan: str, *, snapshot: bool, known: Known, whole: bool = False) -> str:
    """Return the query for a view's rows that a retrieval needs.

    It has the keys (``k0``...), the features (``f0``...), ``event`` and ``created``, for the keys of the
    entity rows only, or for all (``whole``). Parameters: ``$earliest`` and ``$latest`` entity row times,
    ``$known_as_of``.

    Args:
        view: the view.
        scan: the table function that reads its files.
        snapshot: all entity rows have the same time, so only the row to read is kept per entity.
        known: which rows can be read.
        whole: read the rows of entities that aren't in the entity rows as well.
    """
    columns = [f"source.{quote(source)} AS k{i}" for i, (_, source) in enumerate(view.keys)]
    columns += [f"source.{quote(source)} AS f{i}" for i, (_, source) in enumerate(view.features)]
    event, created = (f"source.{quote(c)}::TIMESTAMPTZ" for c in (view.event, view.created or view.event))
    columns += [f"{event} AS event", f"{created} AS created"]
    wanted = [f"{event} <= $latest::TIMESTAMPTZ"]
    if known != "all":
        wanted.append(f"{created} <= $known_as_of::TIMESTAMPTZ")
    if view.ttl:
        wanted.append(f"{event} >= $earliest::TIMESTAMPTZ - {_interval(view.ttl)}")
    semi_join = ""
    if view.keys and not whole:
        keys = ", ".join(quote(column) for column, _ in view.keys)
        same = [f"source.{quote(source)} = entities.{quote(column)}" for column, source in view.keys]
        semi_join = f"SEMI JOIN (SELECT DISTINCT {keys} FROM entities) AS entities ON {' AND '.join(same)}"
    query = f"SELECT {', '.join(columns)} FROM {scan} AS source {semi_join} WHERE {' AND '.join(wanted)}"
    if snapshot:
        entity = ", ".join(f"k{i}" for i in range(len(view.keys)))
        latest = "arg_max(source, (event, coalesce(created, '-infinity'::TIMESTAMPTZ)))"
        grouped = f" GROUP BY {entity}" if entity else " HAVING count(*) > 0"
        query = f"SELECT unnest(latest) FROM (SELECT {latest} AS latest FROM ({query}) AS source{grouped})"
    return query


def ready_sql(view: ViewColumns, number: int, *, known: Known) -> str:
    """Return the statement that creates ``ready<number>`` from ``source<number>``: the rows ready to join.

    It has the keys, ``available``, and ``source_row``, the row's number in the source table.

    Args:
        view: the view.
        number: the view's number.
        known: which rows can be read.
    """
    keys = [f"k{i}" for i in range(len(view.keys))]
    names = ", ".join([*keys, "rowid AS source_row"])
    source = f"FROM source{number}"
    if known != "row" or not view.created:
        kept = f"QUALIFY row_number() OVER ({_by([*keys, 'event'])} ORDER BY created DESC NULLS LAST) = 1"
        query = f"SELECT {names}, event AS available {source} {kept}"
    else:
        query = (
            f"SELECT * EXCLUDE (event, created) FROM "
            f"(SELECT {names}, event, created, greatest(event, created) AS available {source}) "
            f"WINDOW line AS ({_by(keys)} ORDER BY available, event, created) "
            "QUALIFY event = max(event) OVER (line ROWS UNBOUNDED PRECEDING) "
            "AND available IS DISTINCT FROM lead(available) OVER line"
        )
    return f"CREATE TEMP TABLE ready{number} AS {query}"


def features_sql(view: ViewColumns, number: int, *, all_rows: bool) -> str:
    """Return the query for features and ``event`` by ``source_row``, for all rows or for ready ones."""
    columns = ["source.rowid AS source_row", "source.event AS event"]
    names = ", ".join([*columns, *(f"source.f{i}" for i in range(len(view.features)))])
    query = f"SELECT {names} FROM source{number} AS source"
    if all_rows:
        return query
    return f"{query} SEMI JOIN ready{number} AS ready ON source.rowid = ready.source_row"


def join_sql(views: Sequence[ViewColumns], *, snapshot: bool) -> str:
    """Return the query for the source row that each row of ``entities`` reads per view (-1 where none)."""
    columns, joins = [f"entities.{ROW}"], []
    for number, view in enumerate(views):
        ready = f"ready{number}"
        columns.append(f"coalesce({ready}.source_row, -1) AS source_row{number}")
        on = [f"entities.{quote(column)} = {ready}.k{i}" for i, (column, _) in enumerate(view.keys)]
        # A snapshot's rows are already limited in time, but an entity row without a time must match nothing.
        on.append(f"entities.{TIME} >= {ready}.available")
        join = "LEFT JOIN" if snapshot else "ASOF LEFT JOIN"
        joins.append(f"{join} {ready} ON {' AND '.join(on)}")
    return f"SELECT {', '.join(columns)} FROM entities {' '.join(joins)}"


def pull_sql(
    scan: str, columns: Sequence[str], event: str, created: str, *, latest_of: Sequence[str] | None
) -> str:
    """Return the query for a source's rows in a time range, all rows or the latest per entity.

    Args:
        scan: the table function that reads the source.
        columns: the columns to read, by their names in the source.
        event: the event time column.
        created: the created time column, or empty.
        latest_of: the key columns per which to keep the latest row; None keeps all rows.

    Parameters: ``$start`` and ``$end``, either of which may be null.
    """
    time = f"{quote(event)}::TIMESTAMPTZ"
    query = (
        f"SELECT {', '.join(map(quote, columns))} FROM {scan} "
        f"WHERE ($start IS NULL OR {time} >= $start::TIMESTAMPTZ) "
        f"AND ($end IS NULL OR {time} <= $end::TIMESTAMPTZ)"
    )
    if latest_of is None:
        return query
    order = [f"{quote(column)} DESC NULLS LAST" for column in (event, created) if column]
    by = _by([quote(key) for key in latest_of])
    return f"{query} QUALIFY row_number() OVER ({by} ORDER BY {', '.join(order)}) = 1"


def _by(keys: Sequence[str]) -> str:
    return f"PARTITION BY {', '.join(keys)}" if keys else ""


def _interval(span: timedelta) -> str:
    return f"INTERVAL {span // timedelta(microseconds=1)} MICROSECONDS"
