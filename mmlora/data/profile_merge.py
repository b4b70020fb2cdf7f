"""Finds the profile versions that an import adds: from when each is valid, and from when it is known.

======================================  ================================  =========================
a row                                   is valid from                     is known from
======================================  ================================  =========================
with a date of its own                  that date                         that date if it is on time
undated, in an entity's first delivery  see ``since``                     the same
undated, a new id or other values       the delivery                      the delivery
======================================  ================================  =========================

A row is on time if it is in a first delivery, or its date is a later day than any stored before; other rows,
and new versions of a stored date, are known from the delivery. A delivery counts from when the interactions
imported with it are complete, so that tonight's profiles are known tonight
(:meth:`mmlora.data.store.OfflineStore.write`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import pyarrow as pa

from mmlora.duck import in_memory
from mmlora.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, TIMESTAMP


def new_profiles(
    incoming: pa.Table, stored: pa.Table | None, *, key: str, delivered: datetime, since: pa.Table | None
) -> pa.Table:
    """Return the profile versions that an import adds, with both timestamps, ordered by id and time.

    Args:
        incoming: a canonical profile table with the stored features in the stored types; a null
            ``event_timestamp`` means undated.
        stored: all stored versions, with the same features; None if there are none.
        key: the id column.
        delivered: when the delivery became known.
        since: in a first delivery, from when the undated rows of an id are valid (``since``); missing ids are
            valid from the delivery.
    """
    features = [name for name in incoming.column_names if name not in (key, EVENT_TIMESTAMP)]
    kind = incoming.schema.field(key).type
    schema = pa.schema(
        [
            pa.field(key, kind),
            pa.field(EVENT_TIMESTAMP, TIMESTAMP),
            pa.field(CREATED_TIMESTAMP, TIMESTAMP),
            *[incoming.schema.field(name) for name in features],
        ]
    )
    if EVENT_TIMESTAMP not in incoming.column_names:
        incoming = incoming.append_column(EVENT_TIMESTAMP, pa.nulls(incoming.num_rows, TIMESTAMP))
    none = pa.schema([(key, kind), ("since", TIMESTAMP)]).empty_table()
    with in_memory() as con:
        con.register("incoming", incoming)
        con.register("stored", schema.empty_table() if stored is None else stored)
        con.register("since", none if since is None else since)
        query = _query(key, features)
        found = con.sql(query, params={"delivered": delivered}).to_arrow_table()
    return pa.Table.from_arrays([found.column(f.name).cast(f.type) for f in schema], schema=schema)


def _query(key: str, features: Sequence[str]) -> str:
    """Build the query; names are already identifiers, so quoting them is enough."""
    differs = " OR ".join(f'incoming."{name}" IS DISTINCT FROM latest."{name}"' for name in features)
    columns = ", ".join(f'incoming."{name}"' for name in features)
    order = "ORDER BY event_timestamp DESC, created_timestamp DESC"
    return f"""
    WITH latest_of_id AS (
        FROM stored QUALIFY row_number() OVER (PARTITION BY {key} {order}) = 1
    ), latest_of_date AS (
        FROM stored QUALIFY row_number() OVER (PARTITION BY {key}, event_timestamp {order}) = 1
    ), before AS (
        SELECT CAST(max(least(event_timestamp, created_timestamp)) AS DATE) AS day FROM stored
    )
    SELECT incoming.{key} AS {key}, incoming.event_timestamp AS event_timestamp,
        CASE
            WHEN latest.{key} IS NOT NULL
                THEN greatest($delivered, latest.created_timestamp + INTERVAL 1 MICROSECOND)
            WHEN before.day IS NULL OR CAST(incoming.event_timestamp AS DATE) > before.day
                THEN least(incoming.event_timestamp, $delivered)
            ELSE $delivered
        END AS created_timestamp, {columns}
    FROM incoming CROSS JOIN before
    LEFT JOIN latest_of_date AS latest USING ({key}, event_timestamp)
    WHERE incoming.event_timestamp IS NOT NULL AND (latest.{key} IS NULL OR {differs})
    UNION ALL
    SELECT incoming.{key},
        CASE
            WHEN latest.{key} IS NOT NULL THEN greatest($delivered, latest.event_timestamp)
            WHEN before.day IS NULL THEN coalesce(least(since.since, $delivered), $delivered)
            ELSE $delivered
        END,
        CASE
            WHEN latest.{key} IS NOT NULL
                THEN greatest($delivered, latest.created_timestamp + INTERVAL 1 MICROSECOND)
            WHEN before.day IS NULL THEN coalesce(least(since.since, $delivered), $delivered)
            ELSE $delivered
        END, {columns}
    FROM incoming CROSS JOIN before
    LEFT JOIN latest_of_id AS latest USING ({key})
    LEFT JOIN since USING ({key})
    WHERE incoming.event_timestamp IS NULL AND (latest.{key} IS NULL OR {differs})
    ORDER BY 1, 2
    """
