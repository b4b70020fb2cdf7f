"""Histories as vectors: what they say of items that go together, and that they keep their bits."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from mmlora.encoding import Encoder
from mmlora.encoding import history as module
from mmlora.encoding.history import fit_history
from mmlora.errors import ContractError
from mmlora.schema import FeatureContract, FeatureField, items_of

USERS, ITEMS = 120, 20
HISTORY = "user_history__items"
CONTRACT = FeatureContract(
    "all",
    (
        FeatureField("user_id", "", ("user_id",), "INT64", "categorical"),
        FeatureField("item_id", "", ("item_id",), "INT64", "categorical"),
        FeatureField("domain_id", "", ("domain_id",), "STRING", "categorical"),
        FeatureField(
            HISTORY,
            "user_history",
            ("user_id",),
            "INT64_LIST",
            "history",
            (("clicks", "user_history__clicks"), ("rows", "user_history__rows")),
        ),
        FeatureField("user_history__rows", "user_history", ("user_id",), "FLOAT_LIST", "counts"),
        FeatureField("user_history__clicks", "user_history", ("user_id",), "FLOAT_LIST", "counts"),
    ),
)


def training_rows(seed: int = 0, rows: int = 3000) -> pa.Table:
    """Users like items of even numbers or those of odd numbers; ids are items + 100."""
    draw = np.random.default_rng(seed)
    user, item = draw.integers(0, USERS, rows), draw.integers(0, ITEMS, rows)
    likes = user % 2 == item % 2
    label = (draw.random(rows) < np.where(likes, 0.8, 0.2)).astype(np.int8)
    return pa.table({"user_id": user, "item_id": item + 100, "label": label})


def features(items: list, rows: list, clicks: list, item: list | None = None) -> pa.Table:
    count = len(items)
    return pa.table(
        {
            "user_id": pa.array(range(count), pa.int64()),
            "item_id": pa.array(item or [100] * count, pa.int64()),
            "domain_id": ["a"] * count,
            HISTORY: pa.array(items, pa.list_(pa.int64())),
            "user_history__rows": pa.array(rows, pa.list_(pa.float32())),
            "user_history__clicks": pa.array(clicks, pa.list_(pa.float32())),
        }
    )


def encoder_of(rows: pa.Table) -> Encoder:
    table = features([[100]], [[1.0]], [[1.0]])
    return Encoder.fit(CONTRACT, table, domains=["a"], history=fit_history(rows))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return encoder_of(training_rows())


def products(encoder: Encoder, table: pa.Table) -> np.ndarray:
    vectors = encoder.encode(table).vectors
    return (vectors[HISTORY] * vectors[items_of(HISTORY)]).sum(1)


def test_clicked_items_raise_items_with_similar_answers(encoder):
    clicked_even = [[102, 104, 103, 105]], [[1.0] * 4], [[1.0, 1.0, 0.0, 0.0]]
    even, odd = (products(encoder, features(*clicked_even, item=[item])) for item in (106, 107))
    assert even > 0 > odd


def test_vectors_factorise_the_matrix_of_similar_answers(monkeypatch):
    """With as many factors as items the product is the history times X'X, by hand."""
    monkeypatch.setattr(module, "RANK", ITEMS)
    rows = training_rows(1)
    user, item, label = (rows[name].to_numpy() for name in ("user_id", "item_id", "label"))
    item, overall = item - 100, label.mean()
    mean = np.array(
        [(label[item == i].sum() + 20 * overall) / ((item == i).sum() + 20) for i in range(ITEMS)]
    )
    centred = label - mean[item]
    own = np.array([centred[user == u].sum() / ((user == u).sum() + 10) for u in range(USERS)])
    x = np.zeros((USERS, ITEMS))
    np.add.at(x, (user, item), centred - own[user])
    alike = x.T @ x
    np.fill_diagonal(alike, 0.0)
    met, n, c = np.array([3, 4, 3, 9]), np.array([1.0, 2.0, 1.0, 0.0]), np.array([1.0, 0.0, 1.0, -1.0])
    more = c - n * mean[met]
    weights = more - n * more.sum() / (n.sum() + 10)
    expected = weights @ alike[met][:, [7]] / (x**2).sum()
    table = features([(met + 100).tolist()], [n.tolist()], [c.tolist()], item=[107])
    assert products(encoder_of(rows), table) == pytest.approx(expected, rel=1e-4)


def test_unknown_items_and_empty_histories_score_zero(encoder):
    table = features([[], None, [999], [102]], [[], None, [1.0], [1.0]], [[], None, [1.0], [1.0]], [106] * 4)
    said = products(encoder, table)
    assert not said[:3].any() and said[3]
    assert not encoder.encode(features([[102]], [[1.0]], [[1.0]], [999])).vectors[items_of(HISTORY)].any()


def test_lists_of_different_lengths_are_refused(encoder):
    with pytest.raises(ContractError, match="lists of items, rows and clicks differ in length"):
        encoder.encode(features([[102, 104]], [[1.0]], [[1.0]]))


def test_rows_are_bit_identical_alone_in_chunks_and_after_loading(encoder):
    draw, table = np.random.default_rng(3), training_rows(2, 200)
    lists = [draw.integers(100, 125, n).tolist() for n in draw.integers(0, 60, 200)]
    ones, some = [[1.0] * len(of) for of in lists], [draw.random(len(of)).tolist() for of in lists]
    table = features(lists, ones, some, table["item_id"].to_pylist())
    stored = Encoder.from_tables(encoder.spec(), encoder.to_tables())
    assert stored.field_shapes() == encoder.field_shapes()
    whole = encoder.encode(table).vectors
    for other in (encoder, stored):
        for name, vectors in whole.items():
            pieces = [other.encode(table.slice(start, 7)).vectors[name] for start in range(0, 200, 7)]
            assert np.array_equal(np.concatenate(pieces), vectors)


def test_sides_have_their_vectors_and_form_a_batch(encoder):
    table = features([[102]], [[1.0]], [[1.0]], item=[104])
    by_key = {key: encoder.contract.keyed_by([key]).fields for key in ("user_id", "item_id", "domain_id")}
    sides = [(encoder.encode(table, fields), np.zeros(2, np.int64)) for fields in by_key.values()]
    assert set(sides[0][0].vectors) == {HISTORY} and set(sides[1][0].vectors) == {items_of(HISTORY)}
    batch, whole = encoder.assemble(sides), encoder.encode(table).vectors
    for name, vectors in batch.vectors.items():
        assert np.array_equal(vectors.numpy(), whole[name].repeat(2, 0))


@pytest.mark.parametrize("rows", [0, 1], ids=["no rows", "one row"])
def test_too_few_rows_give_no_history(rows):
    table = training_rows()[:rows]
    assert not products(encoder_of(table), features([[100, 101]], [[1.0, 1.0]], [[1.0, 0.0]])).any()


def test_many_rows_are_sampled_by_whole_users(monkeypatch):
    monkeypatch.setattr(module, "MOST_ROWS", 1000)
    monkeypatch.setattr(module, "MOST_ITEMS", 12)
    history = fit_history(training_rows())
    assert len(history.items.values) == 12
    vectors = history.factors * history.scale @ history.factors.T
    ids = history.items.values.to_numpy()
    alike = ids[:, None] % 2 == ids % 2
    assert vectors[alike].mean() > 0 > vectors[~alike].mean()
