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

    def test_undated_values_count_from_the_first_interaction_then_from_their_delivery(self) -> None:
        self.write(pa.table({"user_id": [1, 2], "age": [30, 40]}))
        changed = pa.table({"user_id": [1, 2, 3], "age": [31, 40, 50]})
        assert self.write(changed, at=LATER) == 2
        # The first delivery counts from the midnight after its interactions, the next from its day's.
        first, delivered, night = at("2024-01-01"), at("2024-01-02"), at("2024-01-11")
        assert self.versions(1) == [(first, first, 30), (night, night, 31)]
        assert self.versions(2) == [(delivered, delivered, 40)]
        assert self.versions(3) == [(night, night, 50)]

    @pytest.mark.parametrize(("chosen", "since"), [("import", "2024-01-02"), ("2020-05-01", "2020-05-01")])
    def test_since_when_a_first_delivery_counts_can_be_chosen(self, chosen: str, since: str) -> None:
        users = {"user": pa.table({"user_id": [1], "age": [30]})}
        report = self.store.write(self.rows, users, imported_at=NOW, valid_from={"user": chosen})
        assert self.versions(1) == [(at(since), at(since), 30)]
        assert "without a date of its own; valid from" in " ".join(report.notes)

    def test_a_profile_of_tonight_is_known_tonight(self, interactions: Make) -> None:
        self.write(pa.table({"user_id": [1], "age": [30]}))
        rows = interactions((2, "a", "x", "2024-01-09", 0))  # yesterday's, complete at midnight
        users = pa.table({"user_id": [1, 2], "age": [31, 40]})
        self.store.write(rows, {"user": users}, imported_at=NOW)
        night = at("2024-01-10")
        assert self.versions(1)[1] == (night, night, 31)
        assert self.versions(2) == [(night, night, 40)]
        today = interactions((2, "a", "x", "2024-01-10T01:00", 0))  # not complete before the import
        self.store.write(today, {"user": pa.table({"user_id": [2], "age": [41]})}, imported_at=NOW)
        assert self.versions(2)[1] == (NOW, NOW, 41)

    def test_profiles_may_come_alone_once_the_ids_have_types(self, tmp_path: Path) -> None:
        users = {"user": pa.table({"user_id": [1], "age": [30]})}
        with pytest.raises(UsageError, match="no interactions yet"):
            self.store.write(None, users, imported_at=NOW)
        self.store.write(self.rows, {}, imported_at=NOW)
        report = self.store.write(None, users, imported_at=LATER)
        assert (report.profiles, report.interactions, report.first_day) == ({"user": 1}, 0, None)
        assert self.versions(1) == [(at("2024-01-01"), at("2024-01-01"), 30)]

    def test_a_date_to_come_is_known_now_and_valid_then(self) -> None:
        items = pa.table({"user_id": [1], "event_timestamp": ["2024-03-01"], "age": [30]})
        self.write(items)
        assert self.versions(1) == [(at("2024-03-01"), at("2024-01-02"), 30)]
        self.write(pa.table({"user_id": [2], "event_timestamp": ["2024-01-09"], "age": [3]}), at=LATER)
        assert self.versions(2) == [(at("2024-01-09"), at("2024-01-09"), 3)]

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
        night = at("2024-01-11")
        assert sorted(self.versions(1)) == [
            (at("2023-01-01"), at("2023-01-01"), 30),
            (at("2023-02-01"), night, 7),
            (at("2023-03-01"), at("2023-03-01"), 31),
            (at("2023-03-01"), night, 8),
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
            ({"age": [1], "v": [[1.0, 2.0]]}, "of width 2, stored is list<.*> of width 1"),
        ],
    )
    def test_other_columns_or_types_break_the_contract(self, columns: dict[str, object], what: str) -> None:
        self.write(pa.table({"user_id": [1], "age": [30], "v": [[1.0]]}))
        before = self.store.fingerprint()
        with pytest.raises(ContractError, match=what):
            self.write(pa.table({"user_id": [1], **columns}))
        assert self.store.fingerprint() == before

    def test_integers_may_be_written_as_floats_and_others_are_refused(self) -> None:
        self.write(pa.table({"user_id": [1, 2, 3], "age": [25, 30, 41]}))
        floats = pa.table({"user_id": [1, 2, 3], "age": [25.0, None, 41.0]})
        assert self.write(floats, at=LATER) == 1
        assert [age for _, _, age in self.versions(2)] == [30, None]
        for wrong in (25.5, 2.0**53):
            with pytest.raises(DataError, match=r"no whole number .*row 2: user_id=2"):
                self.write(pa.table({"user_id": [1, 2], "age": [25.0, wrong]}), at=LATER)

    def test_stored_integers_become_texts_where_that_is_said(self) -> None:
        self.write(pa.table({"user_id": [1, 2], "zip": [1234, 56]}))
        users = {"user": pa.table({"user_id": [1, 2], "zip": ["01234", "56"]})}
        with pytest.raises(ContractError, match="zip is string, stored is int64"):
            self.store.write(self.rows, users, imported_at=LATER)
        report = self.store.write(self.rows, users, imported_at=LATER, texts={"user": ["zip"]})
        assert [(row["user_id"], row["zip"]) for row in self.stored()] == [
            (1, "1234"),
            (1, "01234"),
            (2, "56"),
        ]
        assert "were stored as integers and are texts now" in report.notes[0]

    def test_a_column_that_is_gone_is_missing_from_then_on(self) -> None:
        self.write(pa.table({"user_id": [1, 2], "age": [25, 30], "segment": ["s", None]}))
        users = {"user": pa.table({"user_id": [1, 2], "age": [25, 30]})}
        report = self.store.write(self.rows, users, imported_at=LATER)
        assert [row["segment"] for row in self.stored() if row["user_id"] == 1] == ["s", None]
        assert report.profiles == {"user": 1}
        assert "columns aren't in this delivery: missing from now on: segment" in report.notes[0]


class TestDomainsLateness:
    def test_a_first_delivery_of_a_domain_is_on_time(
        self, store: OfflineStore, interactions: Make, current: Current
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
        self, store: OfflineStore, interactions: Make, current: Current
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

    def test_a_store_of_before_the_days_of_domains_is_read(
        self, store: OfflineStore, interactions: Make
    ) -> None:
        store.write(interactions((1, "a", "x", "2024-01-05", 0)), {}, imported_at=NOW)
        (store.root / "manifest.json").unlink()
        (store.root / "domains.json").write_text('["x"]')
        assert store.domains() == ["x"]
        report = store.write(interactions((2, "a", "x", "2024-01-02", 0)), {}, imported_at=LATER)
        assert report.late == 1


class TestReplacing:
    def test_rows_that_the_day_no_longer_has_are_withdrawn(
        self, store: OfflineStore, interactions: Make, current: Current
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
        assert "2 stored interactions not in this delivery" in report.notes[0]
        assert [row[:3] for row in current(store)] == [(1, "a", "x"), (1, "a", "x")]
        assert len(current(store, LATER - timedelta(seconds=1))) == 4, "known as it was before"
        before = store.fingerprint()
        assert store.write(interactions(rows[0]), {}, imported_at=LATER, replace="day").withdrawn == 0
        assert store.fingerprint() == before
        again = store.write(interactions(*rows), {}, imported_at=LATER)
        assert (again.corrections, again.unchanged) == (2, 1)
        assert len(current(store)) == 4

    def test_only_the_domains_that_came_are_replaced(
        self, store: OfflineStore, interactions: Make, current: Current
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
        self, store: OfflineStore, interactions: Make, current: Current
    ) -> None:
        rows = [(1, "a", "x", "2024-01-01", 0), (2, "a", "x", "2024-01-01", 1)]
        store.write(interactions(*rows), {}, imported_at=NOW)
        own = interactions(rows[1], known_at=["2024-01-01"])
        assert store.write(own, {}, imported_at=LATER, replace="day").withdrawn == 1
        assert [row[0] for row in current(store)] == [2]


def test_the_fingerprint_is_of_the_data_alone(tmp_path: Path, interactions: Make) -> None:
    table = interactions((1, "a", "x", "2024-01-01", 0), (2, "a", "x", "2024-01-02", 0))
    stores = [OfflineStore(tmp_path / name) for name in ("one", "two")]
    for i, store in enumerate(stores):
        store.write(table.take([i, 1 - i]), {}, imported_at=NOW + timedelta(days=i))
    (stores[1].root / "features").mkdir()
    (stores[1].root / "features" / "x.parquet").touch()
    assert stores[0].fingerprint() == stores[1].fingerprint()
