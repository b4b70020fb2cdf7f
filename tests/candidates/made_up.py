"""Interactions made up row by row, and what a policy chooses of them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmlora.candidates.find import find_candidates
from mmlora.candidates.pairs import Candidates
from mmlora.candidates.policy import Policy
from mmlora.candidates.report import Selection
from mmlora.schema import IdTypes, interactions_schema

D = date(2024, 3, 1)
MIDNIGHT = datetime(2024, 3, 1, tzinfo=UTC)
IDS = IdTypes()

Row = tuple[Any, Any, Any, datetime, datetime, int]  # user, item, domain, event_timestamp, known_at, label


def at(days: float) -> datetime:
    """Days before (below 0) or after D 00:00 UTC."""
    return MIDNIGHT + timedelta(days=days)


def row(
    user: Any, item: Any, days: float, domain: Any = "a", known: float | None = None, label: int = 1
) -> Row:
    return user, item, domain, at(days), at(days if known is None else known), label


def write(offline: Path, rows: list[Row], ids: IdTypes = IDS) -> Path:
    for day in {event.date() for _, _, _, event, _, _ in rows}:
        folder = offline / "interactions" / f"day={day}"
        folder.mkdir(parents=True)
        mine = [r for r in rows if r[3].date() == day]
        table = pa.table(list(map(list, zip(*mine, strict=True))), schema=interactions_schema(ids))
        pq.write_table(table, folder / "part.parquet")
    return offline


def select(
    offline: Path,
    *,
    domain: Any = "a",
    ids: IdTypes = IDS,
    known_as_of: datetime | None = None,
    **policy: Any,
) -> Selection:
    """The choice of a policy."""
    chosen = Policy(**policy)
    return find_candidates(offline, policy=chosen, ids=ids, domain=domain, on=D, known_as_of=known_as_of)


def removed(selection: Selection) -> dict[str, int]:
    return {f"{part.what}: {part.reason}": part.count for part in selection.removed}


def pairs(candidates: Candidates) -> set[tuple[Any, Any]]:
    """The pairs to score, as ids."""
    users, items = candidates.users.to_pylist(), candidates.items.to_pylist()
    user_rows, item_rows = candidates.pairs.between(0, len(users))
    own = {(users[u], items[i]) for u, i in zip(user_rows.tolist(), item_rows.tolist(), strict=True)}
    return own if candidates.listed else {(u, i) for u in users for i in items} - own
