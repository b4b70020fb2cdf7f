"""The gate's phase under every option: one gate or one a layer, dense or sparse, with and without balance."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmlora.models.builder import assemble_model
from mmlora.models.gate import load_balance
from mmlora.training.epoch import train_epoch
from mmlora.training.observer import SilentObserver
from mmlora.training.phases import Expert, train_backbone, train_expert, train_gate

SILENT = SilentObserver()


@pytest.fixture
def trained(data, make_training_spec, options):
    spec = make_training_spec(rank=0.25)
    backbone = train_backbone(spec, data, options, SILENT).state
    experts = [
        Expert(d, 0, train_expert(spec, backbone, data, domain=d, options=options, observer=SILENT).state)
        for d in range(3)
    ]
    return backbone, experts


@pytest.mark.parametrize("gate", ["domain", "both"])
@pytest.mark.parametrize("per_layer", [False, True])
@pytest.mark.parametrize("top_k", [None, 2])
def test_every_kind_of_gate_is_trained_and_loaded(
    trained, data, make_training_spec, options, gate, per_layer, top_k
):
    spec = make_training_spec(rank=0.25, gate=gate, gate_per_layer=per_layer, gate_top_k=top_k)
    backbone, experts = trained
    result = train_gate(spec, backbone, experts, data, replace(options, max_epochs=2), SILENT)
    assert result.report.epochs == 2
    assert result.report.best_metric >= result.report.start_metric
    model = assemble_model(
        spec, backbone=backbone, experts=[(e.domain, e.state) for e in experts], gate=result.state
    )
    again = model.gate_state()
    assert again.keys() == result.state.keys()
    assert all(torch.equal(value, result.state[name]) for name, value in again.items())
    _, gates = model.forward_with_gates(data.batch(np.arange(50)))
    assert len(gates) == (3 if per_layer else 1)


def test_the_gates_loss_includes_the_penalty(trained, data, make_training_spec, options):
    losses = [
        train_gate(
            make_training_spec(rank=0.25, balance=balance), *trained, data, options, SILENT
        ).report.history[0]
        for balance in (0.0, 0.5)
    ]
    # The penalty is 1 at least, and 3 at most for 3 experts.
    assert 0.4 <= losses[1].train_loss - losses[0].train_loss <= 1.6


@pytest.mark.parametrize("per_layer", [False, True])
def test_balance_makes_the_gate_use_its_experts_more_equally(
    trained, data, make_training_spec, options, per_layer
):
    backbone, experts = trained
    rows, used = data.rows("train"), []
    for balance in (0.0, 1.0):
        spec = make_training_spec(rank=0.25, gate_per_layer=per_layer)
        pairs = [(expert.domain, expert.state) for expert in experts]
        model = assemble_model(spec, backbone=backbone, experts=pairs)
        optimizer = torch.optim.Adam(model.gate_parameters(), lr=0.1)
        train_epoch(model, optimizer, data, rows, options.batch_size, balance=balance)
        _, gates = model.forward_with_gates(data.batch(rows))
        used.append([load_balance(weights).item() for weights in gates])
    assert all(balanced - 1 < 0.1 * (free - 1) for free, balanced in zip(*used, strict=True))
