"""Finds the versions that an import adds to what is stored; DuckDB over Arrow, nothing written.

An interaction's version is (key, known_at, label); a profile's is (id, event_timestamp, created_timestamp,
features). Rows that are stored already give no version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from mmlora.data.faults import SHOWN
from mmlora.errors import DataError, Fault
from mmlora.schema import (
    CREATED_TIMESTAMP,
    EVENT_TIMESTAMP,
    INTERACTION_KEY,
    KNOWN_AT,
    LABEL,
    TIMESTAMP,
    IdTypes,
    interactions_schema,
)

_KEY = ", ".join(INTERACTION_KEY)
_ORDER = f"event_timestamp, {_KEY}, known_at"

# A correction must be the later one even when clocks disagree: hence greatest().
_NEW_VERSIONS = f"""
SELECT {_KEY}, incoming.label, stored.label IS NOT NULL AS correction,
    stored.label IS NULL AND NOT on_time AS late,
    CASE
        WHEN stored.label IS NOT NULL THEN greatest($imported_at, stored.known_at + INTERVAL 1 MICROSECOND)
        WHEN on_time THEN event_timestamp
        ELSE $imported_at
    END AS known_at
FROM (
    SELECT *, $last_day IS NULL OR CAST(event_timestamp AS DATE) > $last_day AS on_time FROM incoming
) AS incoming
LEFT JOIN (
    SELECT {_KEY}, max(known_at) AS known_at, arg_max(label, known_at) AS label FROM stored GROUP BY {_KEY}
) AS stored USING ({_KEY})
WHERE stored.label IS DISTINCT FROM incoming.label
ORDER BY {_ORDER}
"""

# Rows that bring their known_at keep it, so a version is the same again only when that is equal too.
_OWN_VERSIONS = f"""
SELECT {_KEY}, incoming.label, known_at, at_key.versions IS NOT NULL AS correction,
    at_key.versions IS NULL AND known_at > event_timestamp AS late,
    same.label IS NOT NULL AS conflict
FROM incoming
LEFT JOIN stored AS same USING ({_KEY}, known_at)
LEFT JOIN (SELECT {_KEY}, count(*) AS versions FROM stored GROUP BY {_KEY}) AS at_key USING ({_KEY})
WHERE same.label IS DISTINCT FROM incoming.label
ORDER BY {_ORDER}
"""


@dataclass(frozen=True)
class NewInteractions:
    """The versions to append, in order of time, and how they came about."""

    versions: pa.Table
    corrections: int
    late: int


def new_interactions(
    incoming: pa.Table,
    files: Sequence[Path],
    *,
    ids: IdTypes,
    last_day: date | None,
    imported_at: datetime,
    source: str,
) -> NewInteractions:
    """Compare an import with the stored versions.

    Args:
        incoming: canonical interactions, one row a key (a version, if it brings its own ``known_at``).
        files: the stored files of the days that ``incoming`` holds.
        ids: the store's id types.
        last_day: the store's latest day; None when it is empty.
        imported_at: when rows that are late or corrected became known.
        source: name of the table, for messages.

    Raises:
        DataError: the store holds another label of the same ``known_at``.
    """
    own = KNOWN_AT in incoming.column_names
    with connect() as con:
        con.register("incoming", incoming)
        _view(con, "stored", files, empty=interactions_schema(ids))
        params = {} if own else {"imported_at": imported_at, "last_day": last_day}
        found = con.sql(_OWN_VERSIONS if own else _NEW_VERSIONS, params=params).to_arrow_table()
    if own:
        _refuse_conflicts(found, source)
    schema = interactions_schema(ids)
    versions = pa.Table.from_arrays([found.column(f.name).cast(f.type) for f in schema], schema=schema)
    count = {name: pc.sum(found.column(name)).as_py() or 0 for name in ("correction", "late")}
    return NewInteractions(versions, count["correction"], count["late"])


def _refuse_conflicts(found: pa.Table, source: str) -> None:
    rows = found.filter(found.column("conflict"))
    if rows.num_rows:
        first = tuple(str(row) for row in rows.select([*INTERACTION_KEY, LABEL]).slice(0, SHOWN).to_pylist())
        what = "the store holds another label for the same known_at; give the correction a later one"
        raise DataError(source, [Fault(what, KNOWN_AT, rows.num_rows, first)])


def connect() -> duckdb.DuckDBPyConnection:
    """Open DuckDB in memory, in UTC."""
    con = duckdb.connect()
    con.execute("SET TimeZone='UTC'")
    return con


def _view(con: duckdb.DuckDBPyConnection, name: str, files: Sequence[Path], *, empty: pa.Schema) -> None:
    if files:
        con.from_parquet([str(file) for file in files], hive_partitioning=False).create_view(name)
    else:
        con.register(name, empty.empty_table())


def new_profiles(incoming: pa.Table, stored: pa.Table | None, *, key: str, imported_at: datetime) -> pa.Table:
    """Return the profile versions that an import adds, with both timestamps, ordered by id and time.

    Args:
        incoming: a canonical profile table with the stored features in the stored types.
        stored: all stored versions, with the same features; None when there are none.
        key: the id column.
        imported_at: when rows that are late or changed became known.

    Without an ``event_timestamp`` an id's first version is valid from 1970-01-01, a changed one from
    ``imported_at``.
    """
    dated = EVENT_TIMESTAMP in incoming.column_names
    features = [name for name in incoming.column_names if name not in (key, EVENT_TIMESTAMP)]
    fields = [incoming.schema.field(name) for name in features]
    schema = pa.schema(
        [
            pa.field(key, incoming.schema.field(key).type),
            pa.field(EVENT_TIMESTAMP, TIMESTAMP),
            pa.field(CREATED_TIMESTAMP, TIMESTAMP),
            *fields,
        ]
    )
    with connect() as con:
        con.register("incoming", incoming)
        con.register("stored", schema.empty_table() if stored is None else stored)
        query = _profile_query(key, features, dated=dated)
        found = con.sql(query, params={"imported_at": imported_at}).to_arrow_table()
    return pa.Table.from_arrays([found.column(f.name).cast(f.type) for f in schema], schema=schema)


def _profile_query(key: str, features: Sequence[str], *, dated: bool) -> str:
    """Build the query; names are identifiers already, so quoting them is enough."""
    same = ", ".join([key, EVENT_TIMESTAMP] if dated else [key])
    differs = " OR ".join(f'incoming."{name}" IS DISTINCT FROM latest."{name}"' for name in features)
    columns = ", ".join(f'incoming."{name}"' for name in features)
    known = "latest.created_timestamp IS NOT NULL"
    if dated:
        event = "incoming.event_timestamp"
        on_time = "before.day IS NULL OR CAST(incoming.event_timestamp AS DATE) > before.day"
    else:
        event = f"CASE WHEN {known} THEN $imported_at ELSE TIMESTAMPTZ '1970-01-01 00:00:00+00' END"
        on_time = "before.day IS NULL"
    return f"""
    SELECT incoming.{key} AS {key}, {event} AS event_timestamp,
        CASE
            WHEN {known} THEN greatest($imported_at, latest.created_timestamp + INTERVAL 1 MICROSECOND)
            WHEN {on_time} THEN {event}
            ELSE $imported_at
        END AS created_timestamp, {columns}
    FROM incoming
    CROSS JOIN (SELECT CAST(max(event_timestamp) AS DATE) AS day FROM stored) AS before
    LEFT JOIN (
        SELECT * FROM stored QUALIFY row_number() OVER (PARTITION BY {same} ORDER BY event_timestamp DESC,
        created_timestamp DESC) = 1
    ) AS latest USING ({same})
    WHERE NOT ({known}) OR {differs}
    ORDER BY 1, 2
    """
