import json

import numpy as np
import pytest
import torch

from mmlora.models.builder import build_model
from mmlora.models.calibration import Calibration
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
