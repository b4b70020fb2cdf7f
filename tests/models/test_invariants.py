"""What every model keeps, whatever its backbone and adaptation, with and without cross terms."""

import pytest
import torch

from mmlora.models.builder import BACKBONES, assemble_model, build_model
from tests.offsets import assert_same_bits

WITH_CROSSES = ("wdl with crosses", "fibinet with crosses")
BOTH = pytest.mark.parametrize("backbone", [*sorted(BACKBONES), *WITH_CROSSES])
ADAPTATIONS = pytest.mark.parametrize("adaptation", ["none", "mlora", "moe_mlora"])
# Only moe_mlora has a gate to choose.
MLORA = [("mlora", "domain")]
MOE_MLORA = [("moe_mlora", gate) for gate in ("domain", "sample", "both")]
# A tower over embeddings, one over products, and terms that need a whole row, under every kind of gate.
SOME = pytest.mark.parametrize("backbone", ["wdl", "fibinet", "xdeepfm", *WITH_CROSSES])
GATE_OPTIONS = pytest.mark.parametrize(
    "options",
    [
        {"gate_per_layer": True},
        {"gate_top_k": 2},
        {"gate": "sample", "gate_per_layer": True},
        {"gate": "both", "gate_top_k": 1},
        {"gate": "both", "gate_per_layer": True, "gate_top_k": 2},
    ],
    ids=["per-layer", "top-2", "sample-per-layer", "both-top-1", "both-per-layer-top-2"],
)


def start_afresh(model):
    """Put the experts to where they start."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith(("lora_b", "lora_c")):
                value.zero_()


def tolerance(backbone):
    # A matrix product's last bits depend on the shape of a batch. Of weights drawn as wide as here, AutoInt's
    # layers sum to logits of up to 20, so its rounding is larger: 1.7e-5 at most over 300 seeds.
    value = 1e-4 if backbone == "autoint" else 1e-5
    return {"rtol": value, "atol": value}


@BOTH
@ADAPTATIONS
def test_scores_are_finite_and_one_a_row(make_spec, make_batch, make_model, backbone, adaptation):
    model = make_model(make_spec(backbone=backbone, adaptation=adaptation))
    logits = model(make_batch(33))
    assert logits.shape == (33,)
    assert torch.isfinite(logits).all()
    assert logits.unique().numel() > 20


@BOTH
@ADAPTATIONS
def test_fresh_experts_give_the_backbone_exactly(make_spec, make_batch, make_model, backbone, adaptation):
    spec, batch = make_spec(backbone=backbone, adaptation=adaptation), make_batch()
    model = make_model(spec)
    start_afresh(model)
    alone = assemble_model(make_spec(backbone=backbone, adaptation="none"), backbone=model.backbone_state())
    assert_same_bits(model, batch, alone(batch))


@BOTH
@pytest.mark.parametrize("adaptation", ["mlora", "moe_mlora"])
def test_experts_change_the_rows_of_their_domains(make_spec, make_batch, make_model, backbone, adaptation):
    spec, batch = make_spec(backbone=backbone, adaptation=adaptation), make_batch()
    model = make_model(spec)
    alone = assemble_model(make_spec(backbone=backbone, adaptation="none"), backbone=model.backbone_state())
    changed = model(batch) != alone(batch)
    assert changed[(batch.domain >= 0) & (batch.domain < 3)].all()
    # Domain 3 has no expert: the backbone in mlora, a mixture of the others in moe_mlora.
    assert changed[batch.domain == 3].all() == (adaptation == "moe_mlora")


@BOTH
@pytest.mark.parametrize(("adaptation", "gate"), [*MLORA, *MOE_MLORA])
def test_an_unknown_domain_gets_the_backbone_exactly(
    make_spec, make_batch, make_model, backbone, adaptation, gate
):
    spec, batch = make_spec(backbone=backbone, adaptation=adaptation, gate=gate), make_batch()
    model = make_model(spec)
    alone = assemble_model(make_spec(backbone=backbone, adaptation="none"), backbone=model.backbone_state())
    unknown = batch.domain == -1
    assert_same_bits(model, batch, alone(batch)[unknown], unknown)


@BOTH
def test_a_domain_without_rows_at_the_gates_training_gets_the_backbone(
    make_spec, make_batch, make_model, backbone
):
    batch = make_batch()
    model = make_model(make_spec(backbone=backbone))
    model.gate.present[3] = 0.0
    alone = assemble_model(make_spec(backbone=backbone, adaptation="none"), backbone=model.backbone_state())
    absent = batch.domain == 3
    assert_same_bits(model, batch, alone(batch)[absent], absent)


@BOTH
@ADAPTATIONS
def test_a_mixed_batch_equals_its_domains_one_by_one(make_spec, make_batch, make_model, backbone, adaptation):
    model, batch = make_model(make_spec(backbone=backbone, adaptation=adaptation)), make_batch()
    mixed = model(batch)
    for domain in (-1, 0, 1, 2, 3):
        rows = torch.nonzero(batch.domain == domain).squeeze(1)
        torch.testing.assert_close(model(batch.take(rows)), mixed[rows], **tolerance(backbone))


@BOTH
@ADAPTATIONS
def test_permuting_rows_permutes_scores(make_spec, make_batch, make_model, backbone, adaptation):
    model, batch = make_model(make_spec(backbone=backbone, adaptation=adaptation)), make_batch()
    order = torch.randperm(len(batch))
    torch.testing.assert_close(model(batch.take(order)), model(batch)[order], **tolerance(backbone))


@BOTH
@pytest.mark.parametrize(("adaptation", "gate"), [("none", "domain"), *MLORA, *MOE_MLORA])
def test_parts_saved_and_assembled_again_give_the_same_scores(
    make_spec, make_batch, make_model, backbone, adaptation, gate
):
    spec, batch = make_spec(backbone=backbone, adaptation=adaptation, gate=gate), make_batch()
    model = make_model(spec)
    experts = [(domain, model.expert_state(i)) for i, domain in enumerate(model.expert_domains)]
    again = assemble_model(spec, backbone=model.backbone_state(), experts=experts, gate=model.gate_state())
    assert_same_bits(again, batch, model(batch))


@SOME
@GATE_OPTIONS
def test_every_kind_of_gate_keeps_the_invariants(make_spec, make_batch, make_model, backbone, options):
    spec, batch = make_spec(backbone=backbone, **options), make_batch()
    model = make_model(spec)
    for gate in model.gates:
        gate.present[3] = 0.0
    alone = assemble_model(make_spec(backbone=backbone, adaptation="none"), backbone=model.backbone_state())
    logits, adapted = model(batch), (batch.domain >= 0) & (batch.domain < 3)
    assert_same_bits(alone, batch, logits[~adapted], ~adapted)
    assert (logits != alone(batch))[adapted].all()

    order = torch.randperm(len(batch))
    torch.testing.assert_close(model(batch.take(order)), logits[order], **tolerance(backbone))
    for domain in (-1, 0, 1, 2, 3):
        rows = torch.nonzero(batch.domain == domain).squeeze(1)
        torch.testing.assert_close(model(batch.take(rows)), logits[rows], **tolerance(backbone))

    experts = [(domain, model.expert_state(i)) for i, domain in enumerate(model.expert_domains)]
    again = assemble_model(spec, backbone=model.backbone_state(), experts=experts, gate=model.gate_state())
    assert_same_bits(again, batch, logits)

    start_afresh(model)
    assert_same_bits(model, batch, alone(batch))


@pytest.mark.parametrize("gate", ["domain", "sample", "both"])
@pytest.mark.parametrize("per_layer", [False, True])
@pytest.mark.parametrize("top_k", [None, 2])
def test_gate_rows_sum_to_one(make_spec, make_batch, make_model, gate, per_layer, top_k):
    model = make_model(make_spec(gate=gate, gate_per_layer=per_layer, gate_top_k=top_k))
    batch = make_batch()
    logits, gates = model.forward_with_gates(batch)
    assert torch.equal(logits, model(batch))
    assert len(gates) == (3 if per_layer else 1)
    for weights in gates:
        assert weights.shape == (len(batch), 3)
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(1), (batch.domain >= 0).float())
        assert torch.equal((weights > 0).sum(1), (top_k or 3) * (batch.domain >= 0))


def test_mlora_uses_own_experts_equally(make_spec, make_batch):
    model = build_model(make_spec(adaptation="mlora", experts_per_domain=2), expert_domains=[0, 0, 2, 2])
    batch = make_batch(4, domains=(0, 1, 2, -1))
    expected = torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 0, 0], [0, 0, 0.5, 0.5], [0, 0, 0, 0]])
    assert torch.equal(model.gate_weights(batch), expected)


def test_an_untrained_gate_leans_on_own_experts_and_on_all_where_there_is_none(make_spec, make_batch):
    model = build_model(make_spec(), expert_domains=[0, 0, 1, 2])
    weights = model.gate_weights(make_batch(4, domains=(0, 1, 2, 3)))
    torch.testing.assert_close(weights[0, :2].sum(), torch.tensor(0.9))
    torch.testing.assert_close(weights[1, 2], torch.tensor(0.9))
    torch.testing.assert_close(weights[3], torch.full((4,), 0.25))


def test_a_sample_gate_differs_by_row_within_a_domain(make_spec, make_batch, make_model):
    batch = make_batch(20, domains=(1,))
    by_sample = make_model(make_spec(gate="both")).gate_weights(batch)
    by_domain = make_model(make_spec(gate="domain")).gate_weights(batch)
    assert by_sample.unique(dim=0).shape[0] > 10
    assert by_domain.unique(dim=0).shape[0] == 1
