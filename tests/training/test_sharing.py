"""Mixtures of other domains' experts for a domain without one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmlora.models.builder import assemble_mixture, assemble_model
from mmlora.models.folding import fold
from mmlora.training.observer import SilentObserver
from mmlora.training.phases import train_backbone, train_expert
from mmlora.training.sharing import MOST_EXPERTS, fit_weights, share_experts

SILENT = SilentObserver()
NEW = 2  # the domain left out of training; it has the taste of domain 0, and domain 1 the opposite


@pytest.fixture(scope="module")
def draw():
    return np.random.default_rng(5)


def clicks(draw, logits):
    return (draw.random(len(logits)) < 1 / (1 + np.exp(-logits))).astype(float)


def test_planted_weights_are_recovered_whatever_the_click_rate(draw):
    start, steps = draw.normal(size=30_000), draw.normal(size=(30_000, 4))
    planted = np.array([0.6, 0.0, 0.3, 0.0])
    labels = clicks(draw, start + steps @ planted - 2.0)
    weights = fit_weights(start, steps, labels)
    np.testing.assert_allclose(weights, planted, atol=0.06)
    assert weights.sum() <= 1 and (weights >= 0).all()


def test_a_mixture_is_no_longer_than_one_whole_expert_and_of_the_nearest(draw):
    start = draw.normal(size=4_000)
    steps = draw.normal(size=(4_000, MOST_EXPERTS + 4))
    weights = fit_weights(start, steps, clicks(draw, start + 3.0 * steps[:, -1]))
    assert weights[-1] > 0.9 and weights.sum() <= 1 + 1e-9
    assert np.count_nonzero(weights) <= MOST_EXPERTS


@pytest.fixture
def trained(make_data, make_training_spec, options):
    """A model of domains 0 and 1 with an expert each; the rows of domain 2 are those of an unknown one."""
    data = make_data(rows=12_000)
    new = data.domain == NEW
    data.categorical[:, 2] = 1  # the backbone doesn't see the domain, so that experts are needed
    data.domain = np.where(new, -1, data.domain)
    known = replace(data, split=np.where(new, 2, data.split))
    spec = make_training_spec(adaptation="mlora", dropout=0.0)
    options = replace(options, max_epochs=8)
    backbone = train_backbone(spec, known, options, SILENT).state
    experts = [
        train_expert(spec, backbone, known, domain=domain, options=options, observer=SILENT).state
        for domain in (0, 1)
    ]
    return spec, backbone, experts, data, np.flatnonzero(new)


def test_a_new_domain_gets_the_experts_of_the_akin_domain(trained):
    spec, backbone, experts, data, rows = trained
    whole = assemble_model(spec, backbone=backbone, experts=list(enumerate(experts)))
    shared = share_experts(whole, spec, backbone, experts, data, rows, confidence=0.95, seed=0)
    assert shared.kept and shared.gain[1] > 0
    assert shared.weights[0] > 0.3 and shared.weights[1] < 0.05


def test_a_domain_that_no_expert_helps_keeps_the_backbone(trained):
    spec, backbone, experts, data, rows = trained
    data.label[rows] = data.label[rows][np.random.default_rng(1).permutation(len(rows))]
    whole = assemble_model(spec, backbone=backbone, experts=list(enumerate(experts)))
    shared = share_experts(whole, spec, backbone, experts, data, rows, confidence=0.95, seed=0)
    assert not shared.kept and not shared.weights.any()
    alone = assemble_mixture(spec, backbone=backbone, experts=[]).eval()
    np.testing.assert_allclose(shared.logits, alone(data.batch(rows)).detach().numpy(), atol=1e-6)


def test_a_domain_keeps_what_its_gate_gives_it_unless_a_mixture_gains_over_that(trained):
    spec, backbone, experts, data, rows = trained
    gated = assemble_mixture(spec, backbone=backbone, experts=[(1.0, experts[0])])
    shared = share_experts(gated, spec, backbone, experts, data, rows, confidence=0.95, seed=0)
    assert not shared.kept, "though it gains over the backbone alone"


def test_an_own_expert_of_a_new_domain_is_trained_on_the_models_backbone(trained, options):
    spec, backbone, _, data, rows = trained
    own = replace(data, split=np.where(data.domain == -1, data.split, 2))
    options = replace(options, max_epochs=8, expert_confidence=0.9)
    result = train_expert(spec, backbone, own, domain=-1, options=options, observer=SILENT)
    assert result.report.helped and result.report.gain[1] > 0
    batch = data.batch(rows)
    adapted = assemble_mixture(spec, backbone=backbone, experts=[(1.0, result.state)])
    plain = assemble_model(replace(spec, adaptation="none"), backbone=backbone)
    assert (adapted(batch) - plain(batch)).abs().max() > 0.01


def test_a_mixture_folds_exactly_and_ignores_the_domains_index(trained):
    spec, backbone, experts, data, rows = trained
    model = assemble_mixture(spec, backbone=backbone, experts=[(0.7, experts[0]), (0.2, experts[1])])
    batch = data.batch(rows[:200])
    np.testing.assert_allclose(
        fold(model, -1)(batch).detach().numpy(), model(batch).detach().numpy(), atol=1e-6
    )
    whole = assemble_model(spec, backbone=backbone, experts=list(enumerate(experts)))
    assert (model(batch) - whole(batch)).abs().max() > 0.01, "the whole model has none for this domain"
