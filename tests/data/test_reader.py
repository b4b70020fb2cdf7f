import gzip
import json
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from mmlora.errors import DataError, UsageError
from mmlora.schema import IdTypes
from tests.data.reading import read_tables

NOW = datetime(2024, 1, 1, tzinfo=UTC)
GOOD = {
    "user_id": [1, 2],
    "item_id": ["a", "b"],
    "domain_id": ["x", "x"],
    "event_timestamp": ["2023-05-01T10:00:00", "2023-05-02T10:00:00Z"],
    "label": [0, 1],
}


def parquet(path: Path, columns: dict[str, object]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def csv(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def faults_of(path: Path, **more: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        read_tables(path, now=NOW, **more)
    assert caught.value.source == str(more[next(iter(more))] if more else path)
    return caught.value


@pytest.mark.parametrize(
    ("column", "values", "what", "count"),
    [
        ("user_id", [None, 2], "null in user_id", 1),
        ("item_id", ["", "b"], "empty text", 1),
        ("user_id", [1.0, 2.0], "type double can't be an id", 0),
        ("user_id", pa.array([2**63, 1], pa.uint64()), "larger than a 64-bit", 1),
        ("label", [0, 2], "not 0 or 1", 1),
        ("label", [0, None], "null in label", 1),
        ("label", [0.5, 1.0], "not 0 or 1", 1),
        ("label", ["yes", "1"], "not 0 or 1", 1),
        ("label", pa.array([[1], [0]]), "can't be a label", 0),
        ("event_timestamp", ["yesterday", "2023-05-02"], "not a timestamp", 1),
        ("event_timestamp", ["epoch", "infinity"], "not a timestamp", 2),
        ("event_timestamp", ["2023-02-30", "2023-05-02"], "not a timestamp", 1),
        ("event_timestamp", [None, "2023-05-02"], "null in event_timestamp", 1),
        ("event_timestamp", ["2024-01-02", "2023-05-02"], "in the future", 1),
        ("event_timestamp", [1682935200000, 1], "not a timestamp|in the future", 1),
        ("event_timestamp", [20230501, 20230502], "a date written as a number", 2),
        ("event_timestamp", [1.5, 2.5], "is not a time", 0),
    ],
)
def test_a_fault_names_file_column_count_and_rows(
    tmp_path: Path, column: str, values: object, what: str, count: int
) -> None:
    error = faults_of(parquet(tmp_path / "i.parquet", {**GOOD, column: values}))
    (fault,) = error.faults
    assert fault.column == column
    assert any(part in fault.what for part in what.split("|"))
    assert fault.count == count
    assert len(fault.rows) == count
    assert all(row.startswith("row ") and f"{column}=" in row for row in fault.rows)


def test_all_faults_of_a_file_come_at_once(tmp_path: Path) -> None:
    columns = {**GOOD, "user_id": [None, 1], "label": [3, 1], "event_timestamp": ["2030-01-01", "x"]}
    del columns["domain_id"]
    error = faults_of(parquet(tmp_path / "i.parquet", columns))
    found = [(fault.column, fault.count) for fault in error.faults]
    assert sorted(found) == [
        ("domain_id", 0),
        ("event_timestamp", 1),
        ("event_timestamp", 1),
        ("label", 1),
        ("user_id", 1),
    ]
    assert "the table has user_id" in str(error)


def test_only_the_first_rows_at_fault_are_quoted_but_all_are_counted(tmp_path: Path) -> None:
    columns = {name: values * 500 for name, values in GOOD.items()}
    columns["user_id"] = list(range(1000))
    columns["label"] = [7] * 1000
    (fault,) = faults_of(parquet(tmp_path / "i.parquet", columns)).faults
    assert fault.count == 1000
    assert len(fault.rows) == 3
    assert "1,000 rows" in str(fault)


def test_equal_duplicates_collapse_and_differing_labels_are_shown(tmp_path: Path) -> None:
    twice = {name: [values[0], values[0], values[1]] for name, values in GOOD.items()}
    table, _ = read_tables(parquet(tmp_path / "same.parquet", twice), now=NOW)
    assert table.num_rows == 2
    error = faults_of(parquet(tmp_path / "differ.parquet", {**twice, "label": [0, 1, 1]}))
    (fault,) = error.faults
    assert fault.count == 2
    assert [row[:5] for row in fault.rows] == ["row 1", "row 2"]
    assert "label=0" in fault.rows[0]
    assert "label=1" in fault.rows[1]


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("i.parquet", b"", "empty"),
        ("i.csv", b"", "empty"),
        ("i.parquet", b"user_id,item_id\n1,2\n", "not a Parquet file"),
        ("i.parquet", b"PAR1 but cut off", "broken Parquet"),
        ("i.csv", b"user_id,item_id,domain_id,event_timestamp,label\n", "no rows"),
        ("i.csv", b"user_id,item_id,domain_id,event_timestamp,label\n1,2,x\n1,2,x,3,0\n", "3 values"),
        ("i.csv", b"user_id,item_id,domain_id,event_timestamp,label\n1,\xff\xfe,x,3,0\n", "UTF-8"),
        ("i.csv", b"user_id,user_id,item_id,domain_id,event_timestamp,label\n1,1,2,x,3,0\n", "more than one"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert what in str(faults_of(path))


def test_a_ragged_csv_row_is_numbered_and_quoted(tmp_path: Path) -> None:
    text = "user_id,item_id,domain_id,event_timestamp,label\n1,2,x,3,0\n9,oops\n"
    (fault,) = faults_of(csv(tmp_path / "i.csv", text)).faults
    assert fault.rows == ("row 2: 9,oops",)


def test_a_missing_path_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        read_tables(tmp_path / "none.csv")


@pytest.mark.parametrize(
    "values",
    [
        ["2023-05-01T10:00:00.5", "2023-05-02T12:00:00+02:00"],
        pa.array([datetime(2023, 5, 1, 10, 0, 0, 500_000), datetime(2023, 5, 2, 10)], pa.timestamp("ns")),
        pa.array(
            [datetime(2023, 5, 1, 10, 0, 0, 500_000, UTC), datetime(2023, 5, 2, 10, tzinfo=UTC)],
            pa.timestamp("ms", "Europe/Berlin"),
        ),
    ],
)
def test_times_of_any_kind_become_utc(tmp_path: Path, values: object) -> None:
    table, _ = read_tables(parquet(tmp_path / "i.parquet", {**GOOD, "event_timestamp": values}), now=NOW)
    times = table.column("event_timestamp").to_pylist()
    assert times == [
        datetime(2023, 5, 1, 10, 0, 0, 500_000, UTC),
        datetime(2023, 5, 2, 10, tzinfo=UTC),
    ]


@pytest.mark.parametrize(
    "values", [[1682899200, 1682985600], ["1682899200", "1682985600"], [date(2023, 5, 1), date(2023, 5, 2)]]
)
def test_whole_seconds_and_dates_are_times(tmp_path: Path, values: list[object]) -> None:
    table, _ = read_tables(parquet(tmp_path / "i.parquet", {**GOOD, "event_timestamp": values}), now=NOW)
    assert [t.date() for t in table.column("event_timestamp").to_pylist()] == [
        date(2023, 5, 1),
        date(2023, 5, 2),
    ]


@pytest.mark.parametrize("values", [[False, True], [0.0, 1.0], ["0", "1"], ["false", "True"]])
def test_labels_of_any_kind_become_0_and_1(tmp_path: Path, values: list[object]) -> None:
    table, _ = read_tables(parquet(tmp_path / "i.parquet", {**GOOD, "label": values}), now=NOW)
    assert table.column("label").to_pylist() == [0, 1]
    assert table.schema.field("label").type == pa.int8()


def test_encoded_texts_and_narrow_integers_are_plain(tmp_path: Path) -> None:
    columns = {
        **GOOD,
        "user_id": pa.array([1, 2], pa.int16()),
        "item_id": pa.array(["a", "b"]).dictionary_encode(),
        "domain_id": pa.array(["x", "x"], pa.large_string()),
    }
    table, _ = read_tables(parquet(tmp_path / "i.parquet", columns), now=NOW)
    kinds = [str(table.schema.field(name).type) for name in ("user_id", "item_id", "domain_id")]
    assert kinds == ["int64", "string", "string"]


def test_a_csv_says_the_same_as_its_parquet(tmp_path: Path) -> None:
    pa.csv.write_csv(pa.table(GOOD), tmp_path / "i.csv")
    from_csv, _ = read_tables(tmp_path / "i.csv", now=NOW)
    from_parquet, _ = read_tables(parquet(tmp_path / "i.parquet", GOOD), now=NOW)
    assert from_csv.equals(from_parquet)
    (tmp_path / "i.csv.gz").write_bytes(gzip.compress((tmp_path / "i.csv").read_bytes()))
    assert read_tables(tmp_path / "i.csv.gz", now=NOW)[0].equals(from_parquet)


def test_a_folder_of_parquet_files_is_one_table(tmp_path: Path) -> None:
    folder = tmp_path / "days"
    folder.mkdir()
    for i in range(2):
        parquet(folder / f"{i}.parquet", {name: [values[i]] for name, values in GOOD.items()})
    table, _ = read_tables(folder, now=NOW)
    assert table.num_rows == 2


HEADER = "user_id,item_id,domain_id,event_timestamp,label\n"


def test_csv_ids_are_integers_only_when_all_are(tmp_path: Path) -> None:
    numbers = csv(tmp_path / "n.csv", HEADER + "1,10,7,2023-05-01,0\n-2,11,7,2023-05-01,1\n")
    table, _ = read_tables(numbers, now=NOW)
    assert table.column("user_id").to_pylist() == [1, -2]
    zeros = csv(tmp_path / "z.csv", HEADER + "007,10,7,2023-05-01,0\n2,11,7,2023-05-01,1\n")
    table, _ = read_tables(zeros, now=NOW)
    assert table.column("user_id").to_pylist() == ["007", "2"]
    assert table.column("item_id").to_pylist() == [10, 11]


def test_csv_ids_follow_the_other_table_and_the_store(tmp_path: Path) -> None:
    numbers = csv(tmp_path / "n.csv", HEADER + "1,10,7,2023-05-01,0\n")
    users = csv(tmp_path / "u.csv", "user_id,age\n1,20\nguest,30\n")
    table, profiles = read_tables(numbers, users, now=NOW)
    assert table.column("user_id").to_pylist() == ["1"]
    assert profiles["user"].column("user_id").to_pylist() == ["1", "guest"]
    table, _ = read_tables(numbers, ids=IdTypes(user="string", item="int64", domain="string"), now=NOW)
    assert [table.column(name)[0].as_py() for name in ("user_id", "item_id", "domain_id")] == ["1", 10, "7"]


def test_columns_of_other_names_are_renamed(tmp_path: Path) -> None:
    text = "visitor,item_id,domain_id,ts,label,clicked\n1,10,7,2023-05-01,9,1\n"
    users = csv(tmp_path / "u.csv", "visitor,clicked\n1,5\n")
    names = {"user_id": "visitor", "event_timestamp": "ts", "label": "clicked"}
    table, profiles = read_tables(csv(tmp_path / "i.csv", text), users, columns=names, now=NOW)
    assert table.column_names == ["user_id", "item_id", "domain_id", "event_timestamp", "label"]
    assert table.column("label").to_pylist() == [1]
    assert profiles["user"].to_pydict() == {"user_id": [1], "clicked": [5]}
    with pytest.raises(UsageError, match="colour"):
        read_tables(tmp_path / "i.csv", columns={"colour": "c"})


def test_a_profile_at_fault_is_named_itself(tmp_path: Path) -> None:
    good = parquet(tmp_path / "i.parquet", GOOD)
    users = parquet(tmp_path / "u.parquet", {"user_id": [1, 1, None], "age": [1, 2, 3]})
    error = faults_of(good, users=users)
    assert [(fault.column, fault.count) for fault in error.faults] == [("user_id", 1), ("user_id", 2)]
    assert json.dumps(error.faults[1].rows).count("row ") == 2
