"""Permutations stay within groups, and intervals cover both kinds of chance."""

import numpy as np
import pytest

from mmlora.metrics.bootstrap import Interval
from mmlora.metrics.importance import combined, permutation_within


def test_rows_are_permuted_among_those_of_their_group():
    draw = np.random.default_rng(0)
    group = draw.integers(0, 5, 200)
    order = permutation_within(group, draw)
    assert sorted(order) == list(range(200)) and (order != np.arange(200)).mean() > 0.8
    assert (group[order] == group).all()
    assert len(permutation_within(np.empty(0, int), draw)) == 0


def test_the_interval_is_wider_the_more_permutations_disagree():
    agreeing = combined([Interval(0.1, 0.05, 0.15, 100)] * 4)
    assert (agreeing.value, agreeing.low, agreeing.high) == pytest.approx((0.1, 0.05, 0.15))
    disagreeing = combined([Interval(x, x - 0.05, x + 0.05, 100) for x in (0.0, 0.2, 0.0, 0.2)])
    assert disagreeing.value == pytest.approx(0.1)
    assert disagreeing.low is not None and disagreeing.low < 0
    assert combined([Interval(None, None, None, 0)]).value is None
