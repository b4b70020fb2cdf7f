"""The newest interaction known at some time, to check whether the data reaches as far as a night needs."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from mmlora.duck import in_memory
from mmlora.resources import sql


def newest_event(offline: Path, *, before: datetime, known_as_of: datetime) -> datetime | None:
    """Return the time of the newest interaction that happened before one time and was known by another.

    Withdrawn interactions don't count. Days are read from the newest backwards until one has such a row.

    Args:
        offline: the offline store's folder.
        before: only interactions before this time count (UTC).
        known_as_of: only interactions known by this time count (UTC).
    """
    query = sql("interactions_current.sql").strip().rstrip(";")
    newest = f"SELECT max(event_timestamp) FROM ({query}) WHERE event_timestamp < $before"
    days = sorted((offline / "interactions").glob("day=*"), reverse=True)
    with in_memory() as connection:
        for folder in days:
            if folder.name > f"day={before.date()}" or not any(folder.glob("*.parquet")):
                continue
            given = {"interactions": str(folder / "*.parquet"), "known_as_of": known_as_of, "before": before}
            row = connection.execute(newest, given).fetchone()
            if row is not None and row[0] is not None:
                found: datetime = row[0]
                return found
    return None
