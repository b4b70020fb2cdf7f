"""Lists of two nights beside each other."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from mmlora.checks.lists import compare_lists, spread


def lists(users: int = 100, *, items: int = 50, seed: int = 0, odds: float = 1.0, shift: int = 0) -> pa.Table:
    """Return each user's first 20 of the items by a score that all users' lists share in part."""
    rng = np.random.default_rng(seed)
    base, noise = rng.normal(size=items), np.random.default_rng(seed + 1).normal(size=(users, items))
    score = 1 / (1 + np.exp(-(base + 0.3 * noise) * odds + 2))
    order = np.argsort(-score, axis=1)[:, :20]
    return pa.table(
        {
            "user_id": np.repeat(np.arange(users), 20),
            "item_id": (order + shift).ravel(),
            "score": np.take_along_axis(score, order, 1).ravel().astype(np.float32),
            "position": np.tile(np.arange(1, 21), users),
        }
    )


def test_equal_lists_do_not_differ() -> None:
    change = compare_lists(lists(), lists())
    assert (change.users, change.shift) == (100, 0)
    assert change.overlap == pytest.approx(1)


def test_other_items_and_other_scores_are_seen() -> None:
    others = compare_lists(lists(), lists(shift=1000))
    assert others.overlap is not None and others.overlap < 0.1
    higher = compare_lists(lists(), lists(odds=3))
    assert higher.shift is not None and higher.shift > 0.5


def test_users_of_one_night_only_do_not_count() -> None:
    after = lists(40)
    change = compare_lists(lists(100), after)
    assert change.users == 40
    none = compare_lists(lists(3), lists(3).set_column(0, "user_id", pa.array(np.arange(60) + 900)))
    assert (none.users, none.shift, none.overlap) == (0, None, None)


def test_two_users_prove_nothing() -> None:
    change = compare_lists(lists(2), lists(2, shift=1000, odds=3))
    assert not change.shift
    assert change.overlap is not None and change.overlap > 0.5


def test_scores_that_hardly_differ_have_no_spread() -> None:
    assert (spread(lists()) or 0) > 0.1
    flat = pa.array(np.full(2000, 0.2, np.float32) + np.linspace(0, 1e-4, 2000, dtype=np.float32))
    assert (spread(lists().set_column(2, "score", flat)) or 0) < 0.01
    assert spread(lists().slice(0, 1)) is None
