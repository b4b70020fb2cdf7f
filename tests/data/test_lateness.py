"""Since when stored interactions are known: on time, late, corrected, or as their own column says."""

from __future__ import annotations

from datetime import date

import pyarrow.parquet as pq
import pytest

from mmlora.data.store import OfflineStore
from mmlora.errors import DataError
from mmlora.schema import IdTypes, interactions_schema
from tests.data.conftest import LATER, NOW, Current, Make, at


def test_the_first_import_is_known_when_it_happened(
    store: OfflineStore, interactions: Make, current: Current
) -> None:
    rows = [(2, "b", "x", "2024-01-01T23:59:59.999999", 1), (1, "a", "x", "2024-01-03", 0)]
    report = store.write(interactions(*rows), {}, imported_at=NOW)
    assert (report.interactions, report.unchanged, report.corrections, report.late) == (2, 0, 0, 0)
    assert (report.users, report.items, report.domains) == (2, 2, 1)
    assert (report.first_day, report.last_day) == (date(2024, 1, 1), date(2024, 1, 3))
    assert all(row[3] == row[5] for row in current(store))
    assert store.days() == [date(2024, 1, 1), date(2024, 1, 3)]
    assert store.ids == IdTypes(user="int64", item="string", domain="string")
    files = sorted(store.root.glob("interactions/day=*/*.parquet"))
    assert [file.parent.name for file in files] == ["day=2024-01-01", "day=2024-01-03"]
    assert pq.read_schema(files[0]).equals(interactions_schema(store.ids))


def test_a_row_of_a_stored_or_earlier_day_is_late(
    store: OfflineStore, interactions: Make, current: Current
) -> None:
    store.write(interactions((1, "a", "x", "2024-01-05", 0)), {}, imported_at=NOW)
    rows = [
        (2, "a", "x", "2024-01-05T23:00", 0),
        (3, "a", "x", "2024-01-02", 0),
        (4, "a", "x", "2024-01-06T00:00", 0),
    ]
    report = store.write(interactions(*rows), {}, imported_at=LATER)
    assert (report.interactions, report.late) == (3, 2)
    known = {row[0]: row[5] for row in current(store)}
    assert known == {1: at("2024-01-05"), 2: LATER, 3: LATER, 4: at("2024-01-06")}


def test_rows_keep_their_own_known_at(store: OfflineStore, interactions: Make, current: Current) -> None:
    key = (1, "a", "x", "2024-01-01")
    versions = interactions((*key, 0), (*key, 1), known_at=["2024-01-02", "2024-01-04"])
    store.write(versions, {}, imported_at=NOW)
    assert [row[4:] for row in current(store)] == [(1, at("2024-01-04"))]
    assert [row[4:] for row in current(store, at("2024-01-03"))] == [(0, at("2024-01-02"))]
    assert store.write(versions, {}, imported_at=LATER).unchanged == 2
    between = interactions((*key, 1), known_at=["2024-01-03"])
    assert store.write(between, {}, imported_at=LATER).corrections == 1
    assert [row[4:] for row in current(store, at("2024-01-03"))] == [(1, at("2024-01-03"))]
    with pytest.raises(DataError, match="another label with the same known_at"):
        store.write(interactions((*key, 0), known_at=["2024-01-03"]), {}, imported_at=LATER)
    with pytest.raises(DataError, match="known before it happened"):
        store.write(interactions((*key, 0), known_at=["2023-01-03"]), {}, imported_at=LATER)


def test_a_first_delivery_of_a_domain_is_on_time(
    store: OfflineStore, interactions: Make, current: Current
) -> None:
    store.write(interactions((1, "a", "x", "2024-01-05", 0)), {}, imported_at=NOW)
    rows = [
        (1, "a", "y", "2024-01-02", 0),
        (1, "a", "y", "2024-01-03", 1),
        (2, "a", "x", "2024-01-04", 1),
    ]
    report = store.write(interactions(*rows), {}, imported_at=LATER)
    assert (report.interactions, report.late) == (3, 1)
    assert "1 interaction came late" in report.notes[0]
    known = {(row[2], row[3]): row[5] for row in current(store)}
    assert known["y", at("2024-01-02")] == at("2024-01-02")
    assert known["x", at("2024-01-04")] == LATER
    report = store.write(interactions((3, "a", "y", "2024-01-03T05:00", 0)), {}, imported_at=LATER)
    assert report.late == 1


def test_history_is_known_when_it_happened_even_where_it_was_stored_late(
    store: OfflineStore, interactions: Make, current: Current
) -> None:
    store.write(interactions((1, "a", "x", "2024-01-05", 0)), {}, imported_at=NOW)
    old = interactions((2, "a", "x", "2024-01-02", 0))
    assert store.write(old, {}, imported_at=LATER).late == 1
    assert len(current(store, at("2024-01-06"))) == 1
    assert store.write(old, {}, imported_at=LATER, history=True).late == 0
    assert len(current(store, at("2024-01-06"))) == 2
    before = store.fingerprint()
    assert store.write(old, {}, imported_at=LATER, history=True).unchanged == 1
    assert store.fingerprint() == before


def test_a_store_of_before_the_days_of_domains_is_read(store: OfflineStore, interactions: Make) -> None:
    store.write(interactions((1, "a", "x", "2024-01-05", 0)), {}, imported_at=NOW)
    (store.root / "manifest.json").unlink()
    (store.root / "domains.json").write_text('["x"]')
    assert store.domains() == ["x"]
    report = store.write(interactions((2, "a", "x", "2024-01-02", 0)), {}, imported_at=LATER)
    assert report.late == 1
