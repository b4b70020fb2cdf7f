"""Expected calibration error: by hand, and against a slow transcription."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from mmlora.metrics import ECE_BINS, domain_metrics, ece


def test_equals_a_calculation_by_hand():
    probability = np.array([0.1, 0.3, 0.6, 0.8])
    label = np.array([0, 1, 1, 1])
    # Two bins of two rows: |1/2 - 0.2| and |1 - 0.7|, half of the rows each.
    assert ece(label, probability, bins=2) == pytest.approx(0.3)
    # One bin: |3/4 - 0.45|. As many bins as rows: the mean of |label - probability|.
    assert ece(label, probability, bins=1) == pytest.approx(0.3)
    assert ece(label, probability, bins=4) == pytest.approx((0.1 + 0.7 + 0.4 + 0.2) / 4)


def test_bins_have_equal_rows_like_scikit_learns():
    draw = np.random.default_rng(0)
    probability = draw.random(2000) ** 3
    label = draw.random(2000) < probability**0.8
    observed, predicted = calibration_curve(label, probability, n_bins=ECE_BINS, strategy="quantile")
    assert ece(label, probability) == pytest.approx(np.abs(observed - predicted).mean(), abs=2e-4)


def test_equal_probabilities_share_a_bin():
    probability, label = np.repeat([0.2, 0.7], [6, 2]), np.array([0, 0, 0, 1, 1, 1, 0, 1])
    # All six rows of 0.2 lie in the bin of their middle, the first of two.
    expected = (6 * abs(0.5 - 0.2) + 2 * abs(0.5 - 0.7)) / 8
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(8)
        assert ece(label[order], probability[order], bins=2) == pytest.approx(expected)


def test_the_ece_of_a_constant_prediction_is_its_bias():
    label = np.random.default_rng(3).integers(0, 2, 77)
    assert ece(label, np.full(77, 0.9)) == pytest.approx(0.9 - label.mean())
    assert ece(np.zeros(0), np.zeros(0)) is None


def test_by_domain_equals_each_domain_alone():
    draw = np.random.default_rng(4)
    probability, domain = np.round(draw.random(600), 2), draw.integers(-1, 4, 600)
    label = draw.random(600) < 0.4
    domain[:3] = 99  # fewer rows than bins
    result = domain_metrics(label, probability, domain)
    assert result.pooled.ece == pytest.approx(ece(label, probability))
    for d, metrics in result.by_domain.items():
        assert metrics.ece == pytest.approx(ece(label[domain == d], probability[domain == d]))
    assert result.to_json()["ece_bins"] == ECE_BINS
