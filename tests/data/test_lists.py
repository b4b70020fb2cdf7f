"""Lists in text cells say the same as the same lists in Parquet."""

import csv
import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmlora.data.lists import find_lists
from mmlora.errors import DataError, UsageError
from tests.data.reading import read_tables

NOW = datetime(2024, 1, 1, tzinfo=UTC)
ROW = {"user_id": [1], "item_id": [2], "domain_id": ["x"], "event_timestamp": ["2023-05-01"], "label": [1]}


@pytest.fixture
def interactions(tmp_path: Path) -> Path:
    pq.write_table(pa.table(ROW), tmp_path / "interactions.parquet")
    return tmp_path / "interactions.parquet"


def write_csv(path: Path, cells: list[str]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["user_id", "trait"], *([n, cell] for n, cell in enumerate(cells))])
    return path


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (['["shoes","toys"]', "[]", "", '["a, b"]'], [["shoes", "toys"], [], None, ["a, b"]]),
        (["['shoes', 'toys']", "['x']"], [["shoes", "toys"], ["x"]]),
        (["[0.1,0.2]", "", "[3, 4e-2]"], [[0.1, 0.2], None, [3.0, 0.04]]),
        (["[1,2]", "[0,-1]"], [[1.0, 2.0], [0.0, -1.0]]),
        (["[17]", "[3,1577134800018226901]"], [["17"], ["3", "1577134800018226901"]]),
        (["[]", ""], [[], None]),
        (
            ["shoes|toys", "books", "toys|books|pets"],
            [["shoes", "toys"], ["books"], ["toys", "books", "pets"]],
        ),
    ],
)
def test_cells_that_hold_lists_become_lists(
    interactions: Path, tmp_path: Path, cells: list[str], values: list[object]
) -> None:
    _, profiles = read_tables(interactions, write_csv(tmp_path / "u.csv", cells), now=NOW)
    pq.write_table(pa.table({"user_id": range(len(values)), "trait": values}), tmp_path / "u.parquet")
    _, same = read_tables(interactions, tmp_path / "u.parquet", now=NOW)
    assert profiles["user"].equals(same["user"])


@pytest.mark.parametrize(
    "cells",
    [
        ["A | B", "A", "C | A"],  # padded: a title
        ["a|b", "c|d", "a|c"],  # always two parts: may be one code
        ["a|b", "c"],  # nothing repeats
        ["a||b", "a"],
        ['["a"]', "none"],
        ['[["a"]]', '[["b"]]'],
        ["[true]", "[false]"],
        ["[1, NaN", "x]"],
    ],
)
def test_cells_that_may_be_texts_stay_texts(cells: list[str]) -> None:
    assert find_lists(pa.array(cells)) is None


@pytest.mark.parametrize(
    ("separator", "cells", "values"),
    [
        (",", ["a, b", "c", "", "b,b"], [["a", "b"], ["c"], None, ["b", "b"]]),
        (" ", ["0.5 1", "1  2.5"], [[0.5, 1.0], [1.0, 2.5]]),
        ("|", ["007|1", "2|3"], [["007", "1"], ["2", "3"]]),
        ("json", ['["a"]', ""], [["a"], None]),
    ],
)
def test_the_separator_may_be_named(
    interactions: Path, tmp_path: Path, separator: str, cells: list[str], values: list[object]
) -> None:
    users = write_csv(tmp_path / "u.csv", cells)
    _, profiles = read_tables(interactions, users, lists={"users.trait": separator}, now=NOW)
    assert profiles["user"].column("trait").to_pylist() == values


def test_a_named_column_that_is_none_is_refused(interactions: Path, tmp_path: Path) -> None:
    users = write_csv(tmp_path / "u.csv", [json.dumps(["a"]), "b"])
    with pytest.raises(UsageError, match=r"users\.tags"):
        read_tables(interactions, users, lists={"users.tags": "|"}, now=NOW)
    with pytest.raises(DataError, match="not a JSON array of texts or numbers: 'b'"):
        read_tables(interactions, users, lists={"users.trait": "json"}, now=NOW)
