"""Backbone, experts and gate are parts: each is stored by itself, and fits where it was made for."""

import pytest
import torch

from mmlora.errors import ContractError
from mmlora.models.builder import assemble_model, build_model


@pytest.mark.parametrize("per_layer", [False, True])
def test_every_parameter_belongs_to_exactly_one_part(make_spec, per_layer):
    model = build_model(make_spec(gate="both", gate_per_layer=per_layer), expert_domains=[0, 1])
    parts = [model.backbone_parameters(), model.expert_parameters(), model.gate_parameters()]
    ids = [id(parameter) for part in parts for parameter in part]
    assert len(ids) == len(set(ids)) == len(list(model.parameters()))


def test_an_expert_trained_alone_takes_its_place_among_others(make_spec, make_batch, make_model):
    spec = make_spec(adaptation="mlora")
    alone = make_model(spec, (2,))
    together = make_model(spec, (0, 1, 2))
    together.load_backbone(alone.backbone_state())
    before = [together.expert_state(e) for e in (0, 1)]
    together.load_expert(2, alone.expert_state(0))
    batch = make_batch(16, domains=(2,))
    torch.testing.assert_close(together(batch), alone(batch), rtol=1e-5, atol=1e-5)
    for e in (0, 1):
        after = together.expert_state(e)
        assert all(torch.equal(after[name], value) for name, value in before[e].items())


def test_states_are_copies(make_spec, make_model):
    model = make_model(make_spec())
    for state in (model.backbone_state(), model.expert_state(1), model.gate_state()):
        for value in state.values():
            value.zero_()
    assert all(value.abs().sum() > 0 for value in model.parameters())


def test_a_part_of_another_shape_is_refused_and_changes_nothing(make_spec, make_model):
    model = make_model(make_spec())
    other = make_model(make_spec(hidden_units=(16, 9)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ContractError, match=r"backbone: .*tower\.layers\.1"):
        model.load_backbone(other.backbone_state())
    with pytest.raises(ContractError, match=r"expert 0: .*tower\.layers\.1"):
        model.load_expert(0, other.expert_state(0))
    with pytest.raises(ContractError, match="has 3 experts"):
        model.load_expert(3, other.expert_state(0))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("per_layer", [False, True])
def test_a_gate_of_experts_in_another_order_is_refused(make_spec, make_model, per_layer):
    spec = make_spec(gate_per_layer=per_layer)
    gate = make_model(spec, (0, 1, 2)).gate_state()
    with pytest.raises(ContractError, match=r"\(0, 1, 2\).*\(1, 0, 2\)"):
        make_model(spec, (1, 0, 2)).load_gate(gate)


def test_a_gate_a_layer_is_stored_whole_and_is_no_gate_for_all(make_spec, make_model):
    per_layer = make_model(make_spec(gate="both", gate_per_layer=True))
    state = per_layer.gate_state()
    assert [tuple(state[f"{layer}.table"].shape) for layer in range(3)] == [(4, 3)] * 3
    assert [len(state[f"{layer}.weight"]) for layer in range(3)] == [per_layer.backbone.output_dim, 16, 8]
    with pytest.raises(ContractError, match="gate: its tensors are not this model's"):
        make_model(make_spec(gate="both")).load_gate(state)


def test_a_model_without_a_trained_gate_refuses_one(make_spec, make_model):
    gate = make_model(make_spec()).gate_state()
    model = make_model(make_spec(adaptation="mlora"))
    with pytest.raises(ContractError, match="gate"):
        assemble_model(
            make_spec(adaptation="mlora"),
            backbone=model.backbone_state(),
            experts=[(d, model.expert_state(i)) for i, d in enumerate(model.expert_domains)],
            gate=gate,
        )
