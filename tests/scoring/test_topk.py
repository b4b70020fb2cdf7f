"""Top-k against a plain sort, and the cases a plain sort gets wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmlora.scoring.topk import Ranked, rank_grid, rank_listed

NONE = (torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))


def by_sorting(pairs: list[tuple[int, int, float]], top_k: int) -> list[tuple[int, int, float, int]]:
    """(user, item, score) -> the kept ones with their positions, by Python's sort."""
    out = []
    for user in sorted({user for user, _, _ in pairs}):
        mine = sorted((p for p in pairs if p[0] == user), key=lambda p: (-p[2], p[1]))
        out += [(*p, place) for place, p in enumerate(mine[: top_k or None], 1)]
    return out


def rows(ranked: Ranked) -> list[tuple[int, int, float, int]]:
    return list(zip(*(column.tolist() for column in ranked), strict=True))


@pytest.mark.parametrize("top_k", [0, 1, 3, 100])
def test_grid_and_list_rank_like_a_plain_sort(top_k: int) -> None:
    rng = np.random.default_rng(top_k)
    scores = torch.tensor(rng.integers(0, 6, (20, 15)) / 8, dtype=torch.float32)  # many ties, and zeros
    left_out = rng.random((20, 15)) < 0.4
    left_out[7] = True
    pairs = [(u, i, float(scores[u, i])) for u in range(20) for i in range(15) if not left_out[u, i]]
    user_rows, item_rows = (torch.from_numpy(side) for side in left_out.nonzero())
    kept_users, kept_items = (torch.from_numpy(side) for side in (~left_out).nonzero())

    expected = by_sorting(pairs, top_k)

    assert rows(rank_grid(scores, (user_rows, item_rows), top_k)) == expected
    assert rows(rank_listed(scores[kept_users, kept_items], kept_users, kept_items, top_k)) == expected


def test_ties_go_to_the_lower_item() -> None:
    scores = torch.tensor([[0.5, 0.7, 0.5, 0.7]])
    assert rank_grid(scores, NONE, 3).item_rows.tolist() == [1, 3, 0]


def test_the_smallest_difference_of_two_floats_decides() -> None:
    close = torch.tensor([0.3, 0.3])
    close[1] = torch.nextafter(close[1], torch.tensor(1.0))
    assert rank_grid(close.view(1, 2), NONE, 2).item_rows.tolist() == [1, 0]


@pytest.mark.parametrize("nan", [float("nan"), -float("nan")])
def test_a_nan_is_kept_where_the_audit_sees_it(nan: float) -> None:
    ranked = rank_grid(torch.tensor([[0.5, nan, 0.9]]), NONE, 1)
    assert ranked.item_rows.tolist() == [1]
    assert ranked.scores.isnan().all()


def test_a_user_who_had_everything_gets_no_row() -> None:
    everything = (torch.zeros(3, dtype=torch.int64), torch.arange(3))
    assert rows(rank_grid(torch.rand(1, 3), everything, 2)) == []
