import tracemalloc
from dataclasses import asdict

import numpy as np
import pytest

from mmlora.errors import DataError
from mmlora.metrics import DomainMetrics, domain_metrics, wauc
from mmlora.metrics.packed import pack, pack_probabilities, packed_metrics, packed_wauc


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 18])
@pytest.mark.parametrize("distinct", [1, 5, 10_000])
def test_equals_the_ranking_of_all_rows(block, distinct):
    """With few scores, ties are longer than a block and go on over many."""
    draw = np.random.default_rng(distinct)
    score = (draw.integers(0, distinct, 500) / distinct * 8 - 4).astype(np.float32)
    label, group = draw.random(500) < 0.3, draw.choice([0, 1, 4, 1000], 500)
    label[group == 4] = True  # one class: left out
    found = packed_wauc(pack(label, score, group), block=block)
    assert found == pytest.approx(wauc(label, score, group), rel=1e-14)


def test_packed_rows_sort_by_group_then_score_then_label():
    score = np.array([-np.inf, -1e30, -2.5, -1e-45, 0, 1e-45, 2.5, 1e30, np.inf], np.float32)
    label, group = np.tile([0, 1], 18), np.repeat([0, 2**31 - 1], 18)
    packed = pack(label, np.tile(np.repeat(score, 2), 2), group)
    assert (np.diff(packed.astype(object)) > 0).all()


def test_zeros_of_both_signs_tie():
    score = np.array([0.0, -0.0, -0.0, 0.0], np.float32)
    assert packed_wauc(pack(np.array([0, 1, 0, 1]), score, np.zeros(4))) == 0.5


def test_auc_is_undefined_without_both_labels_or_rows():
    assert packed_wauc(pack(np.ones(3), np.arange(3), np.array([0, 0, 1]))) is None
    assert packed_wauc(np.zeros(0, np.uint64)) is None


def test_scores_without_an_order_are_refused():
    with pytest.raises(DataError, match="1 of 2 are NaN"):
        pack(np.ones(2), np.array([0.5, np.nan]), np.zeros(2))


def streamed(label, probability, domain, user, block):
    """All metrics from packed rows, as an evaluation has them."""
    none, sets = np.zeros_like(domain), []
    for names in (none, domain):
        by_user = None if user is None else pack_probabilities(label, probability, names, user)
        sets.append(packed_metrics(pack_probabilities(label, probability, names, none), by_user, block=block))
    return DomainMetrics.of(sets[0].get(0), sets[1])


def assert_equal(found, expected):
    """Counts and AUCs to the last bit, but sums of floats to rounding."""
    assert (found.wauc, found.macro_auc) == (expected.wauc, expected.macro_auc)
    assert found.without_auc == expected.without_auc
    assert list(found.by_domain) == list(expected.by_domain)
    pairs = [(found.by_domain[d], expected.by_domain[d]) for d in expected.by_domain]
    for ours, theirs in [(found.pooled, expected.pooled), *pairs]:
        assert ours.auc == theirs.auc
        for name, value in asdict(theirs).items():
            assert getattr(ours, name) == (value if value is None else pytest.approx(value, rel=1e-12)), name


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 18])
@pytest.mark.parametrize("distinct", [1, 5, 10**15])
@pytest.mark.parametrize("users", [None, 1, 30, 10_000])
def test_all_metrics_equal_those_of_all_rows_in_memory(block, distinct, users):
    """With few probabilities or users, what belongs together is longer than a block and goes on over many."""
    draw = np.random.default_rng(distinct)
    probability = draw.integers(0, distinct + 1, 700) / distinct  # 0 and 1 among them
    label, domain = draw.random(700) < 0.3, draw.choice([-1, 0, 1, 4, 5, 1000], 700)  # 2 and 3 have no rows
    label[domain == 4], label[domain == 5] = True, False  # one class: no AUC
    user = None if users is None else draw.integers(0, users, 700) * (2**32 // 10_000)
    found = streamed(label, probability, domain, user, block)
    assert_equal(found, domain_metrics(label, probability, domain, user))


def test_all_metrics_of_probabilities_that_differ_in_the_last_bit():
    draw = np.random.default_rng(0)
    probability = 0.5 + draw.integers(0, 9, 300) * 2.0**-53
    probability[:40] = draw.choice([0.0, -0.0, 5e-324, 1.0, 1 - 2.0**-53], 40)
    label, domain, user = draw.random(300) < 0.5, draw.integers(0, 3, 300), draw.integers(0, 20, 300)
    found = streamed(label, probability, domain, user, 50)
    assert_equal(found, domain_metrics(label, probability, domain, user))


def test_no_rows_have_no_metrics():
    none = np.zeros(0, np.int64)
    for user in (None, none):
        assert streamed(none, none, none, user, 8) == domain_metrics(none, none, none)


def test_memory_does_not_grow_with_rows_or_users():
    draw, peaks = np.random.default_rng(0), []
    for rows in (40_000, 160_000):
        domain, user = draw.integers(0, 5, rows), draw.integers(0, rows, rows)
        label, probability = draw.random(rows) < 0.5, draw.random(rows)
        packed = [pack_probabilities(label, probability, domain, each) for each in (user * 0, user)]
        tracemalloc.start()
        packed_metrics(*packed, block=4096)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


@pytest.mark.parametrize("user", [-1, 2**32])
def test_too_many_users_are_refused(user):
    users = np.array([0, user])
    with pytest.raises(DataError, match="1 of 2 users are not codes"):
        pack_probabilities(np.ones(2), np.ones(2), np.zeros(2, int), users)
