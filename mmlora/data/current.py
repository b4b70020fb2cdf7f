"""Reading the interactions back as they were known at some time."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pyarrow as pa

from mmlora.data.merge import connect
from mmlora.resources import sql
from mmlora.schema import DOMAIN_ID, EVENT_TIMESTAMP, ITEM_ID, LABEL, USER_ID


def read_current(
    offline: Path, *, known_as_of: datetime, before: datetime, since: datetime | None = None
) -> pa.Table:
    """Return the interactions in the order of time, the version of each that was known then.

    Args:
        offline: the offline store's folder.
        known_as_of: corrections and late rows that came after this don't count.
        before: events before this only.
        since: events from here on; all when None.

    Returns:
        user_id, item_id, domain_id, event_timestamp, label; ties in time are ordered by the ids.
    """
    since_clause = f"AND {EVENT_TIMESTAMP} >= $since" if since else ""
    key = f"{EVENT_TIMESTAMP}, {USER_ID}, {ITEM_ID}, {DOMAIN_ID}"
    query = f"""
        WITH current AS ({sql("interactions_current.sql")})
        SELECT {USER_ID}, {ITEM_ID}, {DOMAIN_ID}, {EVENT_TIMESTAMP}, {LABEL} FROM current
        WHERE {EVENT_TIMESTAMP} < $before {since_clause} ORDER BY {key}
    """
    parameters = {
        "interactions": str(offline / "interactions" / "**" / "*.parquet"),
        "known_as_of": known_as_of,
        "before": before,
        **({"since": since} if since else {}),
    }
    with connect() as connection:
        return connection.sql(query, params=parameters).to_arrow_table()
