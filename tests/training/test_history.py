"""The weight of the item history: kept where validation rows gain by it, and gone on with."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmlora.models.spec import FieldShape
from mmlora.training.history import best_weight
from mmlora.training.observer import SilentObserver
from mmlora.training.phases import train_crosses
from tests.training.test_crosses import DOMAINS, FIELDS, ROWS, make_rows, model_of, wauc

HISTORY = (
    FieldShape("user__history", "history", 2, "user", "user__history.item"),
    FieldShape("user__history.item", "history", 2, "item"),
)
WEIGHT = "crosses.history_weight"


def with_history(strength):
    """Rows whose labels follow a product that training rows don't hold, to a degree."""
    data, draw = make_rows(), np.random.default_rng(5)
    user, item = draw.normal(size=(2, ROWS, 2))
    label = draw.random(ROWS) < 1 / (1 + np.exp(-strength * (user * item).sum(1)))
    chosen = draw.random(ROWS) < 0.8 * (strength > 0)
    labels = np.where(chosen, label, data.all.label.numpy()).astype(np.float32)
    user[data.split == 0] = 0.0
    vectors = {
        f.name: torch.from_numpy(v.astype(np.float32)) for f, v in zip(HISTORY, (user, item), strict=True)
    }
    whole = replace(data.all, vectors={**data.all.vectors, **vectors}, label=torch.from_numpy(labels))
    return replace(data, all=whole)


@pytest.fixture
def spec(make_training_spec):
    return make_training_spec(fields=(*FIELDS, *HISTORY), num_domains=DOMAINS, crosses=True)


def test_a_useful_history_is_kept_and_changes_nothing_else(spec, options):
    data = with_history(4.0)
    result = train_crosses(spec, data, options, SilentObserver())
    assert result.state[WEIGHT] > 0.2
    low, best = result.report.gain[1], result.report.best_metric
    assert low > 0 and "item history kept: wauc +" in result.report.note
    model = model_of(spec, result.state)
    with_it = wauc(model, data)
    assert wauc(model, data, "validation") == pytest.approx(best, abs=1e-9)
    model.crosses.history_weight.zero_()
    assert with_it > wauc(model, data) + 0.01
    plain = train_crosses(replace(spec, fields=FIELDS), data, options, SilentObserver())
    assert all(torch.equal(result.state[name], value) for name, value in plain.state.items())


def test_a_useless_history_is_dropped(spec, options):
    result = train_crosses(spec, with_history(0.0), options, SilentObserver())
    assert result.state[WEIGHT] == 0
    assert "item history not kept" in result.report.note
    assert result.report.best_metric == result.report.history[-1].metric


def test_on_all_rows_the_weight_is_the_one_that_was_chosen(spec, options):
    data = with_history(4.0)
    data = replace(data, split=np.zeros_like(data.split))
    result = train_crosses(spec, data, options, SilentObserver(), refit=True, history_weight=0.25)
    assert result.state[WEIGHT] == 0.25


def test_the_best_weight_has_the_least_log_loss():
    draw = np.random.default_rng(0)
    logits, products = draw.normal(size=4000), 1e-3 * draw.normal(size=4000)
    labels = (draw.random(4000) < 1 / (1 + np.exp(-logits - 800 * products))).astype(float)
    assert best_weight(logits, products, labels) == pytest.approx(800, rel=0.1)
    assert best_weight(logits, 0 * products, labels) == 0
