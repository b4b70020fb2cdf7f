"""Figures of a sample of users' lists: how far scores spread, and how they differ from the last night's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mmlora.duck import in_memory
from mmlora.metrics.psi import count, cuts, psi
from mmlora.schema import SCORE

FIRST = 20
"""Positions of each list whose scores are compared, or as many as both lists have."""

_BOTH = """
WITH depths AS (
    SELECT user_id, least(max(before.position), max(after.position), {first}) AS depth
    FROM before JOIN after USING (user_id) GROUP BY user_id
)
SELECT score FROM {table} JOIN depths USING (user_id) WHERE position <= depth
"""
_OVERLAP = """
WITH now AS (FROM after WHERE position <= 10 AND user_id IN (SELECT user_id FROM before)),
    earlier AS (FROM before WHERE position <= 10)
SELECT count(DISTINCT now.user_id) AS users, count(earlier.item_id) / nullif(count(*), 0) AS overlap
FROM now LEFT JOIN earlier USING (user_id, item_id)
"""


@dataclass(frozen=True)
class ListChange:
    """How the lists of the users that both nights have differ.

    Attributes:
        users: number of these users.
        shift: PSI of the scores in the first positions, beyond chance; None without users.
        overlap: share of the first 10 items that the user had before, plus what chance explains (Wilson's
            bound at three standard deviations, for so many users); None without users.
        mean_before, mean_after: mean scores in the first positions.
    """

    users: int
    shift: float | None
    overlap: float | None
    mean_before: float
    mean_after: float


def spread(lists: pa.Table) -> float | None:
    """Return the 90% quantile of the scores less the 10% quantile, over the median; None without rows."""
    if lists.num_rows < 2:
        return None
    low, median, high = np.quantile(lists[SCORE].to_numpy(), [0.1, 0.5, 0.9])
    return float((high - low) / max(median, 1e-12))


def compare_lists(before: pa.Table, after: pa.Table) -> ListChange:
    """Compare lists of two nights: ``user_id``, ``item_id``, ``score``, ``position``."""
    with in_memory() as connection:
        connection.register("before", before)
        connection.register("after", after)
        earlier, now = (
            connection.sql(_BOTH.format(table=table, first=FIRST)).to_arrow_table()[SCORE].to_numpy()
            for table in ("before", "after")
        )
        users, overlap = connection.sql(_OVERLAP).fetchall()[0]
    if not users:
        return ListChange(0, None, None, 0.0, 0.0)
    edges = cuts(earlier)
    # Scores of one user are alike, so users count, not rows.
    per_user = max(1.0, len(now) / users)
    shared = overlap * users
    overlap = (shared + 4.5 + 3 * np.sqrt(shared * (1 - overlap) + 2.25)) / (users + 9)
    counts = [np.round(count(scores, edges) / per_user).astype(np.int64) for scores in (earlier, now)]
    return ListChange(users, psi(*counts), float(overlap), float(earlier.mean()), float(now.mean()))
