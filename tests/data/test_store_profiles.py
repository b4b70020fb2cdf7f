"""Stored profiles: since when their values count, what a change is, and columns that come and go."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmlora.data.store import OfflineStore
from mmlora.errors import ContractError, DataError, UsageError
from tests.data.conftest import LATER, NOW, Make, at


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
            ({"age": ["thirty"], "v": [[1.0]]}, "age is string, but stored as int64"),
            ({"age": [1], "v": [[1.0, 2.0]]}, "of width 2, but stored as list<.*> of width 1"),
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
            with pytest.raises(DataError, match=r"not an integer .*row 2: user_id=2"):
                self.write(pa.table({"user_id": [1, 2], "age": [25.0, wrong]}), at=LATER)

    def test_stored_integers_become_texts_where_that_is_said(self) -> None:
        self.write(pa.table({"user_id": [1, 2], "zip": [1234, 56]}))
        users = {"user": pa.table({"user_id": [1, 2], "zip": ["01234", "56"]})}
        with pytest.raises(ContractError, match="zip is string, but stored as int64"):
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
        assert (
            "columns aren't in this delivery: their values are missing from now on: segment"
            in report.notes[0]
        )
