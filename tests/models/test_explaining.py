"""The parts of a logit add up to it, whatever the model."""

import pytest
import torch

from mmlora.models.builder import BACKBONES
from mmlora.models.explaining import logit_parts

WITH_CROSSES = ("wdl with crosses", "fibinet with crosses")
GATES = [
    {},
    {"gate_per_layer": True, "gate_top_k": 2},
    {"gate": "both"},
    {"gate": "sample", "gate_per_layer": True},
]


@pytest.mark.parametrize("backbone", [*sorted(BACKBONES), *WITH_CROSSES])
@pytest.mark.parametrize("options", [{"adaptation": "none"}, {"adaptation": "mlora"}, *GATES], ids=str)
def test_parts_add_up_to_the_logit(make_spec, make_batch, make_model, backbone, options):
    model = make_model(make_spec(backbone=backbone, **options))
    for domain in (-1, 0, 1, 3):
        row = make_batch(1, domains=(domain,))
        parts = logit_parts(model, row, [f"d{number}" for number in range(3)])
        assert sum(part.value for part in parts) == pytest.approx(model(row).item(), abs=1e-5)
        experts = [part for part in parts if part.kind == "expert"]
        weights = model.gate_weights(row)
        assert len(experts) == (0 if weights is None else int((weights[0] > 0).sum()))


def test_experts_that_change_nothing_have_no_part(make_spec, make_batch, make_model):
    model = make_model(make_spec(backbone="wdl with crosses"))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith(("lora_b", "lora_c")):
                value.zero_()
    parts = logit_parts(model, make_batch(1, domains=(1,)), ["a", "b", "c"])
    assert [part.value for part in parts if part.kind == "expert"] == [0, 0, 0]


def test_a_pair_of_fields_has_the_part_that_its_weights_give(make_spec, make_batch, make_model):
    model, row = make_model(make_spec(backbone="wdl with crosses", adaptation="none")), make_batch(1)
    names = model.crosses.groups()[1]
    before = {part.name: part.value for part in logit_parts(model, row, [])}
    group = next(n for n, name in enumerate(names) if " x " in name and name in before)
    with torch.no_grad():
        model.crosses.weight[model.crosses.groups()[0]["weight"] == group] *= 3
    after = {part.name: part.value for part in logit_parts(model, row, [])}
    assert after[names[group]] == pytest.approx(3 * before[names[group]])
    assert {name for name in before if before[name] != pytest.approx(after[name], abs=1e-4)} == {names[group]}
