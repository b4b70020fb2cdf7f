"""What the cross terms count, and what weighs nothing."""

from dataclasses import replace

import pytest
import torch

from mmlora.batch import Batch
from mmlora.models.builder import build_model
from mmlora.models.spec import FieldShape

FIELDS = (
    FieldShape("user_id", "categorical", 70),
    FieldShape("item_id", "categorical", 80, "item"),
    FieldShape("domain_id", "categorical", 6, "domain"),
    FieldShape("item__kind", "categorical", 6, "item"),
    FieldShape("user__age", "categorical", 5),
    FieldShape("item__words", "bag", 66, "item"),
    FieldShape("user__kinds", "bag", 6, "user", "item__kind"),
    FieldShape("user__kinds_ctr", "weights", 4, "user", "user__kinds"),
    FieldShape("user__taste", "vector", 2, "user", "item__style"),
    FieldShape("item__style", "vector", 2, "item"),
)
USER, ITEM, DOMAIN, KIND, AGE = range(5)  # columns of the categorical fields


def make_batch(rows=1, **changes):
    """Rows of known values, all alike, in domain 1."""
    values = {
        "categorical": torch.tensor([[5, 6, 3, 4, 2]]).repeat(rows, 1),
        "dense": torch.zeros(rows, 0),
        "domain": torch.full((rows,), 1),
        "bags": {
            "item__words": torch.tensor([[3, 7, 0]]).repeat(rows, 1),
            "user__kinds": torch.tensor([[4, 2, 0]]).repeat(rows, 1),
        },
        "vectors": {
            "user__kinds_ctr": torch.tensor([[0.5, -1.0, 9.0, 9.0]]).repeat(rows, 1),
            "user__taste": torch.tensor([[1.0, 2.0]]).repeat(rows, 1),
            "item__style": torch.tensor([[3.0, -1.0]]).repeat(rows, 1),
        },
    }
    return Batch(**{**values, **changes})


@pytest.fixture
def crosses(make_spec, make_model):
    return make_model(make_spec(fields=FIELDS, crosses=True)).crosses


def pair_numbers(crosses, batch):
    names = [name for pair in crosses.pairs for name in pair.names]
    return dict(zip(names, crosses.inputs(batch).pairs[0].tolist(), strict=True))


def test_a_list_counts_what_matches_and_sums_its_weights(crosses):
    batch = make_batch()
    assert pair_numbers(crosses, batch) == {
        "user__kinds . item__kind": 1.0,
        "user__kinds_ctr . item__kind": 0.5,
        "user__taste . item__style": 1.0,
    }
    second = batch.categorical.clone()
    second[:, KIND] = 2
    found = pair_numbers(crosses, replace(batch, categorical=second))
    assert found["user__kinds_ctr . item__kind"] == -1.0


@pytest.mark.parametrize("value", [0, 1], ids=["missing", "unknown"])
def test_missing_and_unknown_values_match_nothing(crosses, value):
    batch = make_batch()
    batch.categorical[:, KIND] = value
    batch.bags["user__kinds"][:] = value
    found = pair_numbers(crosses, batch)
    assert found["user__kinds . item__kind"] == found["user__kinds_ctr . item__kind"] == 0


def test_fields_that_are_not_alike_are_no_pair(make_spec):
    others = (replace(FIELDS[6], size=7), replace(FIELDS[8], size=3), replace(FIELDS[4], partner="user_id"))
    fields = tuple({field.name: field for field in (*FIELDS, *others)}.values())
    assert not build_model(make_spec(fields=fields, crosses=True)).crosses.pairs
    without = tuple(field for field in FIELDS if field.side != "item")
    assert not build_model(make_spec(fields=without, crosses=True)).crosses.pairs


@pytest.mark.parametrize(
    ("column", "held"),
    [
        (USER, {"user_id", "user_id x domain", "user_id x item__kind"}),
        (ITEM, {"item_id", "item_id x domain", "item_id x user__age"}),
        (AGE, {"item_id x user__age"}),
        (KIND, {"user_id x item__kind"}),
    ],
)
def test_a_missing_value_weighs_nothing_in_all_terms_of_a_large_field(crosses, column, held):
    batch = make_batch()
    batch.categorical[:, column] = 0
    for term in crosses.terms:
        alone = torch.zeros_like(crosses.table)
        alone[term.start : term.start + term.size] = 1.0
        alone[term.start] = 0.0
        with torch.no_grad():
            count = alone[crosses.inputs(batch).places].sum().item()
        assert (count == 0) == (term.name in held), term.name


def test_an_absent_domain_has_common_terms_only(crosses):
    batch = make_batch(2, domain=torch.tensor([-1, 1]))
    with torch.no_grad():
        before = crosses(batch, None)
        for name in ("domain_user", "domain_item", "basis", "pair"):
            crosses.get_parameter(name)[1:] += 1.0
        for term in crosses.terms:
            if term.name.endswith("x domain"):
                crosses.table[term.start + 1 : term.start + term.size] += 1.0
        after = crosses(batch, None)
    assert after[0] == before[0] and after[1] > before[1] + 1


def test_a_model_that_does_not_see_the_domain_scores_all_domains_alike(make_spec, make_model):
    fields = tuple(field for field in FIELDS if field.name != "domain_id")
    crosses = make_model(make_spec(fields=fields, crosses=True)).crosses
    batch = make_batch(6, domain=torch.arange(6) - 1)
    batch = replace(batch, categorical=batch.categorical[:, [USER, ITEM, KIND, AGE]])
    assert not any("domain" in term.name for term in crosses.terms)
    assert crosses(batch, None).unique().numel() == 1


@torch.no_grad()
def test_fresh_cross_terms_change_nothing(make_spec):
    model = build_model(make_spec(fields=FIELDS, crosses=True), expert_domains=[0, 1]).eval()
    batch = make_batch(4, domain=torch.arange(4))
    assert not model.crosses(batch, model.gate_weights(batch)).any()
    assert not model.score(model.embedding(batch), batch.domain).any(), "the tower begins silent"


@pytest.mark.parametrize("fields", [FIELDS, FIELDS[:1], FIELDS[1:2], FIELDS[3:5]])
def test_every_weight_has_a_group_of_a_name(make_spec, fields):
    crosses = build_model(make_spec(fields=fields, crosses=True, num_domains=4)).crosses
    groups, names = crosses.groups()
    assert len(names) == crosses.num_groups == len(crosses.precision) and names[0] == "constant"
    for parameter, group in groups.items():
        assert group.shape == crosses.get_parameter(parameter).shape, parameter
        assert not group.numel() or 0 <= group.min() <= group.max() < len(names)
    assert (groups["weight"] == 0).sum() == 1


def test_hashed_combinations_stay_inside_their_stretch_of_the_table(make_spec):
    fields = (
        FieldShape("user_id", "categorical", 40_000),
        FieldShape("item__kind", "categorical", 9, "item"),
    )
    with torch.device("meta"):
        terms = build_model(make_spec(fields=fields, crosses=True)).crosses.terms
    (term,) = (term for term in terms if term.small)
    assert term.size == 2**18
    index, other = torch.arange(40_000)[:, None], torch.arange(9).expand(40_000, 9)
    places = term.places(index, other) - term.start
    assert not places[0].any() and places[1:].min() >= 1 and places.max() < term.size
    assert places.unique().numel() > 0.9 * term.size  # 360,000 combinations fill it evenly
