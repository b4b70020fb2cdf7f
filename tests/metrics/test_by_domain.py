import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from mmlora.metrics import auc, domain_metrics, logloss, wauc


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8)), min_size=2, max_size=60))
def test_auc_counts_ties_as_half(rows):
    label, score = np.array(rows).T
    value = auc(label, score / 8)
    if label.min() == label.max():
        assert value is None
        return
    positive, negative = score[label == 1], score[label == 0]
    above = (positive[:, None] > negative).mean() + 0.5 * (positive[:, None] == negative).mean()
    assert value == pytest.approx(above)
    assert value == pytest.approx(roc_auc_score(label, score))


def rows(n: int = 500) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    domain = draw.integers(-1, 3, n)
    probability = np.round(draw.random(n), 2) * 0.98 + 0.01
    return (draw.random(n) < probability).astype(np.float32), probability, domain


def test_by_domain_equals_each_domain_alone():
    label, probability, domain = rows()
    result = domain_metrics(label, probability, domain)
    assert set(result.by_domain) == {-1, 0, 1, 2}
    for d, metrics in result.by_domain.items():
        own = domain == d
        assert metrics.rows == own.sum() and metrics.positives == label[own].sum()
        assert metrics.auc == pytest.approx(roc_auc_score(label[own], probability[own]))
        assert metrics.logloss == pytest.approx(log_loss(label[own], probability[own]))
        assert metrics.calibration == pytest.approx(probability[own].sum() / label[own].sum())
        ctr = np.full(own.sum(), label[own].mean())
        assert metrics.ne == pytest.approx(metrics.logloss / log_loss(label[own], ctr))
    assert result.pooled.auc == pytest.approx(roc_auc_score(label, probability))
    expected = np.average(
        [m.auc for m in result.by_domain.values()], weights=[m.rows for m in result.by_domain.values()]
    )
    assert result.wauc == pytest.approx(expected)
    assert wauc(label, probability, domain) == pytest.approx(expected)


def test_a_domain_with_one_label_is_left_out_and_named():
    label, probability, domain = rows()
    label[domain == 1] = 0
    result = domain_metrics(label, probability, domain)
    alone = result.by_domain[1]
    assert (alone.auc, alone.ne, alone.calibration) == (None, None, None)
    assert alone.logloss is not None
    assert result.without_auc == (1,)
    kept = domain != 1
    assert result.wauc == pytest.approx(wauc(label[kept], probability[kept], domain[kept]))


def test_no_rows_have_no_figures():
    empty = np.zeros(0)
    result = domain_metrics(empty, empty, np.zeros(0, int))
    assert (result.wauc, result.pooled.auc, result.pooled.logloss, result.by_domain) == (None, None, None, {})
    assert auc(empty, empty) is None and logloss(empty, empty) is None
    assert wauc(np.ones(3), np.ones(3), np.zeros(3)) is None


def test_a_certain_wrong_score_has_a_finite_logloss():
    assert np.isfinite(logloss(np.array([1, 0]), np.array([0.0, 1.0])))
