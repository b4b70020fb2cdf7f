"""Bootstrap intervals: of known width, paired, reproducible, and honest about what a draw can't define."""

import json

import numpy as np
import pytest

from mmlora.errors import DataError, UsageError
from mmlora.metrics import auc, compare, domain_metrics, logloss


def made_up(n=4000, seed=0):
    draw = np.random.default_rng(seed)
    domain = draw.integers(-1, 3, n)
    logit = draw.normal(0, 1.5, n)
    label = (draw.random(n) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    return label, 1 / (1 + np.exp(-logit)), domain


def noisy(probability, seed=7):
    noise = np.random.default_rng(seed).normal(0, 0.35, len(probability))
    return 1 / (1 + np.exp(-np.log(probability / (1 - probability)) - noise))


def alone(label, probability, domain, **options):
    """One model against a constant, whose AUC is a half and whose log loss is the logarithm of 2."""
    return compare(label, probability, np.full(len(label), 0.5), domain, **options)


def test_values_are_computed_on_the_original_rows():
    label, probability, domain = made_up()
    result = alone(label, probability, domain, draws=20)
    plain = domain_metrics(label, probability, domain)
    assert result.wauc.value == pytest.approx(plain.wauc - 0.5)
    assert result.macro_auc.value == pytest.approx(plain.macro_auc - 0.5)
    assert result.auc.value == pytest.approx(plain.pooled.auc - 0.5)
    assert result.logloss.value == pytest.approx(plain.pooled.logloss - np.log(2))
    assert {d: each.value for d, each in result.by_domain.items()} == {
        d: metrics.auc - 0.5 for d, metrics in plain.by_domain.items()
    }
    for each in (result.wauc, result.auc, result.logloss, *result.by_domain.values()):
        assert each.low < each.value < each.high and each.draws == 20


def test_a_draw_weights_rows_by_their_repetitions():
    """The bounds are those of a slow loop that repeats rows, on the same draws."""
    label, probability, domain = made_up(300)
    order = np.argsort(domain, kind="stable")
    label, probability, domain = label[order], np.round(probability[order], 1), domain[order]
    first = np.searchsorted(domain, domain)
    size = np.searchsorted(domain, domain, side="right") - first
    random, areas, losses = np.random.default_rng(5), [], []
    for _ in range(30):
        rows = first + (random.random(300) * size).astype(int)
        assert (domain[rows] == domain).all()
        areas.append(auc(label[rows], probability[rows]) - 0.5)
        losses.append(logloss(label[rows], probability[rows]) - np.log(2))
    result = alone(label, probability, domain, draws=30, level=0.8, seed=5)
    assert (result.auc.low, result.auc.high) == pytest.approx(tuple(np.quantile(areas, [0.1, 0.9])))
    assert (result.logloss.low, result.logloss.high) == pytest.approx(tuple(np.quantile(losses, [0.1, 0.9])))


def test_the_width_agrees_with_theory():
    label, probability, _ = made_up(6000)
    result = alone(label, probability, np.zeros(6000, int), draws=300)
    positive, negative = probability[label == 1], probability[label == 0]
    # DeLong's variance of an AUC, from the share of the other class that each row beats.
    beats = np.searchsorted(np.sort(negative), positive) / len(negative)
    beaten = 1 - np.searchsorted(np.sort(positive), negative) / len(positive)
    error = np.sqrt(beats.var() / len(positive) + beaten.var() / len(negative))
    assert result.auc.high - result.auc.low == pytest.approx(2 * 1.96 * error, rel=0.2)


def test_pairing_narrows_the_difference():
    label, probability, domain = made_up()
    close = noisy(probability)
    pair = compare(label, probability, close, domain, draws=100)
    each = [alone(label, p, domain, draws=100).wauc for p in (probability, close)]
    assert pair.wauc.value == pytest.approx(each[0].value - each[1].value)
    assert pair.wauc.low > 0  # the better one is seen to be better ...
    assert each[0].low < each[1].high  # ... where the intervals of each alone overlap
    turned = compare(label, close, probability, domain, draws=100)
    assert (turned.wauc.low, turned.wauc.high) == pytest.approx((-pair.wauc.high, -pair.wauc.low))


def test_a_model_compared_with_itself_has_no_difference():
    label, probability, domain = made_up(500)
    result = compare(label, probability, probability, domain, draws=10)
    assert (result.wauc.value, result.wauc.low, result.wauc.high) == (0, 0, 0)


def test_the_seed_determines_the_draws():
    label, probability, domain = made_up(500)
    first = alone(label, probability, domain, draws=10, seed=3)
    assert alone(label, probability, domain, draws=10, seed=3) == first
    assert alone(label, probability, domain, draws=10, seed=4) != first


def test_a_domain_with_one_label_has_no_interval():
    label, probability, domain = made_up(500)
    label[domain == 1] = 0
    result = alone(label, probability, domain, draws=10)
    assert vars(result.by_domain[1]) == {"value": None, "low": None, "high": None, "draws": 0}
    assert result.wauc.value == pytest.approx(domain_metrics(label, probability, domain).wauc - 0.5)
    raw = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert raw["by_domain"]["1"]["low"] is None and raw["level"] == 0.95


def test_draws_without_a_label_are_counted():
    label, probability, domain = made_up(500)
    label[domain == 2] = 0
    label[np.flatnonzero(domain == 2)[0]] = 1  # one click, in a draw with chance 1 - 1/e
    result = alone(label, probability, domain, draws=200)
    assert result.by_domain[2].draws == pytest.approx(200 * (1 - np.exp(-1)), abs=25)
    assert result.wauc.draws == 200


def test_no_rows_give_no_intervals():
    empty = np.zeros(0)
    result = alone(empty, empty, np.zeros(0, int), draws=3)
    assert (result.wauc.value, result.logloss.low, result.by_domain) == (None, None, {})


def test_wrong_use_is_refused():
    label, probability, domain = made_up(10)
    with pytest.raises(UsageError, match="draws=1"):
        alone(label, probability, domain, draws=1)
    with pytest.raises(UsageError, match=r"level=95"):
        alone(label, probability, domain, level=95)
    with pytest.raises(DataError, match="must have the same length"):
        compare(label, probability, probability[:9], domain)
