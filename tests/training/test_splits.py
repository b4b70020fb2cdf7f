from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from mmlora.errors import DataError, UsageError
from mmlora.schema import TIMESTAMP
from mmlora.training.splits import SPLIT_PARTS, split_rows

KEYS = ("user", "item", "domain", "event_timestamp", "label")


def interactions(rows: int = 400, *, seed: int = 0, moments: int = 10_000) -> dict[str, pa.Array]:
    draw = np.random.default_rng(seed)
    start = datetime(2001, 1, 1, tzinfo=UTC)
    times = [start + timedelta(minutes=int(m)) for m in draw.integers(0, moments, rows)]
    return {
        "user": pa.array(draw.integers(0, 25, rows)),
        "item": pa.array([f"item {i}" for i in range(rows)]),
        "domain": pa.array(draw.choice(["a", "b", "rare"], rows, p=[0.6, 0.38, 0.02])),
        "event_timestamp": pa.array(times, TIMESTAMP),
        "label": pa.array((draw.random(rows) < 0.3).astype(np.int8)),
    }


def shuffled(columns: dict[str, pa.Array]) -> tuple[dict[str, pa.Array], np.ndarray]:
    order = np.random.default_rng(99).permutation(len(columns["user"]))
    return {name: column.take(pa.array(order)) for name, column in columns.items()}, order


@pytest.mark.parametrize("name", ["random", "user", "time"])
def test_the_split_does_not_depend_on_row_order(name):
    columns = interactions(moments=60)
    other, order = shuffled(columns)
    assert np.array_equal(split_rows(name, **columns)[order], split_rows(name, **other))


def test_random_splits_every_domain_and_label_exactly():
    columns = interactions(1000)
    parts = split_rows("random", **columns, seed=3)
    domain, label = columns["domain"].to_numpy(zero_copy_only=False), columns["label"].to_numpy()
    for d in np.unique(domain):
        for y in (0, 1):
            counts = np.bincount(parts[(domain == d) & (label == y)], minlength=3)
            assert np.all(np.abs(counts - counts.sum() * np.array([0.6, 0.2, 0.2])) <= 1)
    assert abs((parts == 0).sum() - 600) <= 3


def test_random_follows_its_seed():
    columns = interactions()
    first = split_rows("random", **columns, seed=1)
    assert np.array_equal(first, split_rows("random", **columns, seed=1))
    assert not np.array_equal(first, split_rows("random", **columns, seed=2))


def test_the_user_split_cuts_each_users_own_history():
    columns = interactions()
    parts = split_rows("user", **columns)
    user, time = columns["user"].to_numpy(), columns["event_timestamp"].to_numpy(zero_copy_only=False)
    for u in np.unique(user):
        own = parts[user == u][np.argsort(time[user == u], kind="stable")]
        assert np.all(np.diff(own) >= 0)
        counts = np.bincount(own, minlength=3)
        assert np.all(np.abs(counts - counts.sum() * np.array([0.6, 0.2, 0.2])) <= 1)


@pytest.mark.parametrize("moments", [5, 60, 10_000])
def test_the_time_split_keeps_equal_timestamps_together(moments):
    columns = interactions(moments=moments)
    parts = split_rows("time", **columns)
    time = columns["event_timestamp"].to_numpy(zero_copy_only=False)
    assert all(len(set(parts[time == moment])) == 1 for moment in np.unique(time))
    assert time[parts == 0].max() < time[parts == 1].min() <= time[parts == 1].max() < time[parts == 2].min()
    assert abs((parts == 0).mean() - 0.6) <= 0.5 / moments + 0.1


def test_equal_timestamps_leave_no_test_rows():
    with pytest.raises(DataError, match="none are left for validation and test"):
        split_rows("time", **interactions(moments=1))


def test_fractions_decide_and_a_part_may_be_left_out():
    parts = split_rows("time", **interactions(), fractions=(0.9, 0.1, 0.0))
    assert np.bincount(parts, minlength=3)[2] == 0
    assert abs((parts == 0).mean() - 0.9) < 0.02


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("later", {}),
        ("time", {"fractions": (0.5, 0.2, 0.2)}),
        ("file", {}),
        ("time", {"file": Path("x.csv")}),
    ],
)
def test_wrong_use_is_refused(name, more):
    with pytest.raises(UsageError):
        split_rows(name, **interactions(), **more)


def split_table(columns: dict[str, pa.Array], parts: np.ndarray) -> pa.Table:
    return pa.table(
        {
            "user_id": columns["user"],
            "item_id": columns["item"],
            "event_timestamp": columns["event_timestamp"],
            "split": [SPLIT_PARTS[part] for part in parts],
        }
    )


def write(table: pa.Table, path: Path) -> Path:
    pyarrow.parquet.write_table(table, path) if path.suffix == ".parquet" else pa.csv.write_csv(table, path)
    return path


@pytest.mark.parametrize("name", ["splits.parquet", "splits.csv"])
def test_a_split_file_may_be_in_any_order(tmp_path, name):
    columns = interactions()
    parts = split_rows("random", **columns, seed=5)
    table = split_table(*[shuffled(columns)[0], parts[shuffled(columns)[1]]])
    assert np.array_equal(split_rows("file", **columns, file=write(table, tmp_path / name)), parts)


def test_a_csv_time_without_zone_is_utc(tmp_path):
    columns = interactions()
    parts = split_rows("time", **columns)
    table = split_table(columns, parts)
    naive = table["event_timestamp"].cast(pa.timestamp("us")).cast(pa.string())
    file = write(table.set_column(2, "event_timestamp", naive), tmp_path / "splits.csv")
    assert np.array_equal(split_rows("file", **columns, file=file), parts)


def test_rows_missing_from_the_file_are_counted_and_shown(tmp_path):
    columns = interactions()
    table = split_table(columns, split_rows("time", **columns)).slice(7)
    with pytest.raises(DataError, match="missing from the file") as caught:
        split_rows("file", **columns, file=write(table, tmp_path / "splits.csv"))
    assert caught.value.faults[0].count == 7
    assert "item 0" in caught.value.faults[0].rows[0]


def test_invalid_split_files_are_refused(tmp_path):
    columns = interactions()
    table = split_table(columns, split_rows("time", **columns))
    wrong = table.set_column(3, "split", pa.array(["dev"] * table.num_rows))
    twice = pa.concat_tables([table, split_table(columns, (split_rows("time", **columns) + 1) % 3)])
    text = table.set_column(0, "user_id", pa.array(["someone"] * table.num_rows))
    cases = [
        (wrong, "'split': the split is not one of train"),
        (twice, "keys are in more than one split"),
        (text, "'user_id'"),
        (table.drop_columns("item_id"), "'item_id': the column is missing"),
    ]
    for number, (faulty, message) in enumerate(cases):
        file = write(faulty, tmp_path / f"{number}.csv")
        with pytest.raises(DataError, match=message) as caught:
            split_rows("file", **columns, file=file)
        assert caught.value.source == str(file)
    with pytest.raises(DataError, match="can't be read"):
        split_rows("file", **columns, file=tmp_path / "absent.csv")
