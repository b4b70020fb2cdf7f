"""Gates: which experts a row keeps, what each gate of a tower sees, and the penalty on unequal use."""

import pytest
import torch

from mmlora.models.builder import build_model
from mmlora.models.gate import SoftmaxGate, load_balance
from tests.offsets import assert_same_bits


def made(
    *, domains: int = 2, experts: int = 4, top_k: int | None = None, by_sample: bool = False
) -> SoftmaxGate:
    return SoftmaxGate(domains, [0] * experts, input_dim=3, by_domain=True, by_sample=by_sample, top_k=top_k)


def weights_of(gate: SoftmaxGate, logits: list[float]) -> torch.Tensor:
    with torch.no_grad():
        gate.table[0] = torch.tensor(logits)
        return gate(torch.zeros(1, 3), torch.tensor([0]))[0]


def test_the_largest_logits_are_kept_and_share_by_softmax():
    weights = weights_of(made(top_k=2), [0.5, -3.0, 2.0, 1.0])
    kept = torch.softmax(torch.tensor([2.0, 1.0]), 0)
    torch.testing.assert_close(weights, torch.tensor([0.0, 0.0, kept[0], kept[1]]))


@pytest.mark.parametrize(
    ("logits", "kept"),
    [([0.0, 0.0, 0.0, 0.0], [0, 1]), ([1.0, 2.0, 1.0, 1.0], [0, 1]), ([-1.0, 3.0, 3.0, 3.0], [1, 2])],
)
def test_of_equal_logits_the_first_are_kept(logits, kept):
    assert weights_of(made(top_k=2), logits).nonzero()[:, 0].tolist() == kept


def test_keeping_all_is_the_dense_gate_bit_for_bit():
    logits = torch.randn(4).tolist()
    assert torch.equal(weights_of(made(top_k=4), logits), weights_of(made(), logits))


def test_an_expert_that_is_not_kept_learns_nothing_of_the_row():
    gate = made(top_k=2)
    with torch.no_grad():
        gate.table[0] = torch.tensor([0.5, -3.0, 2.0, 1.0])
    (gate(torch.zeros(1, 3), torch.tensor([0])) @ torch.randn(4)).sum().backward()
    assert (gate.table.grad[0] != 0).tolist() == [False, False, True, True]
    assert torch.isfinite(gate.table.grad).all()


def test_each_gate_sees_the_input_of_its_own_layer(make_spec, make_batch, make_model):
    model, batch = make_model(make_spec(gate="both", gate_per_layer=True)), make_batch(16, domains=(0, 1))
    _, before = model.forward_with_gates(batch)
    assert not any(torch.equal(before[0], other) for other in before[1:])
    with torch.no_grad():
        model.tower.layers[1].bias.add_(1.0)  # what follows the second layer changes, and nothing before it
    _, after = model.forward_with_gates(batch)
    assert [torch.equal(old, new) for old, new in zip(before, after, strict=True)] == [True, True, False]


def test_one_gate_for_all_equals_a_gate_a_layer_of_the_same_table(make_spec, make_batch, make_model):
    one, per_layer = make_model(make_spec()), make_model(make_spec(gate_per_layer=True))
    per_layer.load_backbone(one.backbone_state())
    for expert in range(3):
        per_layer.load_expert(expert, one.expert_state(expert))
    state = one.gate_state()
    per_layer.load_gate({f"{layer}.{name}": v for layer in range(3) for name, v in state.items()})
    batch = make_batch()
    assert_same_bits(per_layer, batch, one(batch))


def test_balance_is_one_at_equal_use_and_e_at_collapse():
    assert load_balance(torch.full((5, 4), 0.25)).item() == pytest.approx(1.0)
    assert load_balance(torch.eye(4).repeat(3, 1)).item() == pytest.approx(
        1.0
    )  # one expert a row, all in turn
    assert load_balance(torch.eye(4)[[2] * 6]).item() == pytest.approx(4.0)
    weights = torch.softmax(torch.randn(9, 4), 1)
    importance = weights.sum(0)
    variation = (importance.var(correction=0) / importance.mean() ** 2).item()
    assert load_balance(weights).item() == pytest.approx(1.0 + variation, rel=1e-5)


def test_rows_without_weights_count_for_nothing():
    weights = torch.softmax(torch.randn(5, 3), 1)
    torch.testing.assert_close(load_balance(torch.cat([weights, torch.zeros(4, 3)])), load_balance(weights))
    assert load_balance(torch.zeros(4, 3)).item() == 0.0


@pytest.mark.parametrize("per_layer", [False, True])
@pytest.mark.parametrize("top_k", [None, 2])
@pytest.mark.parametrize("gate", ["domain", "sample"])
def test_balance_draws_a_collapsed_gate_to_equal_use(make_spec, make_batch, gate, per_layer, top_k):
    model = build_model(
        make_spec(gate=gate, gate_per_layer=per_layer, gate_top_k=top_k), expert_domains=[0, 1, 2]
    )
    batch = make_batch(64, domains=(0, 1, 2, 3))
    with torch.no_grad():
        for one in model.gates:
            logits = one.bias if one.table is None else one.table
            logits.copy_(torch.tensor([4.0, 0.0, -0.5]).expand_as(logits))
    optimizer = torch.optim.Adam(model.gate_parameters(), lr=0.1)

    def penalty():
        return sum(load_balance(weights) for weights in model.forward_with_gates(batch)[1]) / len(model.gates)

    before = penalty().item()
    assert before > 2.5
    for _ in range(150):
        optimizer.zero_grad()
        loss = penalty()
        loss.backward()
        optimizer.step()
    # Of two kept experts out of three, equal use of those two is what gradients reach: 3 * 2 * (1/2)^2.
    assert penalty().item() < (1.05 if top_k is None else 1.55)
