"""Checks any interactions table and gives it canonical types; pure.

Other columns of the table are kept unchanged, for the store to report as ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmlora.data.columns import to_id, to_label
from mmlora.data.faults import SHOWN, FaultList
from mmlora.data.hints import missing
from mmlora.data.times import to_times
from mmlora.duck import in_memory
from mmlora.errors import Fault
from mmlora.schema import DOMAIN_ID, EVENT_TIMESTAMP, INTERACTION_KEY, ITEM_ID, KNOWN_AT, LABEL, USER_ID

REQUIRED = (*INTERACTION_KEY, LABEL)


def canonical_interactions(
    table: pa.Table,
    *,
    source: str,
    now: datetime,
    locate: Callable[[int], str] | None = None,
    time_unit: str = "s",
) -> pa.Table:
    """Return the table with canonical columns first, in canonical types, duplicates collapsed.

    Args:
        table: at least :data:`REQUIRED`; ``known_at`` if the data has its own.
        source: the file or table, for messages.
        now: times later than this are faults.
        locate: names a row for messages.
        time_unit: unit of epoch numbers.

    Raises:
        DataError: lists every fault of the table.
    """
    faults = FaultList(table, REQUIRED, locate)
    _check_names(table, faults)
    found = {name: _convert(table, name, faults, now, time_unit) for name in (*REQUIRED, KNOWN_AT)}
    columns = {name: column for name, column in found.items() if column is not None}
    if KNOWN_AT in columns and EVENT_TIMESTAMP in columns:
        early = pc.less(columns[KNOWN_AT], columns[EVENT_TIMESTAMP])
        faults.add_rows("known before it happened", KNOWN_AT, early)
    key = (*INTERACTION_KEY, KNOWN_AT) if KNOWN_AT in table.column_names else INTERACTION_KEY
    keep = _first_of_each_key(columns, key, faults) if columns.keys() >= {*key, LABEL} else None
    faults.raise_if_any(source)
    extra = [name for name in table.column_names if name not in columns]
    result = pa.table({**columns, **{name: table.column(name) for name in extra}})
    return result if keep is None else result.take(keep)


def _check_names(table: pa.Table, faults: FaultList) -> None:
    if table.num_rows == 0:
        faults.add("no rows")
    for name in dict.fromkeys(table.column_names):
        if table.column_names.count(name) > 1:
            faults.add("more than one column of this name", name)
    for name in REQUIRED:
        if name not in table.column_names:
            faults.add(missing(name, table.column_names), name)


def _convert(
    table: pa.Table, name: str, faults: FaultList, now: datetime, unit: str
) -> pa.ChunkedArray | None:
    if table.column_names.count(name) != 1:
        return None
    column = table.column(name)
    if name in (USER_ID, ITEM_ID, DOMAIN_ID):
        return to_id(column, name, faults)
    if name == LABEL:
        return to_label(column, name, faults)
    return to_times(column, name, faults, latest=now, unit=unit)


def _first_of_each_key(
    columns: dict[str, pa.ChunkedArray], key: tuple[str, ...], faults: FaultList
) -> np.ndarray | None:
    """Return the row numbers to keep, or None if no key occurs twice; differing labels are faults."""
    names = ", ".join(key)
    rows = pa.table({**{name: columns[name] for name in (*key, LABEL)}})
    rows = rows.append_column("row", pa.array(np.arange(rows.num_rows)))
    with in_memory() as con:
        con.register("rows", rows)
        # Almost every import has no duplicates at all, so the cheap query comes first.
        con.execute(
            f"CREATE TEMP TABLE twice AS SELECT {names}, min(label) <> max(label) AS differ"
            f" FROM rows GROUP BY {names} HAVING count(*) > 1"
        )
        if not con.sql("SELECT 1 FROM twice LIMIT 1").fetchall():
            return None
        _note_conflicts(con, names, faults)
        kept = con.sql(f"SELECT min(row) AS row FROM rows GROUP BY {names} ORDER BY row").to_arrow_table()
    return np.asarray(kept.column("row"))


def _note_conflicts(con: duckdb.DuckDBPyConnection, names: str, faults: FaultList) -> None:
    pairs = con.sql(
        f"""
        SELECT min(row) AS a, max(row) AS b, count(*) OVER () AS keys
        FROM (
            SELECT {names}, label, min(row) AS row FROM rows SEMI JOIN (FROM twice WHERE differ) USING
            ({names}) WHERE label IS NOT NULL GROUP BY {names}, label
        )
        GROUP BY {names} ORDER BY a LIMIT {SHOWN}
        """
    ).fetchall()
    if pairs:
        quoted = faults.quote([row for pair in pairs for row in pair[:2]])
        what = "the same user, item, domain and time with labels 0 and 1; keep one"
        faults.found.append(Fault(what, LABEL, 2 * pairs[0][2], quoted))
