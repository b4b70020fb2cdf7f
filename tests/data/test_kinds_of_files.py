"""Files of every kind, alone and together, are one table with nothing lost, or are refused by name."""

from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmlora.data.reader import read_delivery
from mmlora.errors import DataError, UsageError
from mmlora.schema import IdTypes
from tests.data.reading import (
    HEAD,
    LONG,
    NOW,
    ReadUsers,
    read_interactions,
    read_users,
    write_and_read_users,
)

GOOD = {
    "user_id": [1, 2, 3],
    "item_id": [10, 11, 10],
    "domain_id": ["a", "a", "a"],
    "event_timestamp": pa.array([datetime(2026, 1, 1, hour) for hour in (10, 11, 12)], pa.timestamp("us")),
    "label": [1, 0, 0],
}


@pytest.fixture
def users(tmp_path: Path) -> ReadUsers:
    """Read a user profile from a file's bytes, or from the plain Parquet of a table."""
    return partial(write_and_read_users, tmp_path)


class TestParquetTypes:
    @pytest.mark.parametrize("kind", ["int96", "us", "ms", "ns"])
    def test_times_of_every_encoding(self, tmp_path: Path, kind: str) -> None:
        last = [] if kind == "ns" else [datetime(9999, 12, 31, 23, 59, 59), datetime(1, 1, 1)]
        times = [datetime(2026, 6, 1), datetime(1969, 12, 31, 12), *last]
        unit = "us" if kind == "int96" else kind
        table = pa.table({"user_id": range(len(times)), "until": pa.array(times, pa.timestamp(unit))})
        int96 = {"use_deprecated_int96_timestamps": True} if kind == "int96" else {}
        pq.write_table(table, tmp_path / "u.parquet", **int96)
        found = read_users([tmp_path / "u.parquet"]).profiles["user"].column("until").to_pylist()
        assert found == [time.replace(tzinfo=UTC) for time in times]

    @pytest.mark.parametrize(
        "values",
        [
            pa.array([10**17, 0], pa.timestamp("ms")),
            pa.array([253_402_300_800, 0], pa.timestamp("s")),
            pa.array([2**31 - 1, 0], pa.date32()),
        ],
    )
    def test_times_beyond_the_year_9999_are_refused_with_the_row(
        self, users: ReadUsers, values: pa.Array
    ) -> None:
        with pytest.raises(DataError, match=r"the years 1 to 9999 \(1 rows; first: row 1: user_id=1"):
            users({"user_id": [1, 2], "until": values})

    @pytest.mark.parametrize(
        ("values", "same"),
        [
            (pa.array([1, None], pa.int16()), [1, None]),
            (pa.array([Decimal(25), None], pa.decimal128(38, 0)), [25, None]),
            (pa.array([Decimal("2.5"), None], pa.decimal128(10, 2)), [2.5, None]),
            (pa.array(["a", None], pa.large_string()), ["a", None]),
            (pa.array(["a", None]).dictionary_encode(), ["a", None]),
            (pa.array([5, None]).dictionary_encode(), [5, None]),
            (pa.array([["a"], None], pa.large_list(pa.large_string())), [["a"], None]),
        ],
    )
    def test_types_without_a_meaning_of_their_own(
        self, users: ReadUsers, values: pa.Array, same: list[object]
    ) -> None:
        found = users({"user_id": [1, 2], "trait": values}).profiles["user"]
        assert found.equals(users({"user_id": [1, 2], "trait": same}).profiles["user"])

    @pytest.mark.parametrize(
        ("ids", "same"),
        [
            (pa.array([Decimal(LONG), Decimal(2)], pa.decimal128(38, 0)), [LONG, 2]),
            (pa.array([7, 8], pa.uint32()), [7, 8]),
            (pa.array([7, 8]).dictionary_encode(), [7, 8]),
            (pa.array(["007", "8"], pa.string_view()), ["007", "8"]),
        ],
    )
    def test_ids(self, users: ReadUsers, ids: pa.Array, same: list[object]) -> None:
        assert users({"user_id": ids, "age": [1, 2]}).profiles["user"].column("user_id").to_pylist() == same

    @pytest.mark.parametrize(
        "ids", [[float(LONG), 2.0], [Decimal(2**63), Decimal(1)], ["a\0", "b"], ["a" * 1001, "b"]]
    )
    def test_ids_that_lost_or_would_lose_something_are_refused(
        self, users: ReadUsers, ids: list[object]
    ) -> None:
        with pytest.raises(DataError, match=r"15 digits|64-bit|NUL|1,000 bytes"):
            users({"user_id": ids, "age": [1, 2]})


class TestFolders:
    def test_every_file_counts_and_hidden_ones_do_not(self, tmp_path: Path) -> None:
        folder = tmp_path / "days"
        (folder / "_temporary" / "0").mkdir(parents=True)
        for n, name in enumerate(["a.parquet", "b.PARQUET", "c.pq", "d.parq", "part-00000", "e.csv"]):
            row = {key: values[:1] for key, values in GOOD.items()} | {"user_id": [n]}
            if name.endswith("csv"):
                (folder / name).write_text(HEAD + f"{n},10,a,2026-01-01 10:00:00,1\n")
            else:
                pq.write_table(pa.table(row), folder / name)
        for hidden in ("_SUCCESS", ".a.parquet.crc", "_temporary/0/x.parquet", ".hive-staging"):
            (folder / hidden).write_bytes(b"")
        found = read_interactions(folder).interactions
        assert found is not None
        assert found.column("user_id").to_pylist() == [0, 1, 2, 3, 5, 4]
        assert set(found.column("event_timestamp").to_pylist()) == {datetime(2026, 1, 1, 10, tzinfo=UTC)}
        (folder / "notes.txt").write_text("read me")
        with pytest.raises(DataError, match=r"notes\.txt"):
            read_interactions(folder)

    def test_hive_partitions_are_columns(self, tmp_path: Path) -> None:
        for path, ids in {"country=FR/year=2024": [1, 2], "country=D%20E/year=2025": [3]}.items():
            (tmp_path / "u" / path).mkdir(parents=True)
            pq.write_table(pa.table({"user_id": ids, "age": ids}), tmp_path / "u" / path / "0.parquet")
        null = tmp_path / "u" / "country=__HIVE_DEFAULT_PARTITION__" / "year=2024"
        null.mkdir(parents=True)
        (null / "part.csv").write_text("user_id,age\n4,4\n")
        for path in (tmp_path / "u", tmp_path / "u" / "*" / "*" / "*", tmp_path / "u" / "country=*"):
            delivery = read_users([path])
            found = {row["user_id"]: row for row in delivery.profiles["user"].to_pylist()}
            assert found[1] == {"user_id": 1, "age": 1, "country": "FR", "year": 2024}
            assert found[3] == {"user_id": 3, "age": 3, "country": "D E", "year": 2025}
            assert found[4] == {"user_id": 4, "age": 4, "country": None, "year": 2024}

    def test_ids_and_leading_zeros_in_partitions(self, tmp_path: Path) -> None:
        rows = {key: values for key, values in GOOD.items() if key != "domain_id"}
        for domain in ("07", "8"):
            (tmp_path / f"domain_id={domain}").mkdir()
            pq.write_table(pa.table(rows), tmp_path / f"domain_id={domain}" / "0.parquet")
        found = read_interactions(tmp_path).interactions
        assert found is not None and set(found.column("domain_id").to_pylist()) == {"07", "8"}

    def test_a_partition_that_contradicts_its_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "country=FR").mkdir()
        pq.write_table(pa.table({"user_id": [1], "country": ["FR"]}), tmp_path / "country=FR" / "0.parquet")
        assert read_users([tmp_path]).profiles["user"].column("country").to_pylist() == ["FR"]
        pq.write_table(pa.table({"user_id": [1], "country": ["DE"]}), tmp_path / "country=FR" / "0.parquet")
        with pytest.raises(DataError, match="has DE, but its folder says FR"):
            read_users([tmp_path])

    def test_several_files_and_patterns_are_one_table(self, tmp_path: Path) -> None:
        for n in range(3):
            (tmp_path / f"{n}.csv").write_text(HEAD + f"{n},10,a,2026-01-01,1\n")
        for paths in ([tmp_path / f"{n}.csv" for n in range(3)], [tmp_path / "*.csv"], [tmp_path]):
            found = read_interactions(*paths).interactions
            assert found is not None and found.column("user_id").to_pylist() == [0, 1, 2]
        with pytest.raises(UsageError, match="no file matches"):
            read_interactions(tmp_path / "x*.csv")
        with pytest.raises(UsageError, match="given twice"):
            read_interactions(tmp_path / "0.csv", tmp_path)
        (tmp_path / "2.csv").write_text(HEAD + "2,10,a,2026-01-01,1\n2,10,a,2026-01-01,7\n")
        with pytest.raises(DataError, match=r"2\.csv row 2: .*label='7'"):
            read_interactions(tmp_path)

    def test_a_column_is_typed_over_all_files(self, tmp_path: Path) -> None:
        (tmp_path / "1.csv").write_text("user_id,zip,age\n1,1234,5\n")
        (tmp_path / "2.csv").write_text("user_id,zip\n2,01234\n")
        delivery = read_users([tmp_path])
        assert delivery.profiles["user"].to_pydict() == {
            "user_id": [1, 2],
            "zip": ["1234", "01234"],
            "age": [5, None],
        }
        assert "age is missing in 1 of 2 files, 2.csv first" in delivery.notes[0]

    def test_types_that_do_not_go_together_are_refused(self, tmp_path: Path) -> None:
        for n, age in enumerate(([1], ["x"])):
            pq.write_table(pa.table({"user_id": [n], "age": age}), tmp_path / f"{n}.parquet")
        with pytest.raises(
            DataError, match=r"'age' has incompatible types: 0\.parquet int64, 1\.parquet string"
        ):
            read_users([tmp_path])
        pq.write_table(pa.table({"user_id": [1], "age": [1.5]}), tmp_path / "1.parquet")
        assert read_users([tmp_path]).profiles["user"].column("age").to_pylist() == [1.0, 1.5]
        pq.write_table(pa.table({"user_id": [0], "age": [LONG]}), tmp_path / "0.parquet")
        with pytest.raises(DataError, match="incompatible types"):
            read_users([tmp_path])


class TestIdsOfSeveralTables:
    def test_long_ids_of_csv_equal_those_of_parquet(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({**GOOD, "user_id": [LONG, LONG + 1, 3]}), tmp_path / "i.parquet")
        (tmp_path / "u.csv").write_text(f"user_id,age\n{LONG},30.5\n{LONG + 1},31.5\n")
        found = read_delivery([tmp_path / "i.parquet"], {"user": [tmp_path / "u.csv"]}, now=NOW)
        assert found.profiles["user"].column("user_id").to_pylist() == [LONG, LONG + 1]

    @pytest.mark.parametrize("wrong", ["007", "guest", str(2**63)])
    def test_ids_that_are_no_integers_as_the_others_are_refused(self, tmp_path: Path, wrong: str) -> None:
        pq.write_table(pa.table(GOOD), tmp_path / "i.parquet")
        (tmp_path / "u.csv").write_text(f"user_id,age\n1,30\n{wrong},31\n")
        with pytest.raises(DataError, match=rf"not an integer.*row 2: user_id='{wrong}'"):
            read_delivery([tmp_path / "i.parquet"], {"user": [tmp_path / "u.csv"]}, now=NOW)
        with pytest.raises(DataError, match="not an integer"):
            read_delivery([], {"user": [tmp_path / "u.csv"]}, ids=IdTypes(user="int64"), now=NOW)


class TestColumns:
    def csv(self, path: Path, text: str) -> Path:
        path.write_text(text)
        return path

    def test_a_named_column_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        path = self.csv(tmp_path / "i.csv", HEAD + "1,10,a,2026-01-01,1\n")
        with pytest.raises(UsageError, match="no column 'customer'; the columns are user_id, item_id"):
            read_interactions(path, columns={"user_id": "customer"})

    def test_one_column_may_serve_two_names(self, tmp_path: Path) -> None:
        path = self.csv(tmp_path / "i.csv", HEAD + "1,10,a,2026-01-01,1\n")
        found = read_interactions(path, columns={"known_at": "event_timestamp"}).interactions
        assert found is not None
        assert found.column("known_at").equals(found.column("event_timestamp"))

    def test_a_column_that_gives_way_is_named(self, tmp_path: Path) -> None:
        path = self.csv(
            tmp_path / "i.csv", "user_id,label," + HEAD[8:-6] + "clicked\n1,9,10,a,2026-01-01,1\n"
        )
        delivery = read_interactions(path, columns={"label": "clicked"})
        assert delivery.interactions is not None
        assert delivery.interactions.column("label").to_pylist() == [1]
        assert "column label isn't used, because --column label=clicked" in delivery.notes[0]

    def test_other_names_are_suggested(self, tmp_path: Path) -> None:
        path = self.csv(tmp_path / "i.csv", "Customer,product_id,Market,ts,clicked\n1,10,a,2026-01-01,1\n")
        with pytest.raises(DataError) as caught:
            read_interactions(path)
        for option in ("user_id=Customer", "item_id=product_id", "event_timestamp=ts", "label=clicked"):
            assert f"--column {option}" in str(caught.value)
        names = {"user_id": "Customer", "item_id": "product_id", "domain_id": "Market"}
        names |= {"event_timestamp": "ts", "label": "clicked"}
        assert read_interactions(path, columns=names).interactions is not None

    @pytest.mark.parametrize("unit", ["ms", "us", "ns"])
    def test_epoch_numbers_of_another_unit_are_named_with_it(self, tmp_path: Path, unit: str) -> None:
        number = 1767261600 * {"ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
        path = self.csv(tmp_path / "i.csv", HEAD + f"1,10,a,{number},1\n2,10,a,{number},1\n")
        with pytest.raises(DataError, match=f"is 2026-01-01T10:00:00Z: give --time-unit {unit}"):
            read_interactions(path)
        found = read_interactions(path, time_unit=unit).interactions
        assert found is not None
        assert found.column("event_timestamp")[0].as_py() == datetime(2026, 1, 1, 10, tzinfo=UTC)
        seconds = self.csv(tmp_path / "s.csv", HEAD + "1,10,a,1767261600,1\n")
        with pytest.raises(DataError, match="give --time-unit s"):
            read_interactions(seconds, time_unit=unit)

    @pytest.mark.parametrize("time", ["0044-03-15 (BC)", "0000-01-01", "99999-01-01", "2026-13-01", "1e9"])
    def test_times_that_are_none_are_refused_with_the_row(self, tmp_path: Path, time: str) -> None:
        path = self.csv(tmp_path / "i.csv", HEAD + f"1,10,a,{time},1\n")
        with pytest.raises(DataError, match=r"not a timestamp.*row 1: .*event_timestamp="):
            read_interactions(path)

    def test_what_is_cut_or_merged_is_said(self, tmp_path: Path) -> None:
        times = pa.array([1767261600000000001, 1767261600000000001, 5], pa.timestamp("ns"))
        same = {**GOOD, "user_id": [1, 1, 2], "item_id": [10, 10, 3], "label": [1, 1, 0], "device": ["x"] * 3}
        pq.write_table(pa.table({**same, "event_timestamp": times}), tmp_path / "i.parquet")
        delivery = read_interactions(tmp_path / "i.parquet")
        assert delivery.duplicates == 1
        notes = {column.column: (column.becomes, column.note) for column in delivery.columns}
        assert "3 times cut to microseconds" in notes["event_timestamp"][1]
        assert "without an offset are read as UTC" in notes["event_timestamp"][1]
        assert notes["device"][0] == "not used"


def test_nothing_at_all_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="nothing to import"):
        read_delivery([], {}, now=NOW)
