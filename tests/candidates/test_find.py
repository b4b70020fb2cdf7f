"""Candidates against a plain loop over the interactions, and the rules of time one by one."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmlora.candidates.pairs import Candidates
from mmlora.errors import DataError
from mmlora.schema import TIMESTAMP, IdTypes
from mmlora.scoring.blocks import ChunkLimits
from tests.candidates.made_up import MIDNIGHT, at, pairs, row, select, write

EVER: dict[str, Any] = {"active_days": 10, "exclude": "seen", "exclude_days": 0, "exclude_in": "all"}
"""Leaves out all that a user has ever seen, anywhere."""


def find(offline: Path, **changes: Any) -> Candidates:
    return select(offline, **{**EVER, **changes}).candidates


def test_candidates_are_active_users_times_known_items_minus_seen_pairs(tmp_path: Path) -> None:
    offline = write(
        tmp_path,
        [
            row(1, 10, -3),
            row(2, 11, -9.9),
            row(3, 12, -11),  # too long ago; the item counts all the same
            row(4, 13, -2, domain="b"),  # active elsewhere
            row(2, 13, -300, domain="b"),  # what a user had in another domain, long ago
        ],
    )
    found = find(offline)
    assert found.users.to_pylist() == [1, 2]
    assert found.items.to_pylist() == [10, 11, 12, 13]
    assert pairs(found) == {(1, 11), (1, 12), (1, 13), (2, 10), (2, 12)}
    assert (found.num_pairs, found.num_users) == (5, 2)
    assert [found.expected_rows(k) for k in (0, 1, 2)] == [5, 2, 4]


def test_rows_of_the_day_itself_or_unknown_by_then_do_not_count(tmp_path: Path) -> None:
    offline = write(
        tmp_path,
        [
            row(1, 10, -1),
            row(2, 11, 0),  # the moment D begins
            row(3, 12, -1, known=2),  # happened in time, reached us late
            row(1, 12, -1, known=2),
        ],
    )
    assert pairs(find(offline)) == set()
    assert find(offline).items.to_pylist() == [10]
    later = find(offline, known_as_of=at(2))
    assert later.users.to_pylist() == [1, 3]
    assert pairs(later) == {(3, 10)}


def test_a_correction_does_not_count_twice(tmp_path: Path) -> None:
    offline = write(tmp_path, [row(1, 10, -1), row(1, 10, -1, known=-0.5), row(1, 10, -2), row(2, 11, -1)])
    assert pairs(find(offline)) == {(1, 11), (2, 10)}
    assert find(offline).pairs.counts.tolist() == [1, 1]


def test_items_with_a_profile_are_known_without_an_interaction(tmp_path: Path) -> None:
    offline = write(tmp_path, [row(1, 10, -1)])
    folder = offline / "profiles" / "item"
    folder.mkdir(parents=True)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    times = [
        (20, epoch, epoch),
        (21, at(0), at(0)),
        (22, at(1), at(1)),
        (23, at(-1), at(1)),
        (10, epoch, epoch),
    ]
    ids, valid_from, created = map(list, zip(*times, strict=True))
    pq.write_table(
        pa.table(
            {
                "item_id": ids,
                "event_timestamp": pa.array(valid_from, TIMESTAMP),
                "created_timestamp": pa.array(created, TIMESTAMP),
                "year": ["x"] * 5,
            }
        ),
        folder / "a.parquet",
    )
    assert find(offline).items.to_pylist() == [10, 20, 21]
    assert find(offline, known_as_of=at(3)).items.to_pylist() == [10, 20, 21, 23]


def test_no_active_users_give_no_pairs(tmp_path: Path) -> None:
    found = find(write(tmp_path, [row(1, 10, -100), row(2, 10, -1, domain="b")]))
    assert (len(found.users), found.num_pairs, found.expected_rows(5)) == (0, 0, 0)
    assert found.users.type == pa.int64()
    assert found.items.to_pylist() == [10]


def test_a_missing_import_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="import data first"):
        find(tmp_path)


@pytest.mark.parametrize("kind", ["int64", "string"])
def test_candidates_equal_a_simple_loop(tmp_path: Path, kind: Any) -> None:
    name: Callable[[int], Any] = (lambda n: n) if kind == "int64" else (lambda n: f"é{n}")
    ids = IdTypes(kind, kind, kind)
    draw = random.Random(5)
    rows = [
        row(
            name(draw.randrange(30)),
            name(draw.randrange(40)),
            draw.uniform(-40, 5),
            name(draw.randrange(3)),
        )
        for _ in range(400)
    ]
    rows = [(*r[:4], r[3] + timedelta(days=draw.choice([0, 0, 0, 7])), 1) for r in rows]
    known = [r for r in rows if r[3] < MIDNIGHT and r[4] <= MIDNIGHT]
    users = {r[0] for r in known if r[2] == name(1) and r[3] >= at(-10)}
    expected = {(u, r[1]) for u in users for r in known} - {r[:2] for r in known}

    found = find(write(tmp_path, rows, ids), domain=name(1), ids=ids)

    assert found.users.to_pylist() == sorted(users)
    assert found.items.to_pylist() == sorted({r[1] for r in known})
    assert pairs(found) == expected
    assert 5 < len(users) < 30
    for first, last in [(c.first, c.last) for c in ChunkLimits(pairs=100).cut(found)]:
        assert 0 < last - first <= max(1, 100 // len(found.items))
