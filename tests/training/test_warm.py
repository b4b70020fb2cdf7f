"""A warm start gives known values the weights that they had, wherever their indices are now."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from mmlora.batch import Batch
from mmlora.encoding import Encoder
from mmlora.models.builder import build_model
from mmlora.models.crosses import sparse
from mmlora.models.ctr import CTRModel
from mmlora.models.spec import FieldShape, ModelSpec
from mmlora.names import BackboneName
from mmlora.schema import FeatureContract, FeatureField
from mmlora.training.warm import WarmStart, changed_inputs

CONTRACT = FeatureContract(
    "service",
    (
        FeatureField("user_id", "", ("user_id",), "STRING", "categorical"),
        FeatureField("item_id", "", ("item_id",), "INT64", "categorical"),
        FeatureField("domain_id", "", ("domain_id",), "STRING", "categorical"),
        FeatureField("users__city", "users", ("user_id",), "STRING", "categorical"),
        FeatureField("items__kinds", "items", ("item_id",), "STRING_LIST", "bag"),
        FeatureField("users__age", "users", ("user_id",), "FLOAT", "dense"),
        FeatureField("items__look", "items", ("item_id",), "FLOAT_LIST", "vector"),
    ),
)
BEFORE, AFTER = ["a", "c", "d"], ["a", "b", "c"]  # the domains


def rows(first: int, domains: list[str], cities: list[str], kinds: list[str]) -> pa.Table:
    """80 rows; user, item and city numbers begin with ``first``, so vocabularies of two sets overlap."""
    numbers = range(80)
    return pa.table(
        {
            "user_id": [f"u{first + n:03d}" for n in numbers],
            "item_id": [first + n for n in numbers],
            "domain_id": [domains[n % len(domains)] for n in numbers],
            "users__city": [cities[n % len(cities)] for n in numbers],
            "items__kinds": [[kinds[n % len(kinds)], kinds[0]] for n in numbers],
            "users__age": [float(n % 2) for n in numbers],
            "items__look": [[float(n % 2), 1.0] for n in numbers],
        }
    )


OLD = rows(20, BEFORE, ["bergen", "oslo", "rome"], ["long", "short"])
NEW = rows(0, AFTER, ["aarhus", "bergen", "oslo"], ["funny", "long", "short"])
KNOWN = rows(20, ["a", "c"], ["bergen", "oslo"], ["long", "short"]).slice(0, 60)


def fitted(table: pa.Table) -> Encoder:
    return Encoder.fit(CONTRACT, table, domains=table["domain_id"].to_pylist())


def spec_of(encoder: Encoder, backbone: BackboneName = "wdl", crosses: bool = True) -> ModelSpec:
    return ModelSpec(
        backbone=backbone,
        adaptation="none",
        crosses=crosses,
        fields=tuple(FieldShape(*shape) for shape in encoder.field_shapes()),
        num_domains=len(encoder.domains),
        embedding_dim=4,
        hidden_units=(8,),
        rank=2,
    )


def random_model(encoder: Encoder, backbone: BackboneName, seed: int, crosses: bool = True) -> CTRModel:
    """A model as training leaves it: what weighs nothing by definition has weight 0."""
    torch.manual_seed(seed)
    model = build_model(spec_of(encoder, backbone, crosses))
    with torch.no_grad():
        for parameter in model.backbone_parameters():
            parameter.normal_()
        if model.crosses is not None:
            for name in ("weight", "domain_user", "domain_item", "basis", "pair", "table"):
                model.crosses.get_parameter(name).normal_()
            model.crosses.domain_user[0] = model.crosses.domain_item[0] = 0
            for term in model.crosses.terms:
                model.crosses.table[term.start] = 0
            model.crosses.precision.uniform_(1, 2)
            model.crosses.knots.copy_(torch.linspace(-1, 1, model.crosses.knots.shape[1]))
    return model.eval()


def batch(encoder: Encoder, table: pa.Table) -> Batch:
    return encoder.assemble([(encoder.encode(table), np.arange(table.num_rows))])


@pytest.mark.parametrize("crosses", [True, False])
@pytest.mark.parametrize("backbone", ["wdl", "deepfm", "dcn_v2", "fibinet"])
def test_rows_of_known_values_have_the_scores_that_they_had(backbone: BackboneName, crosses: bool) -> None:
    old, new = fitted(OLD), fitted(NEW)
    trained, model = random_model(old, backbone, 1, crosses), random_model(new, backbone, 2, crosses)
    before = model(batch(new, KNOWN))
    start = WarmStart(trained, old, new)
    if model.crosses is not None and trained.crosses is not None:
        start.carry_crosses(model.crosses)
        model.crosses.knots.copy_(trained.crosses.knots)  # in a training, the quantiles of its rows
    start.carry_tower(model)
    expected = trained(batch(old, KNOWN))
    torch.testing.assert_close(model(batch(new, KNOWN)), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(before, expected, atol=0.1)


def test_new_values_begin_as_in_a_cold_start() -> None:
    old, new = fitted(OLD), fitted(NEW)
    trained, model = random_model(old, "wdl", 1), random_model(new, "wdl", 2)
    fresh = model.embedding.table.detach().clone()
    start = WarmStart(trained, old, new)
    start.carry_tower(model)
    is_new = [
        value.as_py() not in OLD["user_id"].to_pylist() for value in new.to_tables()["user_id"]["value"]
    ]
    kept = (model.embedding.table == fresh).all(1)[2 : 2 + len(is_new)].tolist()
    assert kept == is_new and 0 < sum(is_new) < len(is_new)

    empty = build_model(spec_of(new))
    assert empty.crosses is not None
    start.carry_crosses(empty.crosses)
    place = AFTER.index("b") + 1  # row 0 is for a domain absent at training
    assert not empty.crosses.domain_user[place].any() and empty.crosses.domain_user[place - 1].any()
    city = empty.crosses.user.names.index("users__city") + 2  # aarhus, the first known value
    assert not empty.crosses.weight[city].any() and empty.crosses.weight[city + 1].any()


def test_precisions_are_carried_by_the_names_of_their_fields() -> None:
    old, new = fitted(OLD), fitted(NEW)
    trained, model = random_model(old, "wdl", 1).crosses, random_model(new, "wdl", 2).crosses
    assert trained is not None and model is not None
    WarmStart(random_model(old, "wdl", 1), old, new).carry_crosses(model)
    assert model.groups()[1] == trained.groups()[1]
    assert torch.equal(model.precision, trained.precision)


def test_weights_that_share_a_place_by_a_hash_are_carried_as_their_mean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sparse, "LONGEST", 97)
    old, new = fitted(OLD), fitted(NEW)
    trained, model = random_model(old, "wdl", 1), build_model(spec_of(new))
    assert trained.crosses is not None and model.crosses is not None
    WarmStart(trained, old, new).carry_crosses(model.crosses)
    term = next(term for term in model.crosses.terms if term.name == "user_id x items__kinds")
    was = next(term_ for term_ in trained.crosses.terms if term_.name == term.name)
    assert term.size == was.size == 97
    index = {name: table["value"].to_pylist() for name, table in new.to_tables().items()}
    known = {name: table["value"].to_pylist() for name, table in old.to_tables().items()}
    shared: dict[int, list[float]] = {}
    others = [(0, 0), (1, 1)] + [
        (index["items__kinds"].index(kind) + 2, known["items__kinds"].index(kind) + 2)
        for kind in known["items__kinds"]
    ]
    users = [(1, 1)] + [
        (index["user_id"].index(user) + 2, known["user_id"].index(user) + 2)
        for user in index["user_id"]
        if user in known["user_id"]
    ]
    for user, user_before in users:
        for other, other_before in others:
            place = int(term.places(torch.tensor([user]), torch.tensor([other])))
            place_before = int(was.places(torch.tensor([user_before]), torch.tensor([other_before])))
            shared.setdefault(place, []).append(float(trained.crosses.table[place_before]))
    for place, values in shared.items():
        assert float(model.crosses.table[place]) == pytest.approx(np.mean(values), abs=1e-5)


def test_values_of_another_type_are_all_new() -> None:
    texts = OLD.set_column(1, "item_id", OLD["item_id"].cast(pa.string()))
    old, new = fitted(texts), fitted(NEW)
    trained, model = random_model(old, "wdl", 1), random_model(new, "wdl", 2)
    fresh = model.embedding.table.detach().clone()
    WarmStart(trained, old, new).carry_tower(model)
    start = new.fields["user_id"].size  # type: ignore[union-attr]
    assert torch.equal(model.embedding.table[start + 2 : start + 82], fresh[start + 2 : start + 82])


def test_a_vector_of_another_width_is_named() -> None:
    wide = NEW.set_column(6, "items__look", pa.array([[1.0, 2.0, 3.0]] * 80))
    assert changed_inputs(spec_of(fitted(OLD)), spec_of(fitted(NEW))) == []
    assert changed_inputs(spec_of(fitted(OLD)), spec_of(fitted(wide))) == ["items__look"]
