"""The audit catches every fault, planted in the Parquet on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmlora.candidates.pairs import Candidates, PairIndex
from mmlora.checks.audit import AuditReport, audit_load
from mmlora.checks.scores import SCORE_RULES, Expected
from mmlora.scoring.score import Staged
from mmlora.scoring.staging import part_files

TOP_K = 5


@pytest.fixture
def staged(world: Any, grid: Candidates, tmp_path: Path) -> Staged:
    return world.score(grid, tmp_path / "load", top_k=TOP_K)


def audit(world: Any, staged: Staged, expected: Expected) -> AuditReport:
    files = part_files(staged.folder)
    return audit_load(files, ids=world.ids, domain="west", on=world.on, expected=expected)


def expected_of(candidates: Candidates, staged: Staged) -> Expected:
    return Expected(candidates.expected_rows(TOP_K), candidates.num_users, TOP_K, staged.content_hash)


def test_an_honest_load_passes(world: Any, grid: Candidates, staged: Staged) -> None:
    report = audit(world, staged, expected_of(grid, staged))
    assert report.passed, report.failures
    assert [check.name for check in report.checks] == ["schema", *(rule.name for rule in SCORE_RULES)]


def test_a_load_without_rows_passes(world: Any, tmp_path: Path) -> None:
    none = Candidates(
        pa.array([], pa.int64()), pa.array([1]), PairIndex(np.zeros(1, np.int64), np.zeros(0, np.int64))
    )
    staged = world.score(none, tmp_path / "load")
    report = audit(world, staged, expected_of(none, staged))
    assert report.passed, report.failures


def put(name: str, row: int, value: object) -> Callable[[pa.Table], pa.Table]:
    """Return an edit that sets one value."""

    def edit(table: pa.Table) -> pa.Table:
        values = table.column(name).to_pylist()
        values[row] = value
        changed = pa.array(values, table.schema.field(name).type)
        return table.set_column(table.schema.get_field_index(name), name, changed)

    return edit


def constant(table: pa.Table) -> pa.Table:
    same = pa.array(np.full(table.num_rows, 0.25, np.float32))
    return table.set_column(4, "score", same)


def repeat_a_row(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, table.slice(3, 1)])


def swap_scores(table: pa.Table) -> pa.Table:
    scores = table.column("score").to_pylist()
    scores[0], scores[1] = scores[1], scores[0]
    return table.set_column(4, "score", pa.array(scores, pa.float32()))


FAULTS: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    "a row is gone": (lambda table: table.slice(0, table.num_rows - 1), "rows"),
    "a user is gone": (lambda table: table.slice(TOP_K), "users"),
    "a null score": (put("score", 4, None), "nulls"),
    "a null user": (put("user_id", 4, None), "nulls"),
    "a null position": (put("position", 4, None), "nulls"),
    "a score above 1": (put("score", 0, 1.5), "range"),
    "a score below 0": (put("score", 4, -0.1), "range"),
    "a NaN": (put("score", 0, float("nan")), "range"),
    "an infinite score": (put("score", 0, float("inf")), "range"),
    "all scores alike": (constant, "constant"),
    "a row twice": (repeat_a_row, "keys"),
    "an item twice": (lambda table: put("item_id", 1, table.column("item_id")[0].as_py())(table), "keys"),
    "a gap in positions": (put("position", 4, 6), "positions"),
    "a position twice": (put("position", 1, 1), "positions"),
    "positions from 0": (put("position", 0, 0), "positions"),
    "a worse item first": (swap_scores, "order"),
    "another domain": (put("domain_id", 9, "east"), "domain and date"),
    "another date": (put("score_date", 9, date(2024, 3, 2)), "domain and date"),
    "a score a little off": (put("score", 0, 0.999), "content hash"),
    "rows in another order": (
        lambda table: table.take(pa.array(range(table.num_rows - 1, -1, -1))),
        "content hash",
    ),
    "a column too few": (lambda table: table.drop_columns(["position"]), "schema"),
    "a column of another type": (
        lambda table: table.set_column(0, "user_id", table.column("user_id").cast(pa.string())),
        "schema",
    ),
}


def test_every_rule_has_a_fault_that_it_catches() -> None:
    assert {rule.name for rule in SCORE_RULES} <= {check for _, check in FAULTS.values()}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_planted_fault_is_caught(world: Any, grid: Candidates, staged: Staged, fault: str) -> None:
    edit, check = FAULTS[fault]
    table = pq.read_table(staged.files[0])
    nullable = table.cast(pa.schema([field.with_nullable(True) for field in table.schema]))
    pq.write_table(edit(nullable), staged.files[0])

    report = audit(world, staged, expected_of(grid, staged))

    assert not report.passed
    failed = {found.name for found in report.checks if not found.passed}
    assert check in failed
    assert failed <= {"content hash", check, "rows", "users", "order", "positions"}


def test_a_broken_file_is_caught(world: Any, grid: Candidates, staged: Staged) -> None:
    whole = staged.files[0].read_bytes()
    expected = expected_of(grid, staged)
    staged.files[0].write_bytes(whole[: len(whole) // 2])
    assert not audit(world, staged, expected).passed
    middle = bytearray(whole)
    middle[20:60] = b"\0" * 40
    staged.files[0].write_bytes(bytes(middle))
    assert not audit(world, staged, expected).passed
    staged.files[0].unlink()
    assert audit(world, staged, expected).failures == ("schema: no part-*.parquet",)


def test_lists_longer_than_asked_are_caught(world: Any, grid: Candidates, staged: Staged) -> None:
    expected = replace(expected_of(grid, staged), top_k=3)
    assert {check.name for check in audit(world, staged, expected).checks if not check.passed} == {
        "positions"
    }
