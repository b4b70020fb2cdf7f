"""Reliability bins by hand, and the coverage of their intervals."""

import numpy as np
import pytest

from mmlora.metrics.reliability import reliability


def test_bins_hold_rows_of_similar_scores():
    probability = np.array([0.1, 0.1, 0.3, 0.9, 0.8, 0.7])
    low, high = reliability(np.array([0, 1, 0, 1, 1, 0]), probability, bins=2)
    assert (low.rows, low.score, low.rate) == (3, pytest.approx(0.5 / 3), pytest.approx(1 / 3))
    assert (high.rows, high.score, high.rate) == (3, pytest.approx(0.8), pytest.approx(2 / 3))
    assert low.low < low.rate < low.high and low.low >= 0 and high.high <= 1


def test_equal_scores_share_a_bin_and_no_rows_have_none():
    (only,) = reliability(np.array([0, 1, 1, 1]), np.full(4, 0.5))
    assert (only.rows, only.rate) == (4, 0.75)
    assert reliability(np.empty(0), np.empty(0)) == ()


def test_intervals_contain_the_true_rate_about_as_often_as_they_say():
    draw = np.random.default_rng(0)
    found = [reliability((draw.random(80) < 0.1).astype(int), np.full(80, 0.1))[0] for _ in range(500)]
    assert 0.91 < np.mean([each.low <= 0.1 <= each.high for each in found]) <= 0.99


def test_few_rows_make_few_bins():
    draw = np.random.default_rng(1)
    for rows, expected in ((30, 1), (120, 2), (5000, 10)):
        assert len(reliability(draw.integers(0, 2, rows), draw.random(rows))) == expected
