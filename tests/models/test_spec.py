import json

import pytest

from mmlora.errors import UsageError
from mmlora.models.builder import build_model
from mmlora.models.spec import FieldShape, ModelSpec


def test_round_trip_through_json(make_spec):
    spec = make_spec(gate="both", experts_per_domain=2, gate_per_layer=True, gate_top_k=2, balance=0.1)
    assert ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize("rank", [3, 0.25])
def test_a_rank_stays_a_number_or_a_share(make_spec, rank):
    again = ModelSpec.from_dict(json.loads(json.dumps(make_spec(rank=rank).to_dict())))
    assert (again.rank, type(again.rank)) == (rank, type(rank))


def test_a_stored_specification_that_lacks_a_later_option_has_its_default(make_spec):
    stored = make_spec().to_dict()
    for name in ("gate_per_layer", "gate_top_k", "balance"):
        del stored[name]
    assert ModelSpec.from_dict(stored) == make_spec()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"backbone": "wide"}, ("'wide'", "wdl", "deepfm")),
        ({"adaptation": "lora"}, ("'lora'", "none", "mlora", "moe_mlora")),
        ({"gate": "user"}, ("'user'", "domain", "sample", "both")),
        ({"rank": 9}, ("rank 9", "smallest hidden width, 8")),
        ({"rank": 0}, ("rank is 0", "whole number from 1", "share")),
        ({"rank": 1.5}, ("rank is 1.5",)),
        ({"rank": -0.25}, ("rank is -0.25",)),
        ({"rank": float("nan")}, ("rank is nan",)),
        ({"gate_top_k": 0}, ("gate_top_k is 0", "1 or more")),
        ({"balance": -0.1}, ("balance is -0.1", "0 or more")),
        ({"dropout": 1.0}, ("dropout is 1.0", "[0, 1)")),
        ({"alpha": 0.0}, ("alpha",)),
        ({"hidden_units": ()}, ("hidden_units",)),
        ({"num_domains": 0}, ("num_domains",)),
        ({"fields": ()}, ("no fields",)),
        ({"fields": (FieldShape("a", "text", 3),)}, ("'a'", "'text'", "categorical")),
        ({"fields": (FieldShape("a", "bag", 3),) * 2}, ("named twice: a",)),
        ({"fields": (FieldShape("a", "dense", 3),)}, ("'a'", "size 3")),
    ],
)
def test_says_what_came_and_what_is_valid(make_spec, change, words):
    with pytest.raises(UsageError) as caught:
        make_spec(**change)
    for word in words:
        assert word in str(caught.value)


def test_gathers_all_faults(make_spec):
    with pytest.raises(UsageError, match=r"dropout is 2.*rank is 0"):
        make_spec(rank=0, dropout=2)


def test_experts_need_an_adaptation_and_a_domain(make_spec):
    with pytest.raises(UsageError, match="adaptation none has no experts"):
        build_model(make_spec(adaptation="none"), expert_domains=[0])
    with pytest.raises(UsageError, match=r"\[4\].*0 to 3"):
        build_model(make_spec(), expert_domains=[0, 4])


def test_a_gate_cannot_keep_more_experts_than_there_are(make_spec):
    spec = make_spec(gate_top_k=3)
    with pytest.raises(UsageError, match=r"gate_top_k is 3.*2 experts.*lower it"):
        build_model(spec, expert_domains=[0, 1])
    build_model(spec, expert_domains=[0, 1, 1])
    build_model(spec)  # the backbone's phase, which has none yet
    build_model(make_spec(gate_top_k=3, adaptation="mlora"), expert_domains=[0])  # nor has it a gate
