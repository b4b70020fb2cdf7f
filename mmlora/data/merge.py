"""Finds the versions that an import adds to the stored ones, with DuckDB over Arrow; writes nothing.

An interaction's version is (key, known_at, label), and label -1 withdraws it; a profile's is (id,
event_timestamp, created_timestamp, features), see :mod:`mmlora.data.profile_merge`. Rows that are already
stored add no version.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Literal

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from mmlora.data.faults import SHOWN
from mmlora.duck import in_memory
from mmlora.errors import DataError, Fault
from mmlora.schema import (
    DOMAIN_ID,
    EVENT_TIMESTAMP,
    INTERACTION_KEY,
    KNOWN_AT,
    LABEL,
    Id,
    IdTypes,
    interactions_schema,
)

Replace = Literal["day", "domain-day"]
"""What a delivery may be the whole truth for: its days, or its days in its domains."""

_KEY = ", ".join(INTERACTION_KEY)
_ORDER = f"event_timestamp, {_KEY}, known_at"

WITHDRAWN = -1
"""The label of a version that withdraws the interaction."""

# A correction must be the later one even when clocks disagree: hence greatest().
_NEW_VERSIONS = f"""
SELECT {_KEY}, incoming.label, stored.label IS NOT NULL AS correction,
    stored.label IS NULL AND NOT on_time AS late,
    CASE
        WHEN stored.label = incoming.label THEN event_timestamp
        WHEN stored.label IS NOT NULL THEN greatest($imported_at, stored.known_at + INTERVAL 1 MICROSECOND)
        WHEN on_time THEN event_timestamp
        ELSE $imported_at
    END AS known_at
FROM (
    SELECT incoming.*, $history OR day IS NULL OR CAST(event_timestamp AS DATE) > day AS on_time
    FROM incoming LEFT JOIN last_days USING (domain_id)
) AS incoming
LEFT JOIN (
    SELECT {_KEY}, max(known_at) AS known_at, min(known_at) AS first_known, arg_max(label, known_at) AS label
    FROM stored GROUP BY {_KEY}
) AS stored USING ({_KEY})
WHERE stored.label IS DISTINCT FROM incoming.label OR ($history AND stored.first_known > event_timestamp)
ORDER BY {_ORDER}
"""

# Rows that have their own known_at keep it, so a version is unchanged only if that is equal too.
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


# Stored rows of the delivery's days (and domains) that the delivery lacks.
_GONE = f"""
SELECT {_KEY}, max(known_at) AS known_at
FROM stored SEMI JOIN ({{scope}}) AS scope ON {{on}}
ANTI JOIN incoming USING ({_KEY})
GROUP BY {_KEY} HAVING arg_max(label, known_at) <> {WITHDRAWN}
"""
_WITHDRAWALS = f"""
SELECT {_KEY}, CAST({WITHDRAWN} AS TINYINT) AS label, true AS correction, false AS late,
    greatest($imported_at, known_at + INTERVAL 1 MICROSECOND) AS known_at
FROM ({_GONE}) ORDER BY {_ORDER}
"""
_SCOPES: dict[Replace, tuple[str, str]] = {
    "day": (
        "SELECT CAST(event_timestamp AS DATE) AS day FROM incoming UNION SELECT unnest($days::DATE[])",
        "CAST(stored.event_timestamp AS DATE) = scope.day",
    ),
    "domain-day": (
        "SELECT DISTINCT CAST(event_timestamp AS DATE) AS day, domain_id FROM incoming",
        "CAST(stored.event_timestamp AS DATE) = scope.day AND stored.domain_id = scope.domain_id",
    ),
}


@dataclass(frozen=True)
class NewInteractions:
    """The versions to append, in order of time, and counts by kind.

    Attributes:
        versions: canonical rows.
        corrections: number of versions of stored keys, without withdrawals.
        late: number of new keys that became known only after they happened.
        withdrawn: number of keys that a replacing delivery no longer has.
        on_time_through: the latest event that is new and on time; None without any.
    """

    versions: pa.Table
    corrections: int
    late: int
    withdrawn: int
    on_time_through: datetime | None


def new_interactions(
    incoming: pa.Table,
    files: Sequence[Path],
    *,
    ids: IdTypes,
    last_days: Mapping[Id, date],
    imported_at: datetime,
    source: str,
    history: bool = False,
    replace: Replace | None = None,
    days: Collection[date] = (),
) -> NewInteractions:
    """Compare an import with the stored versions.

    Args:
        incoming: canonical interactions, one row per key (per version, if it has its own ``known_at``).
        files: the stored files of the days in ``incoming``, and of ``days``.
        ids: the store's id types.
        last_days: each stored domain's latest day; later rows are on time.
        imported_at: when late or corrected rows became known.
        source: name of the table, for messages.
        history: whether all rows count as known when they happened.
        replace: whether stored rows of the delivered days (and domains) that the delivery lacks are
            withdrawn.
        days: with ``replace`` by day, further days for which ``incoming`` is the whole truth.

    Raises:
        DataError: the store has another label with the same ``known_at``.
    """
    own = KNOWN_AT in incoming.column_names
    with in_memory() as con:
        con.register("incoming", incoming)
        con.register("last_days", _last_days(last_days, ids))
        _view(con, "stored", files, empty=interactions_schema(ids))
        params = {} if own else {"imported_at": imported_at, "history": history}
        found = con.sql(_OWN_VERSIONS if own else _NEW_VERSIONS, params=params).to_arrow_table()
        gone = None
        if replace is not None:
            scope, on = _SCOPES[replace]
            query = _WITHDRAWALS.format(scope=scope, on=on)
            of_days = {"days": [day.isoformat() for day in days]} if replace == "day" else {}
            gone = con.sql(query, params={"imported_at": imported_at, **of_days}).to_arrow_table()
    if own:
        _refuse_conflicts(found, source)
    count = {name: pc.sum(found.column(name)).as_py() or 0 for name in ("correction", "late")}
    on_time = found.filter(pc.invert(pc.or_(found.column("correction"), found.column("late"))))
    through = pc.max(on_time.column(EVENT_TIMESTAMP)).as_py()
    versions = _versions(found, ids)
    if gone is not None and gone.num_rows:
        versions = pa.concat_tables([versions, _versions(gone, ids)]).sort_by(
            [(name, "ascending") for name in (EVENT_TIMESTAMP, *INTERACTION_KEY, KNOWN_AT)]
        )
    withdrawn = gone.num_rows if gone is not None else 0
    return NewInteractions(versions, count["correction"], count["late"], withdrawn, through)


def _versions(found: pa.Table, ids: IdTypes) -> pa.Table:
    schema = interactions_schema(ids)
    return pa.Table.from_arrays([found.column(f.name).cast(f.type) for f in schema], schema=schema)


def _last_days(last_days: Mapping[Id, date], ids: IdTypes) -> pa.Table:
    domains = pa.array(list(last_days), ids.arrow("domain"))
    return pa.table({DOMAIN_ID: domains, "day": pa.array(last_days.values(), pa.date32())})


def _refuse_conflicts(found: pa.Table, source: str) -> None:
    rows = found.filter(found.column("conflict"))
    if rows.num_rows:
        first = tuple(str(row) for row in rows.select([*INTERACTION_KEY, LABEL]).slice(0, SHOWN).to_pylist())
        what = "the store has another label with the same known_at; give the correction a later known_at"
        raise DataError(source, [Fault(what, KNOWN_AT, rows.num_rows, first)])


def _view(con: duckdb.DuckDBPyConnection, name: str, files: Sequence[Path], *, empty: pa.Schema) -> None:
    if files:
        con.from_parquet([str(file) for file in files], hive_partitioning=False).create_view(name)
    else:
        con.register(name, empty.empty_table())
