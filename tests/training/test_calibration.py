import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmlora.data.negatives import true_probability
from mmlora.models.builder import build_model
from mmlora.models.calibration import Calibration, recalibrate
from mmlora.training.calibration import fit_calibration
from mmlora.training.evaluation import evaluate


@pytest.fixture
def model(data, make_training_spec):
    """A model whose logits are item effects, twice too steep, 1 too high, 0.7 more so in domain 1."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = build_model(make_training_spec(adaptation="none")).eval()
    draw = np.random.default_rng(3)
    effect = draw.normal(size=32).astype(np.float32)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.zero_()
        made.embedding.table[42:74, -1] = torch.from_numpy(2 * effect + 1)
    truth = effect[data.categorical[:, 1].numpy()] - 0.7 * (data.domain == 1)
    data.label = torch.from_numpy((draw.random(len(truth)) < 1 / (1 + np.exp(-truth))).astype(np.float32))
    return made


def test_recovers_scale_and_shifts(model, data):
    fitted = fit_calibration(model, data)
    assert fitted.scale == pytest.approx(0.5, abs=0.12)
    # sigmoid(x / 2 - 0.5) in domains 0 and 2; 0.7 lower in domain 1, less what the prior holds back.
    shifts = fitted.domain_shifts
    assert shifts[0] == pytest.approx(shifts[2], abs=0.25)
    assert shifts[0] - shifts[1] == pytest.approx(0.6, abs=0.25)
    assert fitted.note == ""


def test_calibrates_every_domain_and_leaves_the_order(model, data):
    before = evaluate(model, data, "test", Calibration(domain_shifts=(0.0,) * 3)).metrics
    after = evaluate(model, data, "test", fit_calibration(model, data)).metrics
    assert after.pooled.logloss < before.pooled.logloss
    assert after.wauc == before.wauc
    for domain in range(3):
        assert after.by_domain[domain].calibration == pytest.approx(1.0, abs=0.2)


def test_a_domain_of_few_rows_stays_near_the_common_shift(model, data):
    few = np.flatnonzero((data.domain == 2) & (data.split == 1))
    data.split[few[3:]] = 2
    data.label[few[:3]] = 1.0
    fitted = fit_calibration(model, data)
    assert 0 < fitted.domain_shifts[2] - fitted.shift < 0.1


def test_rows_of_a_domain_absent_at_training_count_for_the_common_shift_only(model, data):
    data.domain[(data.domain == 2) & (data.split == 1)] = -1
    fitted = fit_calibration(model, data)
    assert len(fitted.domain_shifts) == 3
    assert fitted.domain_shifts[2] == pytest.approx(fitted.shift, abs=1e-6)
    assert evaluate(model, data, "validation", fitted).metrics.by_domain[-1].rows > 0


def test_labels_of_one_class_leave_scores_unchanged_with_a_warning(model, data):
    data.label[:] = 0
    fitted = fit_calibration(model, data)
    assert (fitted.scale, fitted.shift, fitted.domain_shifts) == (1.0, 0.0, (0.0, 0.0, 0.0))
    assert "one class" in fitted.note


def test_calibration_keeps_the_order_of_an_inverted_model(model, data):
    data.label = 1 - data.label
    fitted = fit_calibration(model, data)
    assert fitted.scale == 1.0
    assert "only the shift" in fitted.note


def test_unknown_domains_get_the_common_shift():
    calibration = Calibration(2.0, 0.5, (1.0, -1.0))
    out = calibration.apply(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([-1, 0, 1]))
    torch.testing.assert_close(out, torch.sigmoid(torch.tensor([0.7, 1.4, -0.4])))


def test_round_trip_through_json():
    calibration = Calibration(0.9, -0.1, (0.2, 1 / 3), "why")
    assert Calibration.from_json(json.loads(json.dumps(calibration.to_json()))) == calibration


def made_rows(rows=4000):
    """Logits, labels that follow ``sigmoid(0.8 x - 1 + own)`` with own = 0.9 in domain 2, and domains."""
    draw = np.random.default_rng(5)
    logit, domain = draw.normal(size=rows) * 2, draw.integers(0, 3, rows)
    truth = 0.8 * logit - 1 + 0.9 * (domain == 2)
    return logit, (draw.random(rows) < 1 / (1 + np.exp(-truth))).astype(int), domain


BASE = Calibration(1.5, 0.5, (0.5, 0.7, 0.4))


def test_a_calibration_is_corrected_towards_newer_rows():
    fitted = recalibrate(BASE, *made_rows())
    assert fitted.scale == pytest.approx(0.8, abs=0.08)
    assert fitted.domain_shifts == pytest.approx((-1, -1, -0.1), abs=0.2)


def test_a_domain_without_newer_rows_gets_the_common_correction():
    logit, label, domain = made_rows()
    there = domain < 2
    fitted = recalibrate(BASE, logit[there], label[there], domain[there])
    step = fitted.scale / BASE.scale
    assert fitted.domain_shifts[2] == pytest.approx(step * (0.4 - 0.5) + fitted.shift, abs=1e-6)


def test_one_domain_alone_is_corrected_by_its_own_rows():
    logit, label, domain = made_rows()
    fitted = recalibrate(Calibration(0.8, -1.0, (-1.0, -1.0, -1.0)), logit, label, domain, only=2)
    assert (fitted.scale, fitted.shift, fitted.domain_shifts[:2]) == (0.8, -1.0, (-1.0, -1.0))
    assert fitted.domain_shifts[2] == pytest.approx(-0.1, abs=0.2)
    few = (domain == 2) & (np.arange(len(domain)) < 60)
    own = recalibrate(Calibration(0.8, -1.0, (-1.0,) * 3), logit[few], label[few], domain[few], only=2)
    assert -1 < own.domain_shifts[2] < -0.7, "few rows move it little"


def test_probabilities_lead_back_to_the_logits():
    logit, _, _ = made_rows(100)
    for place in (-1, 1):
        given = BASE.apply(torch.from_numpy(logit).float(), torch.full((100,), place)).numpy()
        assert BASE.logits(given, place) == pytest.approx(logit, abs=1e-3)
    assert np.isfinite(BASE.logits(np.array([0.0, 1.0]), 0)).all()


def test_odds_are_divided_by_the_negatives_that_a_row_stands_for():
    corrected = replace(BASE, negatives=10.0)
    logit, domain = torch.tensor([0.3, -1.0]), torch.tensor([0, -1])
    odds, true = (p / (1 - p) for p in (each.apply(logit, domain) for each in (BASE, corrected)))
    assert true.numpy() == pytest.approx(odds.numpy() / 10, rel=1e-5)
    # He et al., 2014: p / (p + (1 - p) / w), w being the share of negatives that is kept.
    p = BASE.apply(logit, domain).numpy()
    assert corrected.apply(logit, domain).numpy() == pytest.approx(true_probability(p, 0.1), rel=1e-5)
    assert corrected.line(0) == pytest.approx((1.5, 0.5 - np.log(10)))
    assert corrected.logits(corrected.apply(logit, domain).numpy()[:1], 0) == pytest.approx([0.3], abs=1e-5)
    assert corrected.of_sample == BASE and Calibration.from_json(corrected.to_json()) == corrected
    assert "negatives" not in BASE.to_json(), "parts of before are the same"


def test_refitting_keeps_the_correction_for_negatives():
    rows = made_rows()
    plain, corrected = (recalibrate(base, *rows) for base in (BASE, replace(BASE, negatives=4.0)))
    assert corrected == replace(plain, negatives=4.0)
