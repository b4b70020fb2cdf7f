"""The newest interactions of one domain: what was shown last before a night, and what came of it."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa

from mmlora.duck import in_memory
from mmlora.resources import sql
from mmlora.schema import Id


def recent_rows(
    offline: Path, *, domain: Id, before: datetime, known_as_of: datetime, rows: int, days: int
) -> pa.Table:
    """Return a domain's newest interactions, of at most ``rows`` rows and ``days`` days.

    Days are read from the newest backwards until there are enough rows, twice as many each time.

    Args:
        offline: the offline store's folder.
        domain: the domain.
        before: only interactions before this midnight (UTC).
        known_as_of: only what was known by then (UTC).
        rows: the largest number of rows; of a day with more, a sample by hash.
        days: how many days back.

    Returns:
        ``user_id``, ``item_id`` and ``label``, in order of the ids.
    """
    query = sql("interactions_current.sql").strip().rstrip(";")
    chosen = (
        f"SELECT user_id, item_id, label FROM ({query}) WHERE domain_id = $domain "
        "AND event_timestamp < $before "
        "ORDER BY event_timestamp::DATE DESC, hash(user_id, item_id, event_timestamp) LIMIT $rows"
    )
    found: list[pa.Table] = []
    missing, read = rows, 0
    with in_memory() as connection:
        while missing and read < days:
            until = min(2 * read + 1, days)
            folders = [
                offline / "interactions" / f"day={(before - timedelta(days=back)).date()}"
                for back in range(read + 1, until + 1)
            ]
            read = until
            if files := [str(file) for folder in folders for file in folder.glob("*.parquet")]:
                given = {
                    "interactions": files,
                    "known_as_of": known_as_of,
                    "before": before,
                    "domain": domain,
                    "rows": missing,
                }
                found.append(connection.sql(chosen, params=given).to_arrow_table())
                missing -= found[-1].num_rows
    if not found:
        return pa.table({"user_id": [], "item_id": [], "label": []})
    order = [(name, "ascending") for name in ("user_id", "item_id", "label")]
    return pa.concat_tables(found).sort_by(order)
