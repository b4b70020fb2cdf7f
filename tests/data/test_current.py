"""Reading interactions back as they were known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from mmlora.data.current import read_current
from mmlora.data.store import OfflineStore

DAY = datetime(2001, 5, 1, tzinfo=UTC)


def _row(label: int, hours: float, user: int = 1) -> dict[str, object]:
    event = DAY + timedelta(hours=hours)
    return {"user_id": user, "item_id": 9, "domain_id": "a", "event_timestamp": event, "label": label}


def _write(root: Path, rows: list[dict[str, object]], imported_at: datetime) -> None:
    OfflineStore(root).write(pa.Table.from_pylist(rows), {}, imported_at=imported_at)


def test_a_correction_counts_once_it_is_known(tmp_path: Path) -> None:
    correction = DAY + timedelta(days=3)
    _write(tmp_path, [_row(0, 1), _row(1, 2, user=2)], DAY + timedelta(days=1))
    _write(tmp_path, [_row(1, 1)], correction)
    before = read_current(tmp_path, known_as_of=correction - timedelta(seconds=1), before=correction)
    after = read_current(tmp_path, known_as_of=correction, before=correction)
    assert before["label"].to_pylist() == [0, 1]
    assert after["label"].to_pylist() == [1, 1]


def test_bounds_are_since_included_and_before_excluded(tmp_path: Path) -> None:
    _write(tmp_path, [_row(0, hours, user=hours) for hours in range(4)], DAY + timedelta(days=1))
    later = DAY + timedelta(days=2)
    found = read_current(
        tmp_path, known_as_of=later, since=DAY + timedelta(hours=1), before=DAY + timedelta(hours=3)
    )
    assert found["user_id"].to_pylist() == [1, 2]
