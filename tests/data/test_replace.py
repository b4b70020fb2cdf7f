"""Deliveries that are the whole truth of their days: what they no longer have is withdrawn."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest

from mmlora.data.store import OfflineStore
from mmlora.errors import UsageError
from mmlora.pipeline.data import import_tables
from mmlora.workspace import open_workspace
from tests.data.conftest import LATER, NOW, Current, Make


def test_rows_that_the_day_no_longer_has_are_withdrawn(
    store: OfflineStore, interactions: Make, current: Current
) -> None:
    rows = [
        (1, "a", "x", "2024-01-01", 0),
        (2, "a", "x", "2024-01-01", 1),
        (1, "a", "y", "2024-01-01", 1),
    ]
    other = (1, "a", "x", "2024-01-02", 0)
    store.write(interactions(*rows, other), {}, imported_at=NOW)
    report = store.write(interactions(rows[0]), {}, imported_at=LATER, replace="day")
    assert (report.withdrawn, report.unchanged, report.interactions, report.corrections) == (2, 1, 0, 0)
    assert "2 stored interactions withdrawn, because this delivery lacks them" in report.notes[0]
    assert [row[:3] for row in current(store)] == [(1, "a", "x"), (1, "a", "x")]
    assert len(current(store, LATER - timedelta(seconds=1))) == 4, "known as it was before"
    before = store.fingerprint()
    assert store.write(interactions(rows[0]), {}, imported_at=LATER, replace="day").withdrawn == 0
    assert store.fingerprint() == before
    again = store.write(interactions(*rows), {}, imported_at=LATER)
    assert (again.corrections, again.unchanged) == (2, 1)
    assert len(current(store)) == 4


def test_only_the_domains_that_came_are_replaced(
    store: OfflineStore, interactions: Make, current: Current
) -> None:
    rows = [
        (1, "a", "x", "2024-01-01", 0),
        (2, "a", "x", "2024-01-01", 1),
        (1, "a", "y", "2024-01-01", 1),
    ]
    store.write(interactions(*rows), {}, imported_at=NOW)
    report = store.write(interactions(rows[0]), {}, imported_at=LATER, replace="domain-day")
    assert report.withdrawn == 1
    assert [row[:3] for row in current(store)] == [(1, "a", "x"), (1, "a", "y")]


def test_a_delivery_with_its_own_times_of_knowledge_replaces_too(
    store: OfflineStore, interactions: Make, current: Current
) -> None:
    rows = [(1, "a", "x", "2024-01-01", 0), (2, "a", "x", "2024-01-01", 1)]
    store.write(interactions(*rows), {}, imported_at=NOW)
    own = interactions(rows[1], known_at=["2024-01-01"])
    assert store.write(own, {}, imported_at=LATER, replace="day").withdrawn == 1
    assert [row[0] for row in current(store)] == [2]


def test_a_day_without_rows_is_emptied_where_it_is_named(
    store: OfflineStore, interactions: Make, current: Current
) -> None:
    rows = [(1, "a", "x", f"2024-01-0{day}", 0) for day in (1, 2, 3)]
    store.write(interactions(*rows), {}, imported_at=NOW)
    days = [date(2024, 1, 1), date(2024, 1, 2)]
    report = store.write(None, {}, imported_at=LATER, replace="day", days=days[:1])
    assert (report.withdrawn, report.interactions, report.first_day) == (1, 0, None)
    assert [row[3].day for row in current(store)] == [2, 3]
    assert len(current(store, LATER - timedelta(seconds=1))) == 3, "known as it was before"
    again = interactions((1, "a", "x", "2024-01-03", 1))
    report = store.write(again, {}, imported_at=LATER, replace="day", days=days)
    assert (report.withdrawn, report.corrections) == (1, 1)
    assert [(row[3].day, row[4]) for row in current(store)] == [(3, 1)]
    before = store.fingerprint()
    assert store.write(None, {}, imported_at=LATER, replace="day", days=days).withdrawn == 0
    assert store.fingerprint() == before
    with pytest.raises(
        UsageError, match="stored for 2024-01-09: the stored days are 2024-01-01 to 2024-01-03"
    ):
        store.write(None, {}, imported_at=LATER, replace="day", days=[date(2024, 1, 9)])


@pytest.mark.parametrize("delivery", ["absent", "empty CSV", "other days"])
def test_an_import_empties_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delivery: str) -> None:
    monkeypatch.chdir(tmp_path)
    header = "user_id,item_id,domain_id,event_timestamp,label\n"
    first, second = (f"u1,7,a,2024-01-0{day}T10:00:00,1\n" for day in (1, 2))
    (tmp_path / "rows.csv").write_text(header + first + second)
    import_tables(tmp_path / "rows.csv")
    files = {"absent": (), "empty CSV": tmp_path / "new.csv", "other days": tmp_path / "new.csv"}[delivery]
    (tmp_path / "new.csv").write_text(header + (second if delivery == "other days" else ""))
    report = import_tables(files, replace="day", days=[date(2024, 1, 1)])
    assert (report.withdrawn, report.unchanged) == (1, 1 if delivery == "other days" else 0)
    assert len(open_workspace().store.days()) == 2
    assert import_tables(files, replace="day", days=[date(2024, 1, 1)]).withdrawn == 0
    with pytest.raises(UsageError, match="--day needs --replace day"):
        import_tables(files, replace="domain-day", days=[date(2024, 1, 1)])
    with pytest.raises(UsageError, match="to empty a day, give --replace day --day"):
        import_tables((), replace="day")
