"""Reads the interactions as they were known at some time, and detects whether that has changed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mmlora.data.commit import settle
from mmlora.duck import in_memory
from mmlora.resources import sql
from mmlora.schema import (
    CREATED_TIMESTAMP,
    DOMAIN_ID,
    EVENT_TIMESTAMP,
    ITEM_ID,
    KNOWN_AT,
    LABEL,
    USER_ID,
    fingerprint,
)


def read_current(
    offline: Path, *, known_as_of: datetime, before: datetime, since: datetime | None = None
) -> pa.Table:
    """Return the interactions in order of time, each in the version that was known then.

    Args:
        offline: the offline store's folder.
        known_as_of: corrections and late rows that became known after this don't count.
        before: only events before this time.
        since: only events from this time on; None means all.

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
    with in_memory() as connection:
        return connection.sql(query, params=parameters).to_arrow_table()


def fingerprint_known(offline: Path, known_as_of: datetime) -> str:
    """Return a hash of the data known at a midnight, which doesn't change when later data is added.

    It covers the files (named by their content) with anything known by then, so it may change unnecessarily
    but never fails to change. If nothing came later, it is the hash of the whole store.

    Args:
        offline: the offline store's folder.
        known_as_of: 00:00 UTC of a day.
    """
    settle(offline)
    files = {}
    for folder, column in (("interactions", KNOWN_AT), ("profiles", CREATED_TIMESTAMP)):
        for path in (offline / folder).rglob("*.parquet"):
            day = path.parent.name.removeprefix("day=") if folder == "interactions" else ""
            if day < known_as_of.date().isoformat() and _first(path, column) <= known_as_of:
                files[path.relative_to(offline).as_posix()] = path.stat().st_size
    return fingerprint(files)


def _first(path: Path, column: str) -> datetime:
    """Return the least value of a file's column, from its footer."""
    metadata = pq.read_metadata(path)
    place = metadata.schema.names.index(column)
    found = [metadata.row_group(group).column(place).statistics for group in range(metadata.num_row_groups)]
    if any(of is None or not of.has_min_max for of in found):
        return datetime.min.replace(tzinfo=UTC)
    return min((of.min for of in found), default=datetime.min.replace(tzinfo=UTC))
