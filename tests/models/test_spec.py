import json

import pytest

from mmlora.errors import UsageError
from mmlora.models.builder import build_model
from mmlora.models.spec import FieldShape, ModelSpec


def test_round_trip_through_json(make_spec):
    spec = make_spec(gate="both", experts_per_domain=2)
    assert ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"backbone": "wide"}, ("'wide'", "wdl", "deepfm")),
        ({"adaptation": "lora"}, ("'lora'", "none", "mlora", "moe_mlora")),
        ({"gate": "user"}, ("'user'", "domain", "sample", "both")),
        ({"rank": 9}, ("rank 9", "smallest hidden width, 8")),
        ({"rank": 0}, ("rank is 0",)),
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
    with pytest.raises(UsageError, match=r"rank is 0.*dropout is 2"):
        make_spec(rank=0, dropout=2)


def test_experts_need_an_adaptation_and_a_domain(make_spec):
    with pytest.raises(UsageError, match="adaptation none has no experts"):
        build_model(make_spec(adaptation="none"), expert_domains=[0])
    with pytest.raises(UsageError, match=r"\[4\].*0 to 3"):
        build_model(make_spec(), expert_domains=[0, 4])
