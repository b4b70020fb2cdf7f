"""A model folded for a domain scores as the whole one does, and leaves it alone."""

from itertools import product

import pytest
import torch

from mmlora.models.builder import BACKBONES, assemble_model
from mmlora.models.folding import fold
from tests.offsets import assert_same_bits

WITH_CROSSES = ("wdl with crosses", "fibinet with crosses")
DOMAINS = (-1, 0, 1, 2, 3)
ALL_BACKBONES = pytest.mark.parametrize("backbone", [*sorted(BACKBONES), *WITH_CROSSES])


def batches(make_batch):
    return {domain: make_batch(50, domains=(domain,)) for domain in DOMAINS}


@ALL_BACKBONES
@pytest.mark.parametrize("adaptation", ["none", "mlora", "moe_mlora"])
@pytest.mark.parametrize("expert_domains", [(0, 1, 2), (1,), (2, 0, 0, 2, 1)])
def test_a_folded_model_has_no_experts_and_scores_the_same(
    make_spec, make_batch, make_model, backbone, adaptation, expert_domains
):
    model = make_model(make_spec(backbone=backbone, adaptation=adaptation), expert_domains)
    for domain, batch in batches(make_batch).items():
        folded = fold(model, domain)
        assert folded.gate is None
        assert sum(value.numel() for value in folded.expert_parameters()) == 0
        torch.testing.assert_close(folded(batch), model(batch), rtol=1e-5, atol=1e-5)


@ALL_BACKBONES
@pytest.mark.parametrize(
    "options", [{"gate_per_layer": True}, {"gate_top_k": 2}, {"gate_per_layer": True, "gate_top_k": 1}]
)
def test_every_gate_of_the_domain_alone_folds(make_spec, make_batch, make_model, backbone, options):
    model = make_model(make_spec(backbone=backbone, rank=0.3, **options))
    for domain, batch in batches(make_batch).items():
        folded = fold(model, domain)
        assert folded.gate is None
        torch.testing.assert_close(folded(batch), model(batch), rtol=1e-5, atol=1e-5)


@ALL_BACKBONES
@pytest.mark.parametrize(
    ("adaptation", "gate", "per_layer"),
    [("mlora", "domain", False), *product(["moe_mlora"], ["domain", "sample", "both"], [False, True])],
)
def test_a_domain_absent_at_training_folds_to_the_backbone_exactly(
    make_spec, make_batch, make_model, backbone, adaptation, gate, per_layer
):
    spec = make_spec(backbone=backbone, adaptation=adaptation, gate=gate, gate_per_layer=per_layer)
    model = make_model(spec)
    if adaptation == "moe_mlora":
        for one in model.gates:
            one.present[3] = 0.0  # no rows when the gate was trained
    alone = assemble_model(make_spec(backbone=backbone, adaptation="none"), backbone=model.backbone_state())
    for domain in (-1, 3):
        folded, batch = fold(model, domain), make_batch(40, domains=(domain,))
        assert folded.gate is None
        assert_same_bits(folded, batch, alone(batch))


@ALL_BACKBONES
@pytest.mark.parametrize("gate", ["sample", "both"])
@pytest.mark.parametrize("per_layer", [False, True])
def test_a_gate_that_sees_the_sample_keeps_its_experts(
    make_spec, make_batch, make_model, backbone, gate, per_layer
):
    model = make_model(make_spec(backbone=backbone, gate=gate, gate_per_layer=per_layer))
    for domain, batch in batches(make_batch).items():
        folded = fold(model, domain)
        assert (folded.gate is None) == (domain == -1)
        torch.testing.assert_close(folded(batch), model(batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("domain", DOMAINS)
def test_folding_leaves_the_given_model_as_it_was(make_spec, make_batch, make_model, domain):
    model, batch = make_model(make_spec()).train(), make_batch()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    folded = fold(model, domain)
    # Moving a model or casting it puts new tensors into its parameters.
    folded.double()
    for value in folded.parameters():
        value.zero_()

    assert model.training
    assert model.expert_domains == (0, 1, 2)
    assert all(value.requires_grad for value in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.isfinite(model.eval()(batch)).all()


def test_a_folded_model_shares_the_embedding_table(make_spec, make_model):
    model = make_model(make_spec())
    assert fold(model, 1).embedding.table.data_ptr() == model.embedding.table.data_ptr()
