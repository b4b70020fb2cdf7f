import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from mmlora.metrics import domain_metrics
from mmlora.models.builder import build_model
from mmlora.models.calibration import Calibration
from mmlora.training import rows as rows_module
from mmlora.training.evaluation import evaluate
from mmlora.training.loop import predict


def test_by_domain_and_pooled(data, make_training_spec):
    model = build_model(make_training_spec(adaptation="none"))
    rows = data.rows("test")
    logits, labels = predict(model, data, rows)
    result = evaluate(model, data, "test", Calibration(domain_shifts=(0.0, 0.0, 0.0)))
    domain = data.domain[rows]
    aucs = {d: roc_auc_score(labels[domain == d], logits[domain == d]) for d in range(3)}
    for d, expected in aucs.items():
        assert result.metrics.by_domain[d].auc == pytest.approx(expected)
    weighted = sum(aucs[d] * (domain == d).sum() for d in range(3)) / len(rows)
    assert result.wauc == pytest.approx(weighted)
    probability = 1 / (1 + np.exp(-logits.astype(float)))
    assert result.metrics.pooled.logloss == pytest.approx(log_loss(labels, probability))
    raw = json.loads(json.dumps(result.metrics.to_json()))
    assert result.split == "test" and set(raw["by_domain"]) == {"0", "1", "2"}


def test_an_empty_split_has_no_metrics(data, make_training_spec):
    data.split[data.split == 2] = 0
    model = build_model(make_training_spec(adaptation="none"))
    result = evaluate(model, data, "test", Calibration(domain_shifts=(0.0, 0.0, 0.0)))
    assert result.wauc is None
    assert result.metrics.pooled.rows == 0 and result.metrics.pooled.logloss is None


def test_with_users_there_is_a_gauc(data, make_training_spec):
    model = build_model(make_training_spec(adaptation="none"))
    calibration, rows = Calibration(domain_shifts=(0.0, 0.0, 0.0)), data.rows("test")
    user = np.arange(len(data.domain)) % 5
    result = evaluate(model, data, "test", calibration, user=user)
    logits, labels = predict(model, data, rows)
    aucs = [roc_auc_score(labels[user[rows] == u], logits[user[rows] == u]) for u in range(5)]
    sizes = np.bincount(user[rows])
    assert result.metrics.pooled.gauc == pytest.approx(np.average(aucs, weights=sizes))
    assert evaluate(model, data, "test", calibration).metrics.pooled.gauc is None


def test_rows_in_scratch_files_give_the_metrics_of_rows_in_memory(data, make_training_spec, monkeypatch):
    """Rows aren't arranged by domain, one domain has none, another one class, some are of an absent one."""
    model = build_model(make_training_spec(adaptation="none"))
    rows = data.rows("test")
    data.domain[data.domain == 2] = -1
    data.label[data.domain == 1] = 1.0
    calibration, user = Calibration(0.7, 0.1, (0.3, -0.2, 0.0)), np.arange(len(data.domain)) % 50
    logits, labels = predict(model, data, rows)
    domain = torch.from_numpy(data.domain[rows])
    probability = calibration.apply(torch.from_numpy(logits).double(), domain).numpy()
    expected = domain_metrics(labels, probability, data.domain[rows], user[rows])
    monkeypatch.setattr(rows_module, "IN_MEMORY", 100)
    found = evaluate(model, data, "test", calibration, user=user).metrics
    assert found.without_auc == (1,) and list(found.by_domain) == [-1, 0, 1]
    assert found.wauc == expected.wauc
    assert asdict(found.pooled) == pytest.approx(asdict(expected.pooled))
    for d, own in expected.by_domain.items():
        assert asdict(found.by_domain[d]) == pytest.approx(asdict(own))
