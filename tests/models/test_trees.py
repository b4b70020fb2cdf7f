"""Trees as tensors: LightGBM's own predictions, from whole rows and from sides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mmlora.batch import Batch
from mmlora.models.side_plans.pairs import GridPairs, ListedPairs
from mmlora.models.side_plans.trees import TreePairs
from mmlora.models.spec import FieldShape
from mmlora.models.trees.columns import TreeColumn, TreeColumns
from mmlora.models.trees.convert import tree_state
from mmlora.models.trees.model import TreeModel
from mmlora.models.trees.paths import AVERAGE, path_parts

lightgbm = pytest.importorskip("lightgbm")

USERS, ITEMS = 9, 40
FIELDS = (
    FieldShape("user_id", "categorical", 50, "user"),
    FieldShape("item_id", "categorical", 50, "item"),
    FieldShape("domain_id", "categorical", 4, "domain"),
    FieldShape("kind", "categorical", 30, "item"),
    FieldShape("city", "categorical", 12, "user"),
    FieldShape("price", "dense", 1, "item"),
    FieldShape("age", "dense", 1, "user"),
    FieldShape("taste", "vector", 3, "user"),
    FieldShape("tags", "bag", 6, "item"),
    FieldShape("met", "bag", 6, "user"),
    FieldShape("met_weights", "weights", 4, "user", "met"),
)


def made_rows(rows: int, seed: int, fields: tuple[FieldShape, ...] = FIELDS) -> Batch:
    rng = np.random.default_rng(seed)
    of = {kind: [f for f in fields if f.kind == kind] for kind in ("categorical", "dense", "vector", "bag")}
    categorical = [rng.integers(0, field.size, rows) for field in of["categorical"]]
    # Rounded, so that rows stand on thresholds.
    dense = rng.normal(size=(rows, len(of["dense"]))).round(1).astype(np.float32)
    vectors = {f.name: rng.normal(size=(rows, f.size)).astype(np.float32) for f in of["vector"]}
    return Batch(
        categorical=torch.from_numpy(np.stack(categorical, 1)),
        dense=torch.from_numpy(dense),
        domain=torch.zeros(rows, dtype=torch.int64),
        vectors={name: torch.from_numpy(value) for name, value in vectors.items()},
        bags={f.name: torch.from_numpy(rng.integers(0, f.size, (rows, 3))) for f in of["bag"]},
    )


def boosted(rounds: int = 40, **options: Any) -> Any:
    """Trees that need the columns of both sides."""
    columns = TreeColumns(FIELDS)
    batch = made_rows(4000, 1)
    x, rng = columns(batch).numpy(), np.random.default_rng(2)
    place = {column.field: number for number, column in enumerate(columns.columns)}
    logit = x[:, place["price"]] * x[:, place["age"]] + np.isin(x[:, place["kind"]], (3, 7, 29)) * 2 - 1
    logit += np.sin(3 * x[:, place["taste"]]) + (x[:, place["city"]] % 3 == x[:, place["domain_id"]] % 3)
    label = rng.random(len(x)) < 1 / (1 + np.exp(-logit))
    data = lightgbm.Dataset(x, label, categorical_feature=list(range(columns.categories)))
    given = {"objective": "binary", "verbosity": -1, "num_threads": 1, "min_child_samples": 5, **options}
    return lightgbm.train(given, data, rounds)


@pytest.fixture(scope="module")
def booster() -> Any:
    return boosted()


@pytest.fixture(scope="module")
def model(booster: Any) -> TreeModel:
    return TreeModel(FIELDS, tree_state(booster.dump_model()))


def test_the_columns_are_all_but_ids_and_histories() -> None:
    assert [*dict.fromkeys(column.field for column in TreeColumns(FIELDS).columns)] == [
        *("domain_id", "kind", "city", "price", "age", "taste", "tags")
    ]
    assert TreeColumns(FIELDS).columns[-1] == TreeColumn("tags", 5)


def test_a_row_gets_lightgbms_own_logit(booster: Any, model: TreeModel) -> None:
    batch = made_rows(3000, 3)
    theirs = booster.predict(model.columns(batch).numpy(), raw_score=True)
    assert model(batch).numpy() == pytest.approx(theirs, abs=2e-6)
    assert np.ptp(theirs) > 1


def test_the_parts_of_a_rows_paths_add_up_to_its_logit(model: TreeModel) -> None:
    batch = made_rows(20, 6)
    for row in range(20):
        parts = path_parts(model, batch.take(torch.tensor([row])))
        assert sum(parts.values()) == pytest.approx(model(batch)[row].item(), abs=2e-6)
        assert set(parts) > {AVERAGE, "price", "age", "kind"}


def test_parts_of_trees_with_one_node_are_lightgbms_own_contributions() -> None:
    booster = boosted(20, num_leaves=2)
    model, row = TreeModel(FIELDS, tree_state(booster.dump_model())), made_rows(1, 7)
    theirs = booster.predict(model.columns(row).numpy(), pred_contrib=True)[0]
    fields = [column.field for column in model.columns.columns]
    by_field = {
        name: sum(v for f, v in zip(fields, theirs[:-1], strict=True) if f == name) for name in fields
    }
    parts = path_parts(model, row)
    assert parts.pop(AVERAGE) == pytest.approx(theirs[-1], abs=1e-6)
    assert parts == pytest.approx(
        {name: value for name, value in by_field.items() if name in parts}, abs=1e-6
    )


def test_trees_without_row_counts_have_parts_that_add_up_too(booster: Any) -> None:
    state = tree_state(booster.dump_model())
    del state["leaf_rows"]
    model, row = TreeModel(FIELDS, state), made_rows(1, 8)
    assert sum(path_parts(model, row).values()) == pytest.approx(model(row).item(), abs=2e-6)


def test_categories_never_seen_in_training_go_lightgbms_way(booster: Any, model: TreeModel) -> None:
    batch = made_rows(200, 4)
    batch.categorical[:, 3:] += 1000
    theirs = booster.predict(model.columns(batch).numpy(), raw_score=True)
    assert model(batch).numpy() == pytest.approx(theirs, abs=2e-6)


@pytest.mark.parametrize(
    "options", [{"min_child_samples": 10_000}, {"num_leaves": 2}, {"max_cat_to_onehot": 64}]
)
def test_trees_of_any_shape_are_read(options: dict[str, Any], sides: tuple[Batch, Batch]) -> None:
    booster = boosted(5, **options)
    model, batch = TreeModel(FIELDS, tree_state(booster.dump_model())), made_rows(100, 5)
    theirs = booster.predict(model.columns(batch).numpy(), raw_score=True)
    assert model(batch).numpy() == pytest.approx(theirs, abs=2e-6)
    plan, pair = TreePairs(model), torch.zeros(1, dtype=torch.int64)
    found = plan.logits(ListedPairs(pair, pair), plan.side(sides[0], "user"), plan.side(sides[1], "item"))
    assert torch.equal(found, model(of_pairs(*sides, pair, pair)))


def of_pairs(user: Batch, item: Batch, user_rows: torch.Tensor, item_rows: torch.Tensor) -> Batch:
    """The whole rows of pairs."""
    users, items = user.take(user_rows), item.take(item_rows)
    of_user = [f for f in FIELDS if f.kind == "categorical" and f.side != "item"]
    of_item = [f for f in FIELDS if f.kind == "categorical" and f.side == "item"]
    categorical = [
        (items.categorical[:, of_item.index(f)] if f in of_item else users.categorical[:, of_user.index(f)])
        for f in FIELDS
        if f.kind == "categorical"
    ]
    return Batch(
        categorical=torch.stack(categorical, 1),
        dense=torch.cat([items.dense, users.dense], 1),  # the price stands before the age
        domain=users.domain,
        vectors=users.vectors,
        bags={**users.bags, **items.bags},
    )


@pytest.fixture(scope="module")
def sides() -> tuple[Batch, Batch]:
    of_item = {item: tuple(f for f in FIELDS if (f.side == "item") == item) for item in (False, True)}
    return made_rows(USERS, 6, of_item[False]), made_rows(ITEMS, 7, of_item[True])


@pytest.mark.parametrize("block", [1, 7, 64, USERS * ITEMS, 1000])
def test_pairs_have_the_bits_of_whole_rows_in_any_block(
    model: TreeModel, sides: tuple[Batch, Batch], block: int
) -> None:
    user_rows = torch.arange(USERS).repeat_interleave(ITEMS)
    item_rows = torch.arange(ITEMS).repeat(USERS)
    expected = model(of_pairs(*sides, user_rows, item_rows))
    plan = TreePairs(model)
    user, item = plan.side(sides[0], "user"), plan.side(sides[1], "item")
    found = []
    for start in range(0, USERS * ITEMS, block):
        count = min(block, USERS * ITEMS - start)
        found.append(plan.logits(GridPairs(start, count, block, ITEMS), user, item)[:count])
    assert torch.equal(torch.cat(found), expected)
    order = torch.randperm(len(user_rows), generator=torch.Generator().manual_seed(0))
    listed = plan.logits(ListedPairs(user_rows[order], item_rows[order]), user, item)
    assert torch.equal(listed, expected[order])


def test_a_sides_rows_do_not_depend_on_the_others(model: TreeModel, sides: tuple[Batch, Batch]) -> None:
    plan = TreePairs(model)
    (whole,) = plan.side(sides[1], "item")
    for row in range(ITEMS):
        assert torch.equal(plan.side(sides[1].take(torch.tensor([row])), "item")[0][0], whole[row])


def test_saved_trees_are_the_same(model: TreeModel, booster: Any, tmp_path: Any) -> None:
    from mmlora.registry.parts import PartStore

    parts = PartStore(tmp_path)
    part = parts.put_tensors(tree_state(booster.dump_model()))
    assert part == parts.put_tensors(tree_state(booster.dump_model()))
    batch = made_rows(100, 8)
    assert torch.equal(TreeModel(FIELDS, parts.tensors(part))(batch), model(batch))
