"""A night's features beside those of the training date: what each figure sees, and what it doesn't mind."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from mmlora.checks.feature_profile import FieldDifference, FieldProfile, describe, differences
from mmlora.encoding import Encoder
from mmlora.schema import FeatureContract, FeatureField

FIELDS = (
    FeatureField("item_id", "", ("item_id",), "INT64", "categorical"),
    FeatureField(
        "item_profile__price", "item_profile", ("item_id",), "DOUBLE", "dense", (("transform", "log"),)
    ),
    FeatureField("item_profile__kind", "item_profile", ("item_id",), "STRING", "categorical"),
    FeatureField("item_profile__tags", "item_profile", ("item_id",), "STRING_LIST", "bag"),
    FeatureField("item_profile__vector", "item_profile", ("item_id",), "FLOAT_LIST", "vector"),
)
CONTRACT = FeatureContract("", FIELDS)


def items(count: int = 600, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    kinds = np.array(["shoes", "toys", "books"])
    return pa.table(
        {
            "item_id": rng.permutation(5000)[:count],
            "item_profile__price": np.exp(rng.normal(3, 1, count)),
            "item_profile__kind": kinds[rng.integers(0, 3, count)],
            "item_profile__tags": [[f"t{n}" for n in range(rng.integers(0, 4))] for _ in range(count)],
            "item_profile__vector": pa.array(list(rng.normal(size=(count, 4)).astype(np.float32))),
        }
    )


@pytest.fixture(scope="module")
def fitted() -> tuple[Encoder, dict[str, FieldProfile]]:
    encoder = Encoder.fit(CONTRACT, items(), domains=["d"])
    profile = describe(encoder, items()["item_id"].combine_chunks(), items())
    stored = json.dumps({name: field.to_json() for name, field in profile.items()})
    return encoder, {name: FieldProfile.from_json(raw) for name, raw in json.loads(stored).items()}


Fitted = tuple[Encoder, dict[str, FieldProfile]]


def compared(fitted: Fitted, table: pa.Table) -> dict[str, FieldDifference]:
    encoder, profile = fitted
    return {found.field.name: found for found in differences(encoder, table["item_id"], table, profile)}


def put(name: str, of: Callable[[pa.ChunkedArray], pa.Array]) -> pa.Table:
    table = items(seed=1)
    return table.set_column(table.column_names.index(name), name, of(table[name]))


def test_another_sample_of_the_same_items_is_no_difference(fitted: Fitted) -> None:
    found = compared(fitted, items(seed=1))
    assert set(found) == {field.name for field in FIELDS}
    del found["item_id"]  # its ids are others
    for field in found.values():
        assert (field.missing <= 0, field.unknown <= 0, field.outside, field.shift) == (True, True, 0, 0), (
            field
        )


def test_another_unit_shifts_a_number_out_of_its_range(fitted: Fitted) -> None:
    cents = compared(fitted, put("item_profile__price", lambda price: pc.multiply(price, 100.0)))
    assert (cents["item_profile__price"].shift or 0) > 2
    wild = compared(fitted, put("item_profile__price", lambda price: pc.multiply(price, 1e9)))
    assert wild["item_profile__price"].outside > 0.9


def test_missing_values_are_counted(fitted: Fitted) -> None:
    found = compared(fitted, put("item_profile__price", lambda price: pa.nulls(len(price), pa.float64())))
    assert found["item_profile__price"].missing > 0.9
    assert found["item_profile__price"].shift is None
    kinds = compared(fitted, put("item_profile__kind", lambda kind: pa.nulls(len(kind), pa.string())))
    assert kinds["item_profile__kind"].missing > 0.9


def test_unknown_values_are_counted(fitted: Fitted) -> None:
    found = compared(fitted, put("item_profile__kind", pc.utf8_upper))
    assert found["item_profile__kind"].unknown > 0.9
    ids = compared(fitted, put("item_id", lambda ids: pc.add(ids, 10_000)))
    assert ids["item_id"].unknown > 0.9 and ids["item_id"].shift is None


def test_vectors_of_another_length_and_another_mix_of_kinds_are_shifts(fitted: Fitted) -> None:
    zeros = [np.zeros(4, np.float32)] * 600
    found = compared(fitted, put("item_profile__vector", lambda _: pa.array(zeros)))
    assert (found["item_profile__vector"].shift or 0) > 1
    one = compared(fitted, put("item_profile__kind", lambda kind: pa.array(["toys"] * len(kind))))
    assert (one["item_profile__kind"].shift or 0) > 1


def test_vectors_change_where_they_are_given_to_others_or_made_anew(fitted: Fitted) -> None:
    def change(vectors: np.ndarray, rows: int = 600) -> float | None:
        table = items()
        new = pa.array(list(vectors.astype(np.float32)))
        table = table.set_column(4, "item_profile__vector", new).slice(0, rows)
        return compared(fitted, table)["item_profile__vector"].change

    same = np.stack(items()["item_profile__vector"].to_pylist())
    assert change(same) == pytest.approx(0, abs=0.01)
    assert (change(same + np.random.default_rng(3).normal(size=same.shape) / 4) or 1) < 0.1, "learned on"
    assert (change(np.roll(same, 1, axis=0)) or 0) > 0.8
    assert (change(same @ np.linalg.qr(np.random.default_rng(4).normal(size=(4, 4)))[0]) or 0) > 0.7
    assert change(same, rows=20) is None, "few of them are left"
    assert change(np.ones_like(same)) is not None


def test_a_few_rows_prove_little(fitted: Fitted) -> None:
    found = compared(fitted, put("item_profile__price", lambda price: pc.multiply(price, 2.0)).slice(0, 8))
    assert found["item_profile__price"].shift == 0
