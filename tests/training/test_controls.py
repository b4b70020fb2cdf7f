"""Views of the rows, and gates that nobody trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmlora.errors import UsageError
from mmlora.experiments.data import workspace_at
from mmlora.experiments.lab import Lab, TrainedArm
from mmlora.experiments.train_arms import placebo_mlora, placebo_moe_mlora, uniform_gate_arm
from mmlora.models.builder import assemble_model, build_model
from mmlora.models.spec import FieldShape, ModelSpec
from mmlora.training.controls import (
    OneDomain,
    ShuffledDomains,
    WithoutFields,
    random_gate,
    trainable_domains,
    uniform_gate,
)
from mmlora.training.loop import TrainingOptions
from mmlora.training.phases import Expert
from tests.offsets import assert_same_bits

FIELDS = tuple(
    FieldShape(name, "categorical", size) for name, size in (("user", 42), ("item", 32), ("domain", 5))
)
PARTS = ("train", "validation", "test")


def _spec(**changed: Any) -> ModelSpec:
    shape = {"crosses": False, "embedding_dim": 4, "hidden_units": (8,), "rank": 2, **changed}
    return ModelSpec("wdl", "moe_mlora", FIELDS, 3, **shape)


def test_shuffled_domains_keep_their_sizes_and_everything_but_what_adapts_a_row(data: Any) -> None:
    view = ShuffledDomains(data, seed=3)
    rows = np.arange(len(data.domain))
    batch, own = view.batch(rows), data.batch(rows)
    assert torch.equal(batch.categorical, own.categorical) and torch.equal(batch.label, own.label)
    assert np.array_equal(batch.domain.numpy(), view.domain)
    assert (view.domain != data.domain).mean() > 0.3
    for part in PARTS:
        rows = view.rows(part)
        assert np.array_equal(rows, data.rows(part))
        assert np.array_equal(np.bincount(view.domain[rows]), np.bincount(data.domain[rows]))
    assert np.array_equal(ShuffledDomains(data, seed=3).domain, view.domain)
    assert not np.array_equal(ShuffledDomains(data, seed=4).domain, view.domain)


def test_a_field_that_is_left_out_changes_no_score(data: Any) -> None:
    view = WithoutFields(data, FIELDS, frozenset({"domain"}))
    assert [field.name for field in view.kept] == ["user", "item"]
    rows = data.rows("test")[:50]
    assert torch.equal(view.batch(rows).categorical, data.batch(rows).categorical[:, :2])
    assert np.array_equal(view.domain, data.domain)
    changed = type(data)(**{**vars(data), "categorical": data.categorical.clone()})
    changed.categorical[:, 2] = 2
    again = WithoutFields(changed, FIELDS, frozenset({"domain"}))
    model = build_model(ModelSpec("wdl", "none", view.kept, 3, crosses=False)).eval()
    assert_same_bits(model, view.batch(rows), model(again.batch(rows)))


def test_one_domains_rows_alone(data: Any) -> None:
    views = [OneDomain(data, index) for index in range(3)]
    for part in PARTS:
        rows = [view.rows(part) for view in views]
        assert all((data.domain[own] == index).all() for index, own in enumerate(rows))
        assert np.array_equal(np.sort(np.concatenate(rows)), data.rows(part))


def test_domains_with_one_label_train_no_expert(data: Any) -> None:
    label = data.label.numpy().copy()
    label[data.domain == 1] = 0
    assert trainable_domains(data, label) == [0, 2]
    assert trainable_domains(data, data.label.numpy()) == [0, 1, 2]


def test_untrained_gates_weight_all_experts_of_every_trained_domain(data: Any) -> None:
    data.split[data.domain == 2] = 2  # the last domain has test rows only
    torch.manual_seed(0)
    model = build_model(_spec(), expert_domains=[0, 1, 1])
    experts = [
        Expert(domain, slot, model.expert_state(n))
        for n, (domain, slot) in enumerate([(0, 0), (1, 0), (1, 1)])
    ]
    batch = data.batch(np.arange(300))
    weights = {}
    for name, gate in (
        ("uniform", uniform_gate(_spec(), model.backbone_state(), experts, data)),
        ("random", random_gate(_spec(), model.backbone_state(), experts, data, seed=5)),
        ("again", random_gate(_spec(), model.backbone_state(), experts, data, seed=5)),
        ("other", random_gate(_spec(gate="both"), model.backbone_state(), experts, data, seed=6)),
    ):
        spec = _spec(gate="both") if name == "other" else _spec()
        found = assemble_model(
            spec, backbone=model.backbone_state(), experts=[(e.domain, e.state) for e in experts], gate=gate
        ).gate_weights(batch)
        weights[name] = found.detach().numpy()
    known = data.domain[:300] != 2
    assert np.allclose(weights["uniform"][known], 1 / 3)
    for found in weights.values():
        assert np.allclose(found[known].sum(1), 1) and not found[~known].any()
    assert np.array_equal(weights["random"], weights["again"])
    assert weights["random"][known].std() > 0.05
    assert len(np.unique(weights["other"][known], axis=0)) > 2  # each row its own


def test_the_uniform_arm_keeps_all_experts_despite_gate_top_k(
    data: Any, options: TrainingOptions, tmp_path: Path
) -> None:
    spec = _spec(gate_top_k=1)
    lab = Lab(workspace_at(tmp_path), data, "made", spec, replace(options, max_epochs=1))
    mixing = uniform_gate_arm(lab).mixing
    assert mixing is not None and len(mixing.experts) == 3
    weights = mixing.model.gate_weights(data.batch(np.arange(20)))
    assert torch.equal(weights, torch.full((20, 3), 1 / 3))


@pytest.mark.parametrize("arm", [placebo_mlora, placebo_moe_mlora])
def test_a_placebo_with_cross_terms_is_refused_before_training(
    data: Any, options: TrainingOptions, tmp_path: Path, arm: Callable[[Lab], TrainedArm]
) -> None:
    lab = Lab(workspace_at(tmp_path), data, "made", _spec(crosses=True), options)
    with pytest.raises(UsageError, match="set crosses = false"):
        arm(lab)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_random_gates_logits_vary_as_much_by_row_as_by_domain(data: Any) -> None:
    spec = _spec(hidden_units=(64,), gate="sample")
    model = build_model(spec, expert_domains=[0, 1, 2])
    experts = [Expert(domain, 0, model.expert_state(domain)) for domain in range(3)]
    gate = random_gate(spec, model.backbone_state(), experts, data, seed=1)
    (weight,) = (value for name, value in gate.items() if name.endswith("weight"))
    inputs = torch.randn(500, len(weight), generator=torch.Generator().manual_seed(2))
    assert (inputs @ weight).std().item() == pytest.approx(1, abs=0.3)
