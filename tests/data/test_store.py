"""The offline store: what an import adds, its ids and domains, and that it happens whole or not at all."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from mmlora.data.commit import LOCK
from mmlora.data.store import OfflineStore
from mmlora.errors import ContractError, DataError, TransientError, UsageError
from tests.data.conftest import LATER, NOW, Current, Make, at


def test_the_same_rows_again_change_nothing(store: OfflineStore, interactions: Make) -> None:
    table = interactions((1, "a", "x", "2024-01-01", 0), (1, "a", "y", "2024-01-02", 1))
    users = pa.table({"user_id": [1], "age": [30]})
    store.write(table, {"user": users}, imported_at=NOW)
    before = store.fingerprint()
    report = store.write(table, {"user": users}, imported_at=LATER)
    assert (report.interactions, report.unchanged, report.profiles) == (0, 2, {"user": 0})
    assert store.fingerprint() == before


def test_another_label_is_a_correction_known_at_import(
    store: OfflineStore, interactions: Make, current: Current
) -> None:
    store.write(interactions((1, "a", "x", "2024-01-01", 0)), {}, imported_at=NOW)
    before = store.fingerprint()
    report = store.write(interactions((1, "a", "x", "2024-01-01", 1)), {}, imported_at=LATER)
    assert (report.corrections, report.interactions, report.late) == (1, 0, 0)
    assert [row[4:] for row in current(store)] == [(1, LATER)]
    assert [row[4:] for row in current(store, LATER - timedelta(seconds=1))] == [(0, at("2024-01-01"))]
    assert store.fingerprint() != before


def test_a_correction_wins_even_if_the_clock_stood_still(
    store: OfflineStore, interactions: Make, current: Current
) -> None:
    for label in (0, 1, 0):
        store.write(interactions((1, "a", "x", "2024-01-01", label)), {}, imported_at=NOW)
        assert [row[4] for row in current(store)] == [label]


def test_other_columns_are_reported_and_left_out(store: OfflineStore, interactions: Make) -> None:
    table = interactions((1, "a", "x", "2024-01-01", 0), device=["phone"])
    users = pa.table({"user_id": [1], "age": [3], "nothing": pa.nulls(1)})
    report = store.write(table, {"user": users}, imported_at=NOW)
    assert report.ignored_columns == ("device", "user.nothing")
    (file,) = store.profile_folder("user").iterdir()
    assert pq.read_schema(file).names == ["user_id", "event_timestamp", "created_timestamp", "age"]


@pytest.mark.parametrize(("user", "other"), [(1, "one"), ("1", 1)])
def test_id_types_are_chosen_once(
    store: OfflineStore, interactions: Make, user: object, other: object
) -> None:
    store.write(interactions((user, 5, 7, "2024-01-01", 0)), {}, imported_at=NOW)
    before = store.fingerprint()
    with pytest.raises(ContractError, match="interactions' user_id"):
        store.write(interactions((other, 5, 7, "2024-01-02", 0)), {}, imported_at=NOW)
    with pytest.raises(ContractError, match="user profiles' user_id"):
        users = pa.table({"user_id": [other], "age": [1]})
        store.write(interactions((user, 5, 7, "2024-01-02", 0)), {"user": users}, imported_at=NOW)
    assert store.fingerprint() == before
    assert store.domains() == [7]


def test_domains_add_up_over_imports(store: OfflineStore, interactions: Make) -> None:
    store.write(interactions((1, "a", "x", "2024-01-02", 0)), {}, imported_at=NOW)
    store.write(
        interactions((1, "a", "w", "2024-01-01", 0), (2, "a", "x", "2024-01-03", 0)), {}, imported_at=NOW
    )
    assert store.domains() == ["w", "x"]
    for name in ("domains.json", "manifest.json"):  # a store of before these files
        (store.root / name).unlink()
    assert store.domains() == ["w", "x"]
    store.write(interactions((1, "b", "x", "2024-01-03", 0)), {}, imported_at=NOW)
    assert (store.root / "domains.json").exists()


def test_a_fault_leaves_no_trace(store: OfflineStore, interactions: Make) -> None:
    bad = interactions((1, "a", "x", "2024-01-01", 0), (1, "a", "x", "2024-01-01", 1))
    with pytest.raises(DataError):
        store.write(bad, {}, imported_at=NOW)
    good = interactions((1, "a", "x", "2024-01-01", 0))
    with pytest.raises(DataError, match="user profiles"):
        store.write(good, {"user": pa.table({"user_id": [1, 1], "age": [1, 2]})}, imported_at=NOW)
    assert not store.root.exists()
    assert store.days() == []
    assert store.domains() == []
    with pytest.raises(UsageError, match="import some first"):
        _ = store.ids


def test_profiles_without_any_value_are_refused(store: OfflineStore, interactions: Make) -> None:
    empty = pa.table({"user_id": [1], "nothing": pa.nulls(1)})
    with pytest.raises(DataError, match="no column except user_id"):
        store.write(interactions((1, "a", "x", "2024-01-01", 0)), {"user": empty}, imported_at=NOW)
    assert [path.name for path in store.root.iterdir()] == [LOCK]


def test_a_time_without_zone_is_wrong_usage(store: OfflineStore, interactions: Make) -> None:
    with pytest.raises(UsageError, match="no time zone"):
        store.write(interactions((1, "a", "x", "2024-01-01", 0)), {}, imported_at=datetime(2024, 1, 2))


def test_a_second_writer_is_told_to_come_back(store: OfflineStore, interactions: Make) -> None:
    store.root.mkdir(parents=True)
    with FileLock(store.root / LOCK), pytest.raises(TransientError, match="another import"):
        store.write(interactions((1, "a", "x", "2024-01-01", 0)), {}, imported_at=NOW)
    store.write(interactions((1, "a", "x", "2024-01-01", 0)), {}, imported_at=NOW)


def test_the_fingerprint_is_of_the_data_alone(tmp_path: Path, interactions: Make) -> None:
    table = interactions((1, "a", "x", "2024-01-01", 0), (2, "a", "x", "2024-01-02", 0))
    stores = [OfflineStore(tmp_path / name) for name in ("one", "two")]
    for i, store in enumerate(stores):
        store.write(table.take([i, 1 - i]), {}, imported_at=NOW + timedelta(days=i))
    (stores[1].root / "features").mkdir()
    (stores[1].root / "features" / "x.parquet").touch()
    assert stores[0].fingerprint() == stores[1].fingerprint()
