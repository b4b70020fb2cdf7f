"""Sums add up across batches, and give the very numbers of all rows at once."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmlora.errors import DataError, UsageError
from mmlora.metrics import Sums, domain_metrics

ROW = st.tuples(st.integers(0, 1), st.integers(0, 6), st.integers(-1, 3), st.sampled_from("abc"))


def as_columns(rows):
    label, score, domain, user = (np.array(column) for column in zip(*rows, strict=True))
    return label, score / 6, domain, user


@settings(max_examples=80, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=60), st.randoms(use_true_random=False), st.integers(1, 5))
def test_batches_in_any_order_sum_exactly_to_the_whole(rows, random, parts):
    whole = domain_metrics(*as_columns(rows))
    shuffled = random.sample(rows, len(rows))
    batches = [shuffled[i::parts] for i in range(parts) if shuffled[i::parts]]
    sums = [Sums.of(*as_columns(batch)) for batch in batches]
    assert Sums.merge(sums).metrics() == whole
    one_by_one = Sums.merge([])
    for each in sums:
        one_by_one += each
    assert one_by_one.metrics() == whole


def test_batches_of_continuous_scores_sum_exactly_to_the_whole():
    draw = np.random.default_rng(0)
    label, probability, domain = draw.integers(0, 2, 5000), draw.random(5000), draw.integers(0, 7, 5000)
    for user in (None, draw.integers(0, 90, 5000)):
        cuts = np.split(draw.permutation(5000), [10, 700, 3000])
        parts = [
            Sums.of(label[c], probability[c], domain[c], None if user is None else user[c]) for c in cuts
        ]
        assert Sums.merge(parts).metrics() == domain_metrics(label, probability, domain, user)


def test_equal_rows_are_stored_once():
    ones, zeros = np.ones(1000, int), np.zeros(1000, int)
    sums = Sums.of(ones, ones * 0.25, zeros) + Sums.of(zeros, ones * 0.25, zeros)
    assert (sums.rows.tolist(), sums.positives.tolist()) == ([2000], [1000])


def test_no_rows_give_no_metrics():
    result = Sums.merge([]).metrics()
    assert (result.wauc, result.macro_auc, result.pooled.rows, result.pooled.ece) == (None, None, 0, None)


def test_undefined_metrics_are_null_in_json():
    result = domain_metrics(np.zeros(3), np.full(3, 0.5), np.array([4, 4, -1]), np.arange(3))
    raw = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert raw["wauc"] is raw["macro_auc"] is raw["pooled"]["auc"] is raw["by_domain"]["-1"]["gauc"] is None
    assert raw["without_auc"] == [-1, 4]


def test_users_are_given_for_all_parts_or_none():
    one = np.ones(1)
    with pytest.raises(UsageError, match="1 of 2 sums have users"):
        Sums.of(one, one, one) + Sums.of(one, one, one, one)


@pytest.mark.parametrize(
    ("label", "probability", "message"),
    [
        ([0, 2], [0.1, 0.2], "1 of 2 labels are neither 0 nor 1"),
        ([0, 1], [np.nan, 1.5], "2 of 2 probabilities are NaN or outside"),
        ([0, 1], [0.1], "must have the same length"),
    ],
)
def test_invalid_predictions_are_refused(label, probability, message):
    with pytest.raises(DataError, match=message):
        Sums.of(np.array(label), np.array(probability), np.zeros(2, int))
