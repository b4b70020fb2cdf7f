"""The newest interactions of a domain, of as few days as give enough rows."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from mmlora.data.recent import recent_rows
from mmlora.data.store import OfflineStore

NIGHT = datetime(2001, 6, 1, tzinfo=UTC)
ROWS = {1: 2, 2: 3, 4: 5, 5: 1, 9: 4, 20: 6}
"""Rows of the domain by how many days before the night they happened; their item tells the day."""


@pytest.fixture
def offline(tmp_path: Path) -> Path:
    rows = [
        {
            "user_id": number,
            "item_id": back,
            "domain_id": domain,
            "event_timestamp": NIGHT - timedelta(days=back) + timedelta(hours=number),
            "label": number % 2,
        }
        for back, count in ROWS.items()
        for domain in ("a", "b")
        for number in range(count)
    ]
    OfflineStore(tmp_path).write(pa.Table.from_pylist(rows), {}, imported_at=NIGHT)
    return tmp_path


def _days(offline: Path, rows: int, days: int = 30) -> dict[int, int]:
    found = recent_rows(offline, domain="a", before=NIGHT, known_as_of=NIGHT, rows=rows, days=days)
    return dict(Counter(found["item_id"].to_pylist()))


@pytest.mark.parametrize("rows", range(1, 24))
def test_the_newest_days_are_whole_and_the_oldest_is_sampled(offline: Path, rows: int) -> None:
    expected: dict[int, int] = {}
    for back, count in ROWS.items():
        if left := rows - sum(expected.values()):
            expected[back] = min(count, left)
    assert _days(offline, rows) == expected


@pytest.mark.parametrize("days", range(1, 22))
def test_no_more_days_are_read_than_asked_for(offline: Path, days: int) -> None:
    assert _days(offline, 100, days) == {back: count for back, count in ROWS.items() if back <= days}


def test_a_sample_is_the_same_each_time_and_rows_are_in_order(offline: Path) -> None:
    first, again = (
        recent_rows(offline, domain="a", before=NIGHT, known_as_of=NIGHT, rows=8, days=30) for _ in range(2)
    )
    assert first == again == first.sort_by([(name, "ascending") for name in first.column_names])


def test_without_rows_there_are_none(offline: Path) -> None:
    assert not recent_rows(offline, domain="c", before=NIGHT, known_as_of=NIGHT, rows=8, days=30).num_rows
