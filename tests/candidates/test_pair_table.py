"""A pair table of the user's own: by path or SQL, for a domain and a date."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmlora.candidates.pair_table import pair_domains
from mmlora.candidates.pairs import Candidates
from mmlora.candidates.report import Selection
from mmlora.candidates.tables import Table
from mmlora.duck import kept_open
from mmlora.errors import DataError, UsageError
from mmlora.schema import IdTypes
from tests.candidates.made_up import IDS, D, at, pairs, removed, row, select, write

NAMED = IdTypes("int64", "string")


def write_pairs(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture
def offline(tmp_path: Path) -> Path:
    return write(tmp_path / "offline", [row(user, item, -1) for user, item in ((1, 9), (2, 7), (3, 3))])


def read(offline: Path, path: Path | str, **options: Any) -> Candidates:
    return choose(offline, path, **options).candidates


def choose(offline: Path, path: Path | str, **options: Any) -> Selection:
    return select(offline, pairs=str(path), **options)


def test_a_pair_table_is_sorted_without_duplicates(offline: Path, tmp_path: Path) -> None:
    path = write_pairs(
        tmp_path / "p.parquet",
        item_id=pa.array([7, 3, 7, 9], pa.int32()),
        user_id=[2, 2, 2, 1],
        why=list("abcd"),
    )
    found = read(offline, path)
    assert found.listed
    assert found.users.to_pylist() == [1, 2]
    assert found.items.to_pylist() == [3, 7, 9]
    assert pairs(found) == {(1, 9), (2, 3), (2, 7)}, (
        "also what they clicked: the table alone decides what is scored"
    )
    assert (found.num_pairs, found.expected_rows(1)) == (3, 2)


def test_a_pair_table_is_filtered_by_domain(tmp_path: Path) -> None:
    offline = write(tmp_path / "named", [row(1, "x", -1), row(2, "y", -1, domain="b")], NAMED)
    path = write_pairs(tmp_path / "p.parquet", user_id=[1, 2], item_id=["x", "y"], domain_id=["a", "b"])
    assert pairs(read(offline, path, ids=NAMED, domain="b")) == {(2, "y")}
    assert read(offline, path, ids=NAMED, domain="c").num_pairs == 0
    assert pair_domains(Table("pairs", str(path), "a", D), ids=NAMED) == {"a", "b"}


def test_unknown_ids_are_reported_and_not_scored(offline: Path, tmp_path: Path) -> None:
    users, known = [2, *range(50, 58), 2], [7] * 9
    path = write_pairs(tmp_path / "p.parquet", user_id=users, item_id=[*known, 70])
    selection = choose(offline, path)
    assert pairs(selection.candidates) == {(2, 7)}
    assert removed(selection) == {"pairs: of an unknown user or item": 9}
    assert [str(unknown) for unknown in selection.unknown] == [
        f"{path} names 8 unknown users: 50, 51, 52, 53, 54, ...",
        f"{path} names 1 unknown items: 70",
    ]


def test_users_known_only_later_are_unknown_on_the_night(tmp_path: Path) -> None:
    offline = write(tmp_path / "offline", [row(1, 9, -1), row(2, 9, 0.5), row(3, 9, -1, known=2)])
    path = write_pairs(tmp_path / "p.parquet", user_id=[1, 2, 3], item_id=[9, 9, 9])
    assert pairs(read(offline, path)) == {(1, 9)}
    assert pairs(read(offline, path, known_as_of=at(3))) == {(1, 9), (3, 9)}


def test_domain_and_date_placeholders_are_replaced(tmp_path: Path) -> None:
    offline = write(tmp_path / "offline", [row(1, 9, -1), row(2, 7, -1, domain="o'b*")])
    (tmp_path / "2024-03-01").mkdir()
    for domain, user, item in (("a", 1, 9), ("o'b*", 2, 7), ("o'b other", 1, 7)):
        write_pairs(tmp_path / "2024-03-01" / f"{domain}-1.parquet", user_id=[user], item_id=[item])
    template = f"{tmp_path}/{{date}}/{{domain}}-*.parquet"
    assert pairs(read(offline, template)) == {(1, 9)}
    assert pairs(read(offline, template, domain="o'b*")) == {(2, 7)}
    sql = "SELECT 2 AS user_id, 7 AS item_id WHERE '{domain}' = 'o''b*' AND DATE '{date}' = DATE '2024-03-01'"
    assert pairs(read(offline, sql, domain="o'b*")) == {(2, 7)}
    assert pairs(read(offline, sql)) == set()
    with pytest.raises(UsageError, match="can't be part of the path"):
        read(offline, f"{tmp_path}/{{domain}}.parquet", domain="../secret")


def test_all_faults_of_a_pair_table_are_reported(offline: Path, tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "p.parquet", user_id=["1", "2"], item_id=[1, None], domain_id=["a", None])
    with pytest.raises(DataError) as caught:
        read(offline, path)
    assert [(fault.column, fault.count) for fault in caught.value.faults] == [
        ("user_id", 0),
        ("item_id", 1),
        ("domain_id", 1),
    ]
    assert "row 1" in str(caught.value)

    with pytest.raises(DataError, match=r"item_id.*missing"):
        read(offline, write_pairs(tmp_path / "q.parquet", user_id=[1], item=[2]))
    with pytest.raises(DataError, match=r"item_id.*missing"):
        read(offline, "SELECT 1 AS user_id")
    (tmp_path / "r.parquet").write_text("no Parquet")
    for unreadable in ("r.parquet", "absent.parquet"):
        with pytest.raises(DataError, match="cannot be read"):
            read(offline, tmp_path / unreadable)
    assert pair_domains(Table("pairs", str(tmp_path / "q.parquet"), "a", D), ids=IDS) is None


def test_what_the_sql_of_one_domain_attaches_is_gone_for_the_next(offline: Path, tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "lists.duckdb")) as lists:
        lists.execute("CREATE TABLE pairs AS SELECT 1 AS user_id, 9 AS item_id")
    attach = f"ATTACH '{tmp_path}/lists.duckdb' AS lists (READ_ONLY)"
    sql = f"SELECT 1; {attach}; FROM lists.pairs"
    with kept_open():  # as within a night of many domains
        for _ in range(2):
            assert pairs(read(offline, sql)) == {(1, 9)}
