"""Point-in-time joins as DuckDB queries: a feature view's rows made ready, then joined as of a time.

An entity row of time t wants, of the view's rows with ``event <= t`` and ``created <= k``, the latest event,
and of equals the latest created. k is t itself, or one moment for all.

* One t for all rows (scoring): filter, keep the first of each entity, hash join.
* Many t, one k: filter on k, keep the latest created of each event, ASOF join on ``event <= t``.
* Many t, k = t: two inequalities, which DuckDB's ASOF join refuses. A row can be read from ``available`` =
  max(event, created) on. Ordered by that, a row whose event is behind one available before it will never be
  read; the others have rising events, so one ASOF join on ``available <= t`` finds the latest event.

The time to live needs no inequality of its own: when the latest event has expired, so have all before.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

ROW = "__row"
TIME = "__time"


def quote(name: str) -> str:
    """Quote an identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a string."""
    return "'" + text.replace("'", "''") + "'"


@dataclass(frozen=True)
class ViewColumns:
    """What to read of one feature view.

    Attributes:
        name: the view's name, for messages.
        path: Parquet file, folder or glob.
        keys: the entity rows' column of each key, and the source's.
        features: the result's column of each feature, and the source's.
        event: the source's event time column.
        created: the source's created time column, or empty.
        ttl: how long a row can be read; None for ever.
    """

    name: str
    path: str
    keys: tuple[tuple[str, str], ...]
    features: tuple[tuple[str, str], ...]
    event: str
    created: str
    ttl: timedelta | None

    @property
    def scan(self) -> str:
        """The source as a table function."""
        return f"read_parquet({literal(self.path)}, union_by_name = true)"


def prepare_sql(view: ViewColumns, *, snapshot: bool, cutoff: bool) -> str:
    """Return the query that makes a view ready to be joined with the table ``asked``.

    The result has the keys (``k0``...), the features (``f0``...), ``event`` and ``available``.

    Args:
        view: the view.
        snapshot: all entity rows have one time; one row an entity is kept.
        cutoff: there is one ``$known_as_of`` for all; else each row knows what was known at its own time.

    Parameters of the query: ``$earliest`` and ``$latest`` time asked for, ``$known_as_of``.
    """
    keys = [f"k{i}" for i in range(len(view.keys))]
    columns = [f"{quote(source)} AS k{i}" for i, (_, source) in enumerate(view.keys)]
    columns += [f"{quote(source)} AS f{i}" for i, (_, source) in enumerate(view.features)]
    event, created = (f"{quote(c)}::TIMESTAMPTZ" for c in (view.event, view.created or view.event))
    columns += [f"{event} AS event", f"{created} AS created"]
    wanted = [f"{event} <= $latest::TIMESTAMPTZ", f"{created} <= $known_as_of::TIMESTAMPTZ"]
    if view.ttl:
        wanted.append(f"{event} >= $earliest::TIMESTAMPTZ - {_interval(view.ttl)}")
    same = " AND ".join(f"source.{quote(source)} = asked.{quote(column)}" for column, source in view.keys)
    read = (
        f"SELECT {', '.join(columns)} FROM {view.scan} AS source SEMI JOIN asked ON {same} "
        f"WHERE {' AND '.join(wanted)}"
    )
    by = ", ".join(keys)
    if snapshot:
        return (
            f"SELECT *, event AS available FROM ({read}) "
            f"QUALIFY row_number() OVER (PARTITION BY {by} ORDER BY event DESC, created DESC) = 1"
        )
    if cutoff or not view.created:
        return (
            f"SELECT *, event AS available FROM ({read}) "
            f"QUALIFY row_number() OVER (PARTITION BY {by}, event ORDER BY created DESC) = 1"
        )
    return (
        f"SELECT * FROM (SELECT *, greatest(event, created) AS available FROM ({read})) "
        f"WINDOW line AS (PARTITION BY {by} ORDER BY available, event, created) "
        "QUALIFY event = max(event) OVER (line ROWS UNBOUNDED PRECEDING) "
        "AND available IS DISTINCT FROM lead(available) OVER line"
    )


def join_sql(view: ViewColumns, prepared: str, *, snapshot: bool) -> str:
    """Return the query that gives each row of ``asked`` (by its number) the view's features."""
    features = []
    for i, (name, _) in enumerate(view.features):
        value = f"ready.f{i}"
        if view.ttl:
            value = f"CASE WHEN ready.event >= asked.{TIME} - {_interval(view.ttl)} THEN {value} END"
        features.append(f"{value} AS {quote(name)}")
    on = [f"asked.{quote(column)} = ready.k{i}" for i, (column, _) in enumerate(view.keys)]
    join = "LEFT JOIN" if snapshot else "ASOF LEFT JOIN"
    if not snapshot:
        on.append(f"asked.{TIME} >= ready.available")
    chosen = ", ".join(features)
    return f"SELECT asked.{ROW}, {chosen} FROM asked {join} {prepared} AS ready ON {' AND '.join(on)}"


def _interval(span: timedelta) -> str:
    return f"INTERVAL {span // timedelta(microseconds=1)} MICROSECONDS"
