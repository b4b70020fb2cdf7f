from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from mmlora.data.commit import LOCK
from mmlora.data.store import OfflineStore
from mmlora.errors import ContractError, DataError, TransientError, UsageError
from mmlora.schema import IdTypes, interactions_schema

NOW = datetime(2024, 1, 10, 3, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
Make = Callable[..., pa.Table]
Current = Callable[..., list[tuple[object, ...]]]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


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
    with pytest.raises(DataError, match="another label for the same known_at"):
        store.write(interactions((*key, 0), known_at=["2024-01-03"]), {}, imported_at=LATER)
    with pytest.raises(DataError, match="known before it happened"):
        store.write(interactions((*key, 0), known_at=["2023-01-03"]), {}, imported_at=LATER)


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
    (store.root / "domains.json").unlink()  # a store of before the file
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
    with pytest.raises(DataError, match="no column but user_id"):
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


class TestProfiles:
    @pytest.fixture(autouse=True)
    def _day(self, store: OfflineStore, interactions: Make) -> None:
        self.store = store
        self.rows = interactions((1, "a", "x", "2024-01-01", 0))

    def write(self, table: pa.Table, *, at: datetime = NOW) -> int:
        return self.store.write(self.rows, {"user": table}, imported_at=at).profiles["user"]

    def stored(self) -> list[dict[str, object]]:
        files = self.store.profile_folder("user").glob("*.parquet")
        rows = pa.concat_tables([pq.ParquetFile(file).read() for file in files]).to_pylist()
        return sorted(rows, key=lambda row: (row["user_id"], row["created_timestamp"]))

    def versions(self, user: int) -> list[tuple[object, ...]]:
        times = ("event_timestamp", "created_timestamp")
        return [(r[times[0]], r[times[1]], r["age"]) for r in self.stored() if r["user_id"] == user]

    def test_undated_values_are_valid_from_1970_and_changes_from_their_import(self) -> None:
        self.write(pa.table({"user_id": [1, 2], "age": [30, 40]}))
        changed = pa.table({"user_id": [1, 2, 3], "age": [31, 40, 50]})
        assert self.write(changed, at=LATER) == 2
        epoch = at("1970-01-01")
        assert self.versions(1) == [(epoch, epoch, 30), (LATER, LATER, 31)]
        assert self.versions(2) == [(epoch, epoch, 40)]
        assert self.versions(3) == [(epoch, LATER, 50)]

    def test_a_value_that_changes_back_is_a_version(self) -> None:
        for day, age in enumerate((30, 31, 30, 30)):
            self.write(pa.table({"user_id": [1], "age": [age]}), at=NOW + timedelta(days=day))
        assert [age for _, _, age in self.versions(1)] == [30, 31, 30]

    def test_dated_values_follow_the_rule_of_known_at(self) -> None:
        dated = pa.table(
            {"user_id": [1, 1], "event_timestamp": ["2023-01-01", "2023-03-01"], "age": [30, 31]}
        )
        self.write(dated)
        assert self.write(dated, at=LATER) == 0
        more = pa.table(
            {
                "user_id": [1, 1, 1],
                "event_timestamp": ["2023-02-01", "2023-03-01", "2023-04-01"],
                "age": [7, 8, 9],
            }
        )
        assert self.write(more, at=LATER) == 3
        assert sorted(self.versions(1)) == [
            (at("2023-01-01"), at("2023-01-01"), 30),
            (at("2023-02-01"), LATER, 7),
            (at("2023-03-01"), at("2023-03-01"), 31),
            (at("2023-03-01"), LATER, 8),
            (at("2023-04-01"), at("2023-04-01"), 9),
        ]

    def test_nulls_and_lists_compare_by_value(self) -> None:
        table = pa.table(
            {"user_id": [1, 2], "a": [None, 1.5], "tags": [["x"], None], "vector": [[1.0, 2.0], None]}
        )
        self.write(table)
        assert self.write(table, at=LATER) == 0
        other = table.set_column(2, "tags", pa.array([["y"], None]))
        assert self.write(other, at=LATER) == 1

    def test_a_gained_column_is_null_before_and_one_file_schema_remains(self) -> None:
        self.write(pa.table({"user_id": [1, 2], "age": [30, 40]}))
        self.write(pa.table({"user_id": [1], "city": ["Rome"], "age": [30]}), at=LATER)
        schemas = {tuple(pq.read_schema(file).names) for file in self.store.profile_folder("user").iterdir()}
        assert schemas == {("user_id", "event_timestamp", "created_timestamp", "age", "city")}
        assert [row["city"] for row in self.stored()] == [None, "Rome", None]
        assert [row["user_id"] for row in self.stored()] == [1, 1, 2]

    def test_numbers_fit_into_a_float_column(self) -> None:
        self.write(pa.table({"user_id": [1], "age": [30.0]}))
        assert self.write(pa.table({"user_id": [1], "age": [30]}), at=LATER) == 0
        assert self.write(pa.table({"user_id": [1], "age": pa.nulls(1)}), at=LATER) == 1

    @pytest.mark.parametrize(
        ("columns", "what"),
        [
            ({"age": ["thirty"], "v": [[1.0]]}, "age is string, stored is int64"),
            ({"age": [1.5], "v": [[1.0]]}, "age is double, stored is int64"),
            ({"age": [1], "v": [[1.0, 2.0]]}, "of width 2, stored is list<.*> of width 1"),
            ({"v": [[1.0]]}, "age is missing"),
        ],
    )
    def test_other_columns_or_types_break_the_contract(self, columns: dict[str, object], what: str) -> None:
        self.write(pa.table({"user_id": [1], "age": [30], "v": [[1.0]]}))
        before = self.store.fingerprint()
        with pytest.raises(ContractError, match=what):
            self.write(pa.table({"user_id": [1], **columns}))
        assert self.store.fingerprint() == before


def test_the_fingerprint_is_of_the_data_alone(tmp_path: Path, interactions: Make) -> None:
    table = interactions((1, "a", "x", "2024-01-01", 0), (2, "a", "x", "2024-01-02", 0))
    stores = [OfflineStore(tmp_path / name) for name in ("one", "two")]
    for i, store in enumerate(stores):
        store.write(table.take([i, 1 - i]), {}, imported_at=NOW + timedelta(days=i))
    (stores[1].root / "features").mkdir()
    (stores[1].root / "features" / "x.parquet").touch()
    assert stores[0].fingerprint() == stores[1].fingerprint()
