"""Rows that became known after the midnight that ended their day: what earlier nights could not know."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmlora.data.merge import connect

_LATE = """
SELECT CAST(event_timestamp AT TIME ZONE 'UTC' AS DATE) AS day, known_at, count(*) AS rows
FROM read_parquet($interactions, hive_partitioning = false)
WHERE known_at <= $known_as_of
    AND CAST(known_at AT TIME ZONE 'UTC' AS DATE) > CAST(event_timestamp AT TIME ZONE 'UTC' AS DATE)
GROUP BY ALL
"""


@dataclass(frozen=True)
class LateRows:
    """Late rows and corrections, counted by day and moment.

    Attributes:
        day: day of the event, ``[G]`` datetime64[D].
        known_at: when the rows became known, ``[G]`` datetime64[us], UTC.
        rows: how many, ``[G]``.
    """

    day: npt.NDArray[Any]
    known_at: npt.NDArray[Any]
    rows: npt.NDArray[np.int64]

    def count(self, *, before: date, known_after: datetime) -> int:
        """Return how many rows of the days before a date became known after a moment (UTC)."""
        moment = np.datetime64(known_after.replace(tzinfo=None), "us")
        chosen = (self.day < np.datetime64(before, "D")) & (self.known_at > moment)
        return int(self.rows[chosen].sum())


def late_rows(offline: Path, known_as_of: datetime) -> LateRows:
    """Count the late rows of an offline store that are known by a moment (UTC)."""
    files = offline / "interactions"
    if not any(files.glob("day=*/*.parquet")):
        return LateRows(np.empty(0, "datetime64[D]"), np.empty(0, "datetime64[us]"), np.empty(0, np.int64))
    given = {"interactions": str(files / "day=*" / "*.parquet"), "known_as_of": known_as_of}
    with connect() as connection:
        found = connection.sql(_LATE, params=given).to_arrow_table()
    known_at = found["known_at"].cast("timestamp[us]").to_numpy()
    return LateRows(found["day"].to_numpy().astype("datetime64[D]"), known_at, found["rows"].to_numpy())
