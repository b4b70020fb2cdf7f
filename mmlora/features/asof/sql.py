"""Point-in-time joins as DuckDB queries: a feature view's rows made ready, then joined as of a time.

An entity row of time t wants, of the view's rows with ``event <= t`` and ``created <= k``, the latest event,
and of equals the latest created. k is t itself, one moment for all, or no limit.

* One t for all rows (scoring): filter, keep the first of each entity, hash join.
* Many t, one k or none: filter on k, keep the latest created of each event, ASOF join on ``event <= t``.
* Many t, k = t: two inequalities, which DuckDB's ASOF join refuses. A row can be read from ``available`` =
  max(event, created) on. Ordered by that, a row whose event is behind one available before it will never be
  read; the others have rising events, so one ASOF join on ``available <= t`` finds the latest event.

The time to live needs no inequality of its own: when the latest event has expired, so have all before. It is
looked at after the join, so that the join needn't carry events along.

Windows and joins move keys, times and row numbers only. Features are gathered by row number afterwards, which
costs a fraction of sorting them along, and gives rows their order for nothing.
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
"""What a row may know: what was created by its own time, by one moment for all, or whatever is there."""


@dataclass(frozen=True)
class ViewColumns:
    """What to read of one feature view.

    Attributes:
        name: the view's name, for messages.
        source: where its Parquet is.
        keys: the entity rows' column of each key, and the source's.
        features: the result's column of each feature, and the source's.
        event: the source's event time column.
        created: the source's created time column, or empty.
        ttl: how long a row can be read; None for ever.
    """

    name: str
    source: ParquetSource
    keys: tuple[tuple[str, str], ...]
    features: tuple[tuple[str, str], ...]
    event: str
    created: str
    ttl: timedelta | None


def read_sql(view: ViewColumns, scan: str, number: int, *, snapshot: bool, known: Known) -> str:
    """Return the statement that reads what a retrieval can need of a view, as table ``source<number>``.

    It has the keys (``k0``...), the features (``f0``...), ``event`` and ``created``. Keys that nobody asks
    for are left out. Parameters: ``$earliest`` and ``$latest`` time asked for, ``$known_as_of``.

    Args:
        view: the view.
        scan: what reads its files.
        number: the view's number.
        snapshot: all entity rows have one time, so only the row of an entity that will be read is kept.
        known: what a row may know.
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
    asked = ""
    if view.keys:
        keys = ", ".join(quote(column) for column, _ in view.keys)
        same = [f"source.{quote(source)} = asked.{quote(column)}" for column, source in view.keys]
        asked = f"SEMI JOIN (SELECT DISTINCT {keys} FROM asked) AS asked ON {' AND '.join(same)}"
    query = f"SELECT {', '.join(columns)} FROM {scan} AS source {asked} WHERE {' AND '.join(wanted)}"
    if snapshot:  # the one row of an entity that will be read: no other is worth a place in the table
        entity = ", ".join(f"k{i}" for i in range(len(view.keys)))
        latest = "arg_max(source, (event, coalesce(created, '-infinity'::TIMESTAMPTZ)))"
        grouped = f" GROUP BY {entity}" if entity else " HAVING count(*) > 0"
        query = f"SELECT unnest(latest) FROM (SELECT {latest} AS latest FROM ({query}) AS source{grouped})"
    return f"CREATE TEMP TABLE source{number} AS {query}"


def ready_sql(view: ViewColumns, number: int, *, snapshot: bool, known: Known) -> str:
    """Return the statement that makes ``ready<number>`` of ``source<number>``: rows as they're read.

    It has the keys, ``available`` and ``place``, the row's number in the source table.

    Args:
        view: the view.
        number: the view's number.
        snapshot: all entity rows have one time; the source has one row an entity.
        known: what a row may know.
    """
    keys = [f"k{i}" for i in range(len(view.keys))]
    names = ", ".join([*keys, "rowid AS place"])
    source = f"FROM source{number}"
    if snapshot:
        query = f"SELECT {names}, event AS available {source}"
    elif known != "row" or not view.created:
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
    """Return the query for features and ``event`` by ``place``, of all rows or of those that are ready."""
    columns = ["source.rowid AS place", "source.event AS event"]
    names = ", ".join([*columns, *(f"source.f{i}" for i in range(len(view.features)))])
    query = f"SELECT {names} FROM source{number} AS source"
    return query if all_rows else f"{query} SEMI JOIN ready{number} AS ready ON source.rowid = ready.place"


def join_sql(views: Sequence[ViewColumns], *, snapshot: bool) -> str:
    """Return the one query that says which row of each view a row of ``asked`` reads (-1 where none)."""
    columns, joins = [f"asked.{ROW}"], []
    for number, view in enumerate(views):
        ready = f"ready{number}"
        columns.append(f"coalesce({ready}.place, -1) AS p{number}")
        on = [f"asked.{quote(column)} = {ready}.k{i}" for i, (column, _) in enumerate(view.keys)]
        # One time for all was seen to while the rows were made ready; that of a row without a time wasn't.
        time = [f"asked.{TIME} >= {ready}.available"]
        how = "LEFT JOIN" if snapshot else "ASOF LEFT JOIN"
        joins.append(f"{how} {ready} ON {' AND '.join([*on, *time])}")
    return f"SELECT {', '.join(columns)} FROM asked {' '.join(joins)}"


def pull_sql(
    scan: str, columns: Sequence[str], event: str, created: str, *, latest_of: Sequence[str] | None
) -> str:
    """Return the query for a source's rows of a time range, all of them or the latest of each entity.

    Args:
        scan: the source.
        columns: what to read, by the source's own names.
        event: its event time column.
        created: its created time column, or empty.
        latest_of: the key columns of which to keep the latest row; None keeps all rows.

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
