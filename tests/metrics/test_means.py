"""macro auc and gauc, by hand and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mmlora.errors import DataError
from mmlora.metrics import UserAuc, auc, domain_metrics, gauc, macro_auc, wauc

# Domain 0: pairs (.6 over .2, .6 over .6): 1.5 of 2. Domain 1: 1 of 1. Domain 2: no negative.
LABEL = np.array([0, 1, 0, 0, 1, 1])
SCORE = np.array([0.2, 0.6, 0.6, 0.1, 0.9, 0.5])
DOMAIN = np.array([0, 0, 0, 1, 1, 2])


def test_macro_auc_counts_domains_and_wauc_their_rows():
    assert macro_auc(LABEL, SCORE, DOMAIN) == pytest.approx((0.75 + 1.0) / 2)
    assert wauc(LABEL, SCORE, DOMAIN) == pytest.approx((3 * 0.75 + 2 * 1.0) / 5)
    result = domain_metrics(LABEL, SCORE, DOMAIN)
    assert result.macro_auc == macro_auc(LABEL, SCORE, DOMAIN)
    assert result.wauc == wauc(LABEL, SCORE, DOMAIN)
    assert result.without_auc == (2,)


def test_gauc_weights_users_by_rows_and_counts_left_out_users():
    users = np.array(["ann", "ann", "ann", "bob", "bob", "cid"])
    assert gauc(LABEL, SCORE, users) == UserAuc(pytest.approx((3 * 0.75 + 2 * 1.0) / 5), 3, 1)
    assert gauc(np.ones(3), SCORE[:3], users[:3]) == UserAuc(None, 1, 1)
    assert gauc(np.zeros(0), np.zeros(0), np.zeros(0, int)) == UserAuc(None, 0, 0)


def test_a_users_rows_are_ranked_together_when_pooled_and_separately_by_domain():
    draw = np.random.default_rng(1)
    label, score = draw.integers(0, 2, 400), draw.integers(0, 30, 400) / 30
    domain, user = draw.integers(0, 3, 400), draw.integers(0, 40, 400) * 1_000_003
    result = domain_metrics(label, score, domain, user)
    sets = {-9: np.ones(400, bool), **{d: domain == d for d in range(3)}}
    for d, own in sets.items():
        found = result.pooled if d == -9 else result.by_domain[d]
        aucs, sizes, left_out = [], [], 0
        for each in np.unique(user[own]):
            rows = own & (user == each)
            if 0 < label[rows].sum() < rows.sum():
                aucs.append(roc_auc_score(label[rows], score[rows]))
                sizes.append(rows.sum())
            else:
                left_out += 1
        assert found.gauc == pytest.approx(np.average(aucs, weights=sizes))
        assert (found.users, found.users_without_auc) == (len(aucs) + left_out, left_out)
        assert left_out or d == -9  # by domain, some user has one class


def test_users_do_not_change_other_metrics():
    alone, with_users = (domain_metrics(LABEL, SCORE, DOMAIN, user) for user in (None, np.arange(6)))
    assert alone.wauc == with_users.wauc and alone.pooled.ece == pytest.approx(with_users.pooled.ece)
    assert (alone.pooled.gauc, alone.pooled.users) == (None, None)
    assert (with_users.pooled.gauc, with_users.pooled.users, with_users.pooled.users_without_auc) == (
        None,
        6,
        6,
    )


def test_auc_of_many_groups_equals_that_of_each_group():
    draw = np.random.default_rng(2)
    label, score, domain = draw.integers(0, 2, 3000), draw.integers(0, 9, 3000), draw.integers(0, 500, 3000)
    result = domain_metrics(label, score / 9, domain)
    for d, metrics in result.by_domain.items():
        assert metrics.auc == auc(label[domain == d], score[domain == d])
    assert set(result.without_auc) == {d for d, m in result.by_domain.items() if m.auc is None} != set()


def test_nan_scores_are_refused():
    with pytest.raises(DataError, match="1 of 6 are NaN"):
        auc(LABEL, np.where(SCORE == 0.9, np.nan, SCORE))
