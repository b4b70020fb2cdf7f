"""The newest row of a computed view, to notice features that are no longer built."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from pathlib import Path

from mmlora.duck import in_memory
from mmlora.features.built import built_files
from mmlora.schema import EVENT_TIMESTAMP


def newest_row(view: Path, before: datetime) -> datetime | None:
    """Return the time of a computed view's newest row up to a moment; None if there is no such row."""
    files = built_files(view)
    return None if not files else _newest(tuple(files), before, view.parent.parent / ".spill")


@lru_cache(maxsize=64)
def _newest(files: tuple[str, ...], before: datetime, spill: Path) -> datetime | None:
    """Read the newest row once for all domains of a night."""
    query = f"SELECT max({EVENT_TIMESTAMP}) FROM read_parquet($files) WHERE {EVENT_TIMESTAMP} <= $before"
    with in_memory(spill, ordered=False) as connection:
        row = connection.execute(query, {"files": list(files), "before": before}).fetchone()
    newest: datetime | None = row[0] if row else None
    return newest
