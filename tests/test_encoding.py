from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmlora.encoding import Encoder
from mmlora.errors import ContractError, DataError
from mmlora.schema import FeatureContract, FeatureField, FieldKind


def make_field(name: str, kind: FieldKind, keys: tuple[str, ...] = ("user_id",), **tags: str) -> FeatureField:
    return FeatureField(name, "", keys, "STRING", kind, tuple(sorted(tags.items())))


def contract_of(*fields: FeatureField) -> FeatureContract:
    return FeatureContract("service", fields)


def fit_one(kind: FieldKind, values: pa.Array | list[object], *, min_count: int = 1, **tags: str) -> Encoder:
    column = pa.array(values)
    return Encoder.fit(
        contract_of(make_field("x", kind, **tags)), pa.table({"x": column}), domains=[], min_count=min_count
    )


def indices(encoder: Encoder, values: pa.Array | list[object]) -> list[int]:
    return encoder.encode(pa.table({"x": pa.array(values)})).categorical[:, 0].tolist()


def test_missing_is_0_unseen_is_1_and_known_values_follow_sorted():
    encoder = fit_one("categorical", ["b", None, "a", "b", ""])
    assert indices(encoder, ["a", "b", "", "never seen", None]) == [3, 4, 2, 1, 0]
    assert encoder.field_shapes() == [("x", "categorical", 5, "user", "")]


def test_rare_values_are_out_of_vocabulary():
    encoder = fit_one("categorical", [7, 7, 8, 9, 9], min_count=2)
    assert indices(encoder, [7, 8, 9]) == [2, 1, 3]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([3, None, 5], pa.int32()),
        pa.array([3.0, None, 5.0]),
        pa.array([3.0, math.nan, 5.0], pa.float32()),
        pa.array([3, None, 5]).dictionary_encode(),
        pa.chunked_array([[3], [None, 5]]),
    ],
    ids=["int32", "float", "nan", "dictionary", "chunks"],
)
def test_whole_numbers_are_known_in_whatever_type_they_arrive(column):
    encoder = fit_one("categorical", [3, 4])
    assert encoder.encode(pa.table({"x": column})).categorical[:, 0].tolist() == [2, 0, 1]


@pytest.mark.parametrize("known", [[-3, 0, 4], [-(2**63), 0, 2**63 - 1]], ids=["close", "far apart"])
def test_unknown_numbers_are_out_of_vocabulary(known):
    encoder = fit_one("categorical", known)
    others = [-(2**63) + 1, -4, -1, 5, 2**62, 2**63 - 2]
    assert indices(encoder, [*known, *others, None]) == [2, 3, 4, *[1] * len(others), 0]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), whole=st.booleans())
def test_a_dictionary_is_encoded_as_its_values(data, whole):
    element = st.integers(-50, 50) if whole else st.text(max_size=2)
    kind = pa.int64() if whole else pa.string()
    known = data.draw(st.lists(element, max_size=8))
    values = pa.array(data.draw(st.lists(element, min_size=1, max_size=8, unique=True)), kind)
    places = st.one_of(st.none(), st.integers(0, len(values) - 1))
    codes = pa.array(data.draw(st.lists(places, max_size=20)), pa.int8())
    column = pa.DictionaryArray.from_arrays(codes, values)
    encoder = fit_one("categorical", pa.array(known, kind))
    assert indices(encoder, column) == indices(encoder, values.take(codes))


def test_a_column_of_nulls_is_missing_and_can_even_be_fitted():
    assert indices(fit_one("categorical", [1, 2]), pa.nulls(2)) == [0, 0]
    assert indices(fit_one("categorical", pa.nulls(2)), ["a", None]) == [1, 0]


def test_ids_of_another_type_violate_the_contract():
    with pytest.raises(
        ContractError, match="'x' has type int64, but the encoder was fitted on string"
    ) as caught:
        indices(fit_one("categorical", ["1", "2"]), [1, 2])
    assert (caught.value.expected, caught.value.found) == ("string", "int64")


def test_lists_need_a_list_kind_and_list_kinds_need_lists():
    with pytest.raises(ContractError, match="kind=bag"):
        fit_one("categorical", [["a"]])
    with pytest.raises(ContractError, match="encoded from lists"):
        fit_one("bag", ["a"])
    with pytest.raises(ContractError, match="encoded as a number"):
        fit_one("dense", ["a"])


def test_dense_is_standardised_and_the_missing_is_the_mean():
    encoder = fit_one("dense", [1.0, 3.0, None, math.nan, math.inf])
    encoded = encoder.encode(pa.table({"x": [1.0, 3.0, 2.0, None, math.nan]})).dense[:, 0]
    assert encoded.tolist() == [-1.0, 1.0, 0.0, 0.0, 0.0]


def test_log1p_is_taken_before_standardising():
    encoder = fit_one("dense", [0, math.e - 1], transform="log1p")
    encoded = encoder.encode(pa.table({"x": [0.0, math.e - 1, -5.0]})).dense[:, 0]
    np.testing.assert_allclose(encoded, [-1, 1, -1], atol=1e-6)


def test_log_is_applied_to_prices_and_zero_is_missing():
    encoder = fit_one("dense", [1.0, math.e**2], transform="log")
    encoded = encoder.encode(pa.table({"x": [1.0, math.e**2, math.e, 0.0, -3.0]})).dense[:, 0]
    np.testing.assert_allclose(encoded, [-1, 1, 0, 0, 0], atol=1e-6)


@pytest.mark.parametrize(("log1p", "transform"), [(True, "log1p"), (False, "")])
def test_encoders_stored_before_transforms_had_names_encode_as_they_did(log1p, transform):
    encoder = fit_one("dense", [0.0, 7.0], transform=transform)
    spec = encoder.spec()
    spec["fields"]["x"] = {key: spec["fields"]["x"][key] for key in ("mean", "std")} | {"log1p": log1p}
    table = pa.table({"x": [0.0, 2.0, 7.0]})
    old = Encoder.from_tables(spec, encoder.to_tables())
    assert old.encode(table).dense.tolist() == encoder.encode(table).dense.tolist()


def test_constant_and_wild_numbers_stay_small():
    constant = fit_one("dense", [0.1] * 7)
    assert np.abs(constant.encode(pa.table({"x": [0.1]})).dense).max() < 1e-6
    wild = fit_one("dense", [0.0, 1.0]).encode(pa.table({"x": [1e300, -1e300]})).dense
    assert wild[:, 0].tolist() == [20.0, -20.0]


def test_bags_are_padded_truncated_and_without_nulls():
    encoder = fit_one("bag", [["a", "b"], ["c"], None, []], max_length="2")
    table = pa.table({"x": [["b", None, "a", "c"], None, [], ["new"], [None]]})
    assert encoder.encode(table).bags["x"].tolist() == [[3, 2], [0, 0], [0, 0], [1, 0], [0, 0]]
    assert encoder.encode(table.slice(3)).bags["x"].tolist() == [[1, 0], [0, 0]]


def test_a_bag_is_no_wider_than_training_needed():
    encoder = fit_one("bag", [["a", None, "b"], ["c"]])
    assert encoder.encode(pa.table({"x": [["a"]]})).bags["x"].shape == (1, 2)


@pytest.mark.parametrize("kind", [pa.list_(pa.float64()), pa.list_(pa.float32(), 2)], ids=["list", "fixed"])
def test_vectors_keep_their_values_and_are_0_where_missing(kind):
    encoder = fit_one("vector", pa.array([[1.0, 2.0], None], kind))
    encoded = encoder.encode(pa.table({"x": pa.array([None, [0.5, None]], kind)})).vectors["x"]
    assert encoded.tolist() == [[0.0, 0.0], [0.5, 0.0]]


def test_vectors_of_another_width_are_refused_with_their_rows():
    with pytest.raises(DataError, match=r"must have 2 values.*row 1: 3 values"):
        fit_one("vector", [[1.0, 2.0], [1.0, 2.0, 3.0]])


def test_a_field_without_training_values_can_be_encoded():
    assert fit_one("vector", pa.nulls(2)).encode(pa.table({"x": [[1.0, 2.0]]})).vectors["x"].tolist() == [
        [0.0]
    ]
    assert fit_one("bag", [[], []]).encode(pa.table({"x": [["a"], None]})).bags["x"].tolist() == [[1], [0]]
    assert fit_one("dense", pa.nulls(2)).encode(pa.table({"x": [5.0]})).dense.tolist() == [[5.0]]


def test_absent_columns_and_foreign_fields_are_named():
    encoder = fit_one("dense", [1.0])
    with pytest.raises(ContractError, match="columns x are absent"):
        encoder.encode(pa.table({"y": [1]}))
    with pytest.raises(ContractError, match=r"\['y'\] are not in the contract"):
        encoder.encode(pa.table({"y": [1]}), [make_field("y", "dense")])


SIDES = contract_of(
    make_field("user_id", "categorical", ("user_id",)),
    make_field("item_id", "categorical", ("item_id",)),
    make_field("domain_id", "categorical", ("domain_id",)),
    make_field("age", "dense", ("user_id",)),
    make_field("genres", "bag", ("item_id",)),
    make_field("plays", "dense", ("item_id", "domain_id"), transform="log1p"),
    make_field("taste", "vector", ("user_id",)),
)


def pairs(user_ids: list[object], domain_ids: list[object]) -> pa.Table:
    users, items = len(user_ids), 4
    draw = np.random.default_rng(1)
    rows = [(u, i) for u in range(users) for i in range(items)]
    ages, plays = draw.random(users), draw.integers(0, 50, items)
    return pa.table(
        {
            "user_id": [user_ids[u] for u, _ in rows],
            "item_id": [f"i{i}" for _, i in rows],
            "domain_id": pa.array([domain_ids[i % len(domain_ids)] for _, i in rows]),
            "age": [ages[u] if u else None for u, _ in rows],
            "genres": [["drama", "war"][: i % 3] for _, i in rows],
            "plays": [int(plays[i]) for _, i in rows],
            "taste": [[u / 2, u / 3] for u, _ in rows],
        }
    )


@pytest.mark.parametrize("user_ids", [[10, 20, 30], ["x", "y", "z"]], ids=["int", "string"])
def test_sides_encoded_alone_and_gathered_equal_the_rows_encoded_whole(user_ids):
    table = pairs(user_ids, ["a"])
    encoder = Encoder.fit(SIDES, table, domains=["b", "a"])
    whole = encoder.assemble([(encoder.encode(table), np.arange(table.num_rows))])

    users = table.take(pa.array([0, 4, 8])).select(["user_id", "age", "taste"])
    items = table.slice(0, 4).select(["item_id", "domain_id", "genres", "plays"])
    user_side = encoder.encode(users, SIDES.keyed_by(["user_id"]).fields)
    item_side = encoder.encode(items, SIDES.keyed_by(["item_id", "domain_id"]).fields)
    batch = encoder.assemble([(user_side, np.arange(12) // 4), (item_side, np.arange(12) % 4)])

    assert batch.categorical.equal(whole.categorical)
    assert batch.dense.equal(whole.dense)
    assert batch.domain.equal(whole.domain)
    assert batch.vectors["taste"].equal(whole.vectors["taste"])
    assert batch.bags["genres"].equal(whole.bags["genres"])
    assert list(batch.vectors) == ["taste"]
    with pytest.raises(ContractError, match="no side has user_id, age, taste"):
        encoder.assemble([(item_side, np.arange(4))])


def test_a_field_of_both_sides_is_read_from_the_first():
    encoder = Encoder.fit(SIDES, pairs([1, 2], ["a", "b"]), domains=["a", "b"])
    first, second = (encoder.encode(pairs([u], [d])) for u, d in ((1, "a"), (2, "b")))
    batch = encoder.assemble([(first, np.zeros(2, np.int64)), (second, np.zeros(2, np.int64))])
    assert batch.categorical[0].tolist() == first.categorical[0].tolist()
    assert batch.vectors["taste"][0].tolist() == first.vectors["taste"][0].tolist()
    assert batch.domain.tolist() == [0, 0]


@pytest.mark.parametrize("domains", [["b", "a", "c"], [5, 3, 4]], ids=["string", "int"])
def test_a_domains_index_is_its_sort_position(domains):
    encoder = Encoder.fit(contract_of(), pa.table({}), domains=domains)
    unknown = "z" if isinstance(domains[0], str) else 99
    assert encoder.domain_index([*sorted(domains), unknown]).tolist() == [0, 1, 2, -1]


def test_fitting_in_pieces_equals_fitting_at_once():
    table = pairs(list(range(40)), ["a", "b"])
    whole = Encoder.fit(SIDES, table, domains=["a"], min_count=3)
    pieces = Encoder.fit(SIDES, (table.slice(s, 7) for s in range(0, 160, 7)), domains=["a"], min_count=3)
    assert {n: t.to_pydict() for n, t in pieces.to_tables().items()} == {
        n: t.to_pydict() for n, t in whole.to_tables().items()
    }
    np.testing.assert_allclose(pieces.encode(table).dense, whole.encode(table).dense, atol=1e-6)


scalars = st.one_of(st.none(), st.text(max_size=4))
numbers = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))
row = st.fixed_dictionaries(
    {
        "user_id": st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
        "item_id": scalars,
        "domain_id": st.sampled_from(["a", "b", "other", None]),
        "age": numbers,
        "genres": st.one_of(st.none(), st.lists(scalars, max_size=4)),
        "plays": numbers,
        "taste": st.one_of(st.none(), st.just([]), st.lists(numbers, min_size=2, max_size=2)),
    }
)
ROW_SCHEMA = pa.schema(
    {
        "user_id": pa.int64(),
        "item_id": pa.string(),
        "domain_id": pa.string(),
        "age": pa.float64(),
        "genres": pa.list_(pa.string()),
        "plays": pa.float64(),
        "taste": pa.list_(pa.float64()),
    }
)


@settings(max_examples=100, deadline=None)
@given(training=st.lists(row, max_size=12), later=st.lists(row, max_size=12), min_count=st.integers(1, 2))
def test_a_loaded_encoder_encodes_any_value_within_bounds(training, later, min_count):
    fitted_on = pa.Table.from_pylist(training, ROW_SCHEMA)
    encoder = Encoder.fit(SIDES, fitted_on, domains=["a", "b"], min_count=min_count)
    again = Encoder.from_tables(json.loads(json.dumps(encoder.spec())), encoder.to_tables())
    width = encoder.field_shapes()[6].size
    table = pa.Table.from_pylist([r for r in later if width == 2 or not r["taste"]], ROW_SCHEMA)
    columns, same = encoder.encode(table), again.encode(table)

    assert again == encoder
    for name in ("categorical", "dense", "domain"):
        assert np.array_equal(getattr(columns, name), getattr(same, name))
    sizes = np.array([shape.size for shape in encoder.field_shapes() if shape.kind == "categorical"])
    assert np.all((columns.categorical >= 0) & (columns.categorical < sizes))
    assert np.array_equal(columns.categorical[:, 0] == 0, np.array(table["user_id"].is_null()))
    assert np.isfinite(columns.dense).all()
    assert np.isfinite(columns.vectors["taste"]).all() or not len(columns.vectors["taste"])
    assert columns.bags["genres"].max(initial=0) < encoder.field_shapes()[4].size
    assert set(columns.domain.tolist()) <= {-1, 0, 1}


@settings(max_examples=80, deadline=None)
@given(values=st.lists(st.one_of(st.none(), st.text(max_size=3)), max_size=30), data=st.data())
def test_every_training_value_decodes_to_itself_and_order_does_not_matter(values, data):
    shuffled = data.draw(st.permutations(values))
    encoder = fit_one("categorical", pa.array(values, pa.string()))
    known = encoder.to_tables()["x"]["value"].to_pylist()
    assert known == sorted(set(values) - {None}, key=lambda value: value.encode())
    decoded = [None if i == 0 else known[i - 2] for i in indices(encoder, pa.array(values, pa.string()))]
    assert decoded == values
    assert encoder == fit_one("categorical", pa.array(shuffled, pa.string()))


LISTS = contract_of(
    make_field("kind", "categorical", ("item_id",)),
    make_field("met", "bag", vocabulary="kind", match="kind", max_length="2"),
    make_field("met_ctr", "weights", weights="met", max_length="2"),
    make_field("place", "categorical"),
)


def lists(**columns: list[object]) -> pa.Table:
    rows = max(len(column) for column in columns.values())
    absent: dict[str, list[object]] = {"kind": ["a"], "met": [[]], "met_ctr": [[]], "place": [1]}
    return pa.table({name: columns.get(name, values * rows) for name, values in absent.items()})


def test_weights_stay_aligned_with_their_bag():
    table = lists(
        kind=["a", "b", "c", None, "c", "a"],
        met=[["c", None, "a", "b"], ["a"], ["b", "a"], None, [None, "c"], ["a", "b"]],
        met_ctr=[[0.1, 0.2, 0.3, 0.4], [0.5, 0.6], [0.7], None, [0.8, 0.9], [None, math.nan]],
    )
    encoder = Encoder.fit(LISTS, table, domains=[])
    columns = encoder.encode(table)
    assert columns.bags["met"].tolist() == [[4, 2], [2, 0], [3, 2], [0, 0], [4, 0], [2, 3]]
    expected = [[0.1, 0.3], [0.5, 0.6], [0.7, 0], [0, 0], [0.9, 0], [0, 0]]
    np.testing.assert_allclose(columns.vectors["met_ctr"], expected, atol=1e-7)
    tail = encoder.encode(table.slice(3))  # lists of a slice begin elsewhere in memory
    assert np.array_equal(tail.vectors["met_ctr"], columns.vectors["met_ctr"][3:])
    batch = encoder.assemble(
        [(encoder.encode(table.append_column("domain_id", [["d"] * 6])), np.array([4, 0]))]
    )
    assert np.array_equal(batch.vectors["met_ctr"].numpy(), columns.vectors["met_ctr"][[4, 0]])


def test_weights_are_no_wider_than_training_needed_and_know_their_bag():
    encoder = Encoder.fit(LISTS, lists(met=[["a"], ["b"]], met_ctr=[[1.0], [2.0]]), domains=[])
    shapes = {shape.name: shape for shape in encoder.field_shapes()}
    assert (shapes["met_ctr"].size, shapes["met_ctr"].partner) == (1, "met")
    assert (shapes["met"].partner, shapes["kind"].partner) == ("kind", "")
    later = encoder.encode(lists(met=[["b", "a"]], met_ctr=[[3.0, 4.0]]))
    assert later.vectors["met_ctr"].tolist() == [[3.0]]
    with pytest.raises(ContractError, match="'met_ctr' has type double but is encoded from lists"):
        encoder.encode(lists(met=[["a"]], met_ctr=[1.0]))


def test_a_shared_vocabulary_counts_the_values_of_both_fields():
    table = lists(kind=["a", "b", "b"], met=[["a", "c"], ["d"], ["c"]])
    encoder = Encoder.fit(LISTS, table, domains=[], min_count=2)
    shapes = {shape.name: shape.size for shape in encoder.field_shapes()}
    assert shapes["kind"] == shapes["met"] == 2 + 3 and shapes["place"] == 2 + 1
    columns = encoder.encode(table)  # a and b are known as c is, d is too rare
    assert columns.categorical[:, 0].tolist() == [2, 3, 3]
    assert columns.bags["met"].tolist() == [[2, 4], [1, 0], [4, 0]]


@pytest.mark.parametrize("of_brand", ["", "clicked"], ids=["a chain", "a circle"])
def test_fields_share_a_vocabulary_named_by_another_field(of_brand):
    contract = contract_of(
        make_field("clicked", "categorical", vocabulary="last"),
        make_field("last", "categorical", vocabulary="brand"),
        make_field("brand", "categorical", ("item_id",), **({"vocabulary": of_brand} if of_brand else {})),
    )
    table = pa.table({"clicked": ["a", "b"], "last": ["c", "c"], "brand": ["d", "a"]})
    encoder = Encoder.fit(contract, table, domains=[])
    assert {shape.size for shape in encoder.field_shapes()} == {2 + 4}


def test_a_vocabulary_of_texts_and_numbers_cannot_be_shared():
    with pytest.raises(ContractError, match=r"kind, met can't share.*int64 and string.*tag `vocabulary`"):
        Encoder.fit(LISTS, lists(kind=[1, 2], met=[["a"], []]), domains=[])


def test_weights_and_shared_vocabularies_survive_a_round_trip():
    table = lists(kind=["a", "b"], met=[["c"], ["a", "b"]], met_ctr=[[0.5], [1.0, 2.0]])
    encoder = Encoder.fit(LISTS, table, domains=["d"])
    again = Encoder.from_tables(json.loads(json.dumps(encoder.spec())), encoder.to_tables())
    assert again == encoder and again.field_shapes() == encoder.field_shapes()
    assert np.array_equal(again.encode(table).vectors["met_ctr"], encoder.encode(table).vectors["met_ctr"])
