"""How many interactions and profiles were known when: what a night knew, and what has come since."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmlora.duck import in_memory
from mmlora.schema import Entity

# Rows known on their own day make one group per day; later ones a group per day and moment.
_INTERACTIONS = """
SELECT CAST(event_timestamp AT TIME ZONE 'UTC' AS DATE) AS day,
       CASE WHEN CAST(known_at AT TIME ZONE 'UTC' AS DATE) > day THEN known_at
            ELSE CAST(day AS TIMESTAMP) AT TIME ZONE 'UTC' END AS known_at,
       count(*) AS rows
FROM read_parquet($files, hive_partitioning = false) GROUP BY ALL
"""
# A version counts from its own moment, so at midnight it belongs to the day before.
_PROFILES = """
SELECT CAST((event_timestamp - INTERVAL 1 MICROSECOND) AT TIME ZONE 'UTC' AS DATE) AS day,
       created_timestamp AS known_at, count(*) AS rows
FROM read_parquet($files, union_by_name = true) GROUP BY ALL
"""


@dataclass(frozen=True)
class KnownRows:
    """Versions of rows, counted by day and moment.

    Attributes:
        day: their day, ``[G]`` datetime64[D].
        known_at: when they became known, ``[G]`` datetime64[us], UTC; for interactions that became known on
            their day, its midnight.
        rows: how many, ``[G]``.
    """

    day: npt.NDArray[Any]
    known_at: npt.NDArray[Any]
    rows: npt.NDArray[np.int64]

    def count(self, *, before: date, by: datetime) -> int:
        """Return how many rows of the days before a date were known by a moment (UTC)."""
        return self._sum(before, self.known_at <= _moment(by))

    def late(self, *, before: date, after: datetime, by: datetime) -> int:
        """Return how many rows of the days before a date became known between two moments (UTC)."""
        return self._sum(before, (self.known_at > _moment(after)) & (self.known_at <= _moment(by)))

    def _sum(self, before: date, chosen: npt.NDArray[np.bool_]) -> int:
        return int(self.rows[chosen & (self.day < np.datetime64(before, "D"))].sum())


def known_interactions(offline: Path) -> KnownRows:
    """Count the interactions of an offline store."""
    return _counted(_INTERACTIONS, tuple(sorted((offline / "interactions").glob("day=*/*.parquet"))))


def known_profiles(offline: Path, entity: Entity) -> KnownRows:
    """Count the profile versions of an entity."""
    return _counted(_PROFILES, tuple(sorted((offline / "profiles" / entity).glob("*.parquet"))))


@lru_cache(maxsize=16)
def _counted(query: str, files: tuple[Path, ...]) -> KnownRows:
    """Count the rows of files, which are named by their content, once for all domains of a night."""
    if not files:
        return KnownRows(np.empty(0, "datetime64[D]"), np.empty(0, "datetime64[us]"), np.empty(0, np.int64))
    with in_memory() as connection:
        counts = connection.sql(query, params={"files": list(map(str, files))}).to_arrow_table()
    known_at = counts["known_at"].cast("timestamp[us]").to_numpy()
    return KnownRows(counts["day"].to_numpy().astype("datetime64[D]"), known_at, counts["rows"].to_numpy())


def _moment(moment: datetime) -> np.datetime64:
    return np.datetime64(moment.replace(tzinfo=None), "us")
