"""The retrieval stage against a plain sort, however it is cut."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from mmlora.candidates import retrieval
from mmlora.candidates.pairs import Candidates, PairIndex
from mmlora.candidates.retrieval import popular, recall, retrieve, sampled_users
from mmlora.load_checks import Recall
from mmlora.scoring.workers import workers

USERS, ITEMS, KEEP = 70, 30, 6


def made_up() -> tuple[Candidates, np.ndarray]:
    """A grid with exclusions, one user with 3 items left and one with none; scores with many ties."""
    rng = np.random.default_rng(0)
    left_out = rng.random((USERS, ITEMS)) < 0.2
    left_out[5], left_out[6] = np.arange(ITEMS) >= 3, True
    users, items = left_out.nonzero()
    grid = Candidates(
        pa.array([f"u{n:02d}" for n in range(USERS)]),
        pa.array(range(100, 100 + ITEMS)),
        PairIndex.from_rows(users, items, USERS),
    )
    return grid, rng.integers(-4, 5, (USERS, ITEMS)).astype(np.float32)


def by_chunk(scores: np.ndarray) -> Callable[[int, int], Callable[[int, int], Tensor]]:
    return lambda start, end: lambda first, last: torch.from_numpy(scores[start:end][first:last].copy())


def by_sorting(grid: Candidates, scores: np.ndarray) -> list[list[int]]:
    """Each user's best items by score and then by place, in the order of their places."""
    kept = []
    for user in range(USERS):
        left = np.setdiff1d(np.arange(ITEMS), grid.pairs.between(user, user + 1)[1])
        kept.append(sorted(sorted(left.tolist(), key=lambda item: (-scores[user, item], item))[:KEEP]))
    return kept


def of_users(kept: Candidates) -> list[list[int]]:
    return [kept.pairs.between(user, user + 1)[1].tolist() for user in range(USERS)]


@pytest.mark.parametrize(("chunk", "block"), [(1024, 256), (16, 256), (16, 3), (1024, 1)])
def test_each_user_keeps_the_best_remaining_items(
    monkeypatch: pytest.MonkeyPatch, chunk: int, block: int
) -> None:
    monkeypatch.setattr(retrieval, "CHUNK_USERS", chunk)
    monkeypatch.setattr(retrieval, "BLOCK_USERS", block)
    grid, scores = made_up()
    kept = retrieve(grid, by_chunk(scores), KEEP)
    assert kept.listed
    assert of_users(kept) == by_sorting(grid, scores)
    assert kept.counts[[5, 6]].tolist() == [3, 0]
    with workers(2) as run:
        assert of_users(retrieve(grid, by_chunk(scores), KEEP, run=run)) == of_users(kept)


def test_popularity_is_the_same_for_every_user() -> None:
    grid, _ = made_up()
    popularity = -np.random.default_rng(1).permutation(ITEMS).astype(np.float32)
    expected = by_sorting(grid, np.tile(popularity, (USERS, 1)))
    assert of_users(retrieve(grid, popular(popularity), KEEP)) == expected


def test_recall_is_the_share_of_kept_list_items() -> None:
    grid, scores = made_up()
    kept = retrieve(grid, by_chunk(scores), KEEP)
    own = [[100 + item for item in items] for items in of_users(kept)]
    lost = next(item for item in range(100, 100 + ITEMS) if item not in own[1])
    lists = pa.table({"user_id": ["u00"] * 2 + ["u01"] * 4, "item_id": [*own[0][:2], *own[1][:3], lost]})
    assert recall(kept, lists) == Recall(100, 2, pytest.approx((1 + 3 / 4) / 2))
    assert recall(kept, lists.slice(0, 0)) == Recall(100, 0, None)


def test_recall_is_measured_on_users_who_have_candidates() -> None:
    grid, _ = made_up()
    rows = sampled_users(grid)
    assert rows.tolist() == [user for user in range(USERS) if user != 6]
    some = grid.of_users(np.array([0, 5, 69]))
    assert some.users.to_pylist() == ["u00", "u05", "u69"]
    assert some.counts.tolist() == grid.counts[[0, 5, 69]].tolist()
