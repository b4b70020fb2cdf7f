"""Pairs scored by side equal whole rows scored by the model, and keep their bits wherever they stand."""

from dataclasses import replace

import pytest
import torch

from mmlora.batch import Batch
from mmlora.errors import UsageError
from mmlora.models.builder import BACKBONES
from mmlora.models.folding import fold
from mmlora.models.side_plans.pair_model import PairModel
from mmlora.models.side_plans.pairs import GridPairs, ListedPairs
from mmlora.models.side_plans.parts import Part
from mmlora.models.spec import FieldShape
from mmlora.scoring import devices
from tests.offsets import OFFSETS, at_offset

USERS, ITEMS = 9, 7
# Sides are mixed among the fields, as a contract mixes them; the domain's go with the user's.
PLAIN = (
    FieldShape("user_id", "categorical", 12),
    FieldShape("item_id", "categorical", 9, "item"),
    FieldShape("domain_id", "categorical", 6, "domain"),
    FieldShape("user__age", "categorical", 5),
    FieldShape("item__year", "categorical", 5, "item"),
    FieldShape("user__tags", "bag", 6),
    FieldShape("item__genres", "bag", 7, "item"),
    FieldShape("item__embedding", "vector", 4, "item"),
    FieldShape("user__embedding", "vector", 5),
    FieldShape("item__clicks", "dense", 1, "item"),
    FieldShape("user__ctr", "dense", 1),
    FieldShape("item__ctr", "dense", 1, "item"),
)
# What only cross terms tell from the above: large fields, and fields of the user that name one of the item.
CROSSED = (
    FieldShape("user__city", "categorical", 70),
    FieldShape("item__maker", "categorical", 80, "item"),
    FieldShape("item__words", "bag", 75, "item"),
    *PLAIN,
    FieldShape("user__bought", "bag", 90),
    FieldShape("user__year", "categorical", 5, "user", "item__year"),
    FieldShape("user__genres", "bag", 7, "user", "item__genres"),
    FieldShape("user__met", "bag", 80, "user", "item__maker"),
    FieldShape("user__met_ctr", "weights", 3, "user", "user__met"),
    FieldShape("user__met_rows", "weights", 2, "user", "user__met"),
    FieldShape("user__searched", "bag", 75, "user", "item__words"),
    FieldShape("domain__genres", "bag", 7, "domain", "item__genres"),
    FieldShape("domain__genres_ctr", "weights", 3, "domain", "domain__genres"),
    FieldShape("user__taste", "vector", 4, "user", "item__embedding"),
    FieldShape("user__history", "history", 6, "user", "user__history.item"),
    FieldShape("user__history.item", "history", 6, "item"),
)
NEEDS_BFLOAT16 = pytest.mark.skipif(not devices.has_bfloat16("cpu"), reason="the processor has no bfloat16")
ALL_BACKBONES = pytest.mark.parametrize("backbone", sorted(BACKBONES))


def decides(role, field):
    return (field.side == "item") == (role == "item")


def part(role, fields):
    # Embedded fields stand as categorical, bags, vectors.
    embedded = [f for kind in ("categorical", "bag", "vector") for f in fields if f.kind == kind]
    dense = [field for field in fields if field.kind == "dense"]
    return Part(*(tuple(n for n, f in enumerate(held) if decides(role, f)) for held in (embedded, dense)))


def side(rows, role, fields):
    def held(*kinds):
        return [field for field in fields if field.kind in kinds and decides(role, field)]

    bags = {field.name: torch.randint(0, field.size, (rows, 3)) for field in held("bag")}
    for bag in bags.values():
        bag[::3] = 0
    domains = torch.full((rows, 1), 4)
    columns = [
        domains if field.name == "domain_id" else torch.randint(0, field.size, (rows, 1))
        for field in held("categorical")
    ]
    for column in columns[1:]:
        column[::4] = 0  # missing
    return Batch(
        categorical=torch.cat([torch.zeros(rows, 0, dtype=torch.int64), *columns], 1),
        dense=torch.randn(rows, len(held("dense"))),
        domain=torch.zeros(rows, dtype=torch.int64),
        bags=bags,
        vectors={field.name: torch.randn(rows, field.size) for field in held("vector", "weights", "history")},
    )


def whole(users, items, domain, fields):
    """All pairs as rows of all inputs, user by user."""
    rows, columns = torch.arange(USERS).repeat_interleave(ITEMS), torch.arange(ITEMS).repeat(USERS)
    u, i = users.take(rows), items.take(columns)

    def joined(kind, values):
        sides = [decides("item", field) for field in fields if field.kind == kind]
        order = sorted(range(len(sides)), key=lambda place: sides[place])
        return torch.cat(values, 1)[:, torch.tensor(order).argsort()]

    return Batch(
        categorical=joined("categorical", [u.categorical, i.categorical]),
        dense=joined("dense", [u.dense, i.dense]),
        domain=torch.full_like(rows, domain),
        bags={**u.bags, **i.bags},
        vectors={**u.vectors, **i.vectors},
    )


def sides(fields):
    return side(USERS, "user", fields), side(ITEMS, "item", fields)


def compiled(model, domain, users, items, fields, **options):
    parts = {role: part(role, fields) for role in ("user", "item")}
    pair_model = PairModel(model, domain=domain, **parts, **options)
    return pair_model, pair_model.side(users, "user"), pair_model.side(items, "item")


@pytest.fixture(params=[PLAIN, CROSSED], ids=["plain", "crosses"])
def fields(request):
    return request.param


@pytest.fixture
def make_wide(make_spec, make_model, fields):
    return lambda **changes: make_model(make_spec(fields=fields, crosses=fields is CROSSED, **changes))


def assert_same_logits(found, expected, fields=PLAIN):
    """Within 1e-5; of many crossed fields, within 1e-5 of the largest, as large random terms cancel there."""
    largest = 1.0 if fields is PLAIN else max(1.0, expected.abs().max().item())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * largest)


GRID = GridPairs(0, USERS * ITEMS, USERS * ITEMS, ITEMS)


@ALL_BACKBONES
@pytest.mark.parametrize("adaptation", ["none", "mlora", "moe_mlora"])
@torch.inference_mode()
def test_all_pairs_equal_the_whole_model(make_wide, fields, backbone, adaptation):
    model, (users, items) = make_wide(backbone=backbone, adaptation=adaptation), sides(fields)
    for domain in (-1, 1, 3):
        expected = model(whole(users, items, domain, fields))
        found = compiled(model, domain, users, items, fields)
        assert_same_logits(found[0].logits(GRID, *found[1:]), expected, fields)
    assert expected.std() > 0.1


@pytest.mark.parametrize("domain", [-1, 1])
@torch.inference_mode()
def test_cross_logits_of_all_pairs_are_the_models_cross_terms(make_spec, make_model, domain):
    model, (users, items) = make_model(make_spec(fields=CROSSED, crosses=True)), sides(CROSSED)
    pair_model, *tensors = compiled(model, domain, users, items, CROSSED)
    batch = whole(users, items, domain, CROSSED)
    expected = fold(model, domain).crosses(batch, None)
    found = pair_model.cross_logits(*tensors)
    assert found.shape == (USERS, ITEMS)
    assert_same_logits(found.flatten(), expected, CROSSED)
    with pytest.raises(UsageError, match="needs a model with cross terms"):
        compiled(make_model(make_spec(fields=PLAIN)), 1, *sides(PLAIN), PLAIN)[0].cross_logits(*tensors)


@ALL_BACKBONES
@pytest.mark.parametrize(
    "options",
    [
        {"gate": "sample"},
        {"gate": "both"},
        {"gate": "sample", "gate_per_layer": True},
        {"gate": "both", "gate_per_layer": True, "gate_top_k": 2},
        {"gate": "domain", "gate_per_layer": True, "gate_top_k": 2},
    ],
)
@torch.inference_mode()
def test_gates_of_every_kind_score_pairs_as_the_whole_model(make_wide, fields, backbone, options):
    model, (users, items) = make_wide(backbone=backbone, **options), sides(fields)
    found = compiled(model, 2, users, items, fields)
    expected = model(whole(users, items, 2, fields))
    assert_same_logits(found[0].logits(GRID, *found[1:]), expected, fields)


@ALL_BACKBONES
@torch.inference_mode()
def test_bits_of_a_pair_do_not_depend_on_its_place_in_a_block(make_wide, fields, backbone):
    model, (users, items) = make_wide(backbone=backbone, hidden_units=(64, 32)), sides(fields)
    pair_model, *tensors = compiled(model, 1, users, items, fields)
    total, rows = USERS * ITEMS, 32

    def scored(starts):
        found = torch.full((total,), torch.nan)
        for start in starts:
            count = min(rows, total - start)
            logits = pair_model.logits(GridPairs(start, count, rows, ITEMS), *tensors)
            found[start : start + count] = logits[:count]
        return found

    first = scored((0, 32))
    assert torch.equal(scored((0, 5, 31, 40)), first)
    order = torch.randperm(total)[:rows]
    listed = ListedPairs(torch.div(order, ITEMS, rounding_mode="floor"), order % ITEMS)
    assert torch.equal(pair_model.logits(listed, *tensors), first[order])


@ALL_BACKBONES
@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=NEEDS_BFLOAT16)])
@torch.inference_mode()
def test_bits_do_not_depend_on_where_weights_inputs_and_sides_lie(make_wide, fields, backbone, precision):
    model, given = make_wide(backbone=backbone, hidden_units=(64, 32)), sides(fields)
    parts = {role: part(role, fields) for role in ("user", "item")}

    def scored(offset):
        moved = at_offset(model, offset)
        pair_model = PairModel(moved, domain=1, **parts, precision=precision)
        found = [
            tuple(at_offset(tensor, offset) for tensor in pair_model.side(at_offset(batch, offset), role))
            for batch, role in zip(given, ("user", "item"), strict=True)
        ]
        return pair_model.logits(GRID, *found), found

    expected, tensors = scored(0)
    for offset in OFFSETS:
        logits, found = scored(offset)
        assert torch.equal(logits, expected), f"other bits at offset {offset}"
        for before, after in zip(tensors, found, strict=True):
            assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


@pytest.mark.parametrize("size", [1_000, 60_000], ids=["each its own", "hashed"])
@pytest.mark.parametrize("gate", ["domain", "sample"])
@torch.inference_mode()
def test_large_vocabularies_of_either_side_score_pairs_as_the_whole_model(make_spec, make_model, gate, size):
    # 60,000 values beside 5 or more others are above 2 ** 18 combinations, which share weights.
    fields = tuple(
        replace(f, size=size) if f.name in ("user_id", "item_id", "user__bought") else f for f in CROSSED
    )
    model = make_model(make_spec(fields=fields, crosses=True, gate=gate))
    users, items = sides(fields)
    for domain in (-1, 2):
        found = compiled(model, domain, users, items, fields)
        expected = model(whole(users, items, domain, fields))
        assert_same_logits(found[0].logits(GRID, *found[1:]), expected, fields)
    assert any(term.size < term.field.size * term.others for term in model.crosses.terms) == (size > 1_000)


@torch.inference_mode()
def test_a_side_without_rows_has_tensors_of_no_rows(make_wide, fields):
    pair_model, users, items = compiled(make_wide(gate="sample"), 1, *sides(fields), fields)
    empty = pair_model.side(side(0, "item", fields), "item")
    assert [tensor.shape[1:] for tensor in empty] == [tensor.shape[1:] for tensor in items]
    assert {len(tensor) for tensor in empty} == {0} and {len(tensor) for tensor in users} == {USERS}


def silenced(model):
    """Make backbone and tower what they are where their phase did not help."""
    with torch.no_grad():
        for weights in model.embedding.first_order:
            weights.zero_()
        last = model.tower.layers[-1]
        for parameter in (last.weight, last.bias, last.lora_b, last.lora_c):
            parameter.zero_()
    return model


@pytest.mark.parametrize("backbone", ["wdl", "nfm", "pnn", "opnn", "fibinet"])
@pytest.mark.parametrize("adaptation", ["none", "mlora", "moe_mlora"])
@torch.inference_mode()
def test_where_backbone_and_tower_are_silent_logits_keep_every_bit_without_them(
    make_spec, make_model, monkeypatch, backbone, adaptation
):
    spec = make_spec(fields=CROSSED, crosses=True, backbone=backbone, adaptation=adaptation)
    model, (users, items) = silenced(make_model(spec)), sides(CROSSED)
    batch = whole(users, items, 1, CROSSED)
    assert model.is_silent
    quick, *tensors = compiled(model, 1, users, items, CROSSED)
    found, passed = quick.logits(GRID, *tensors), model(batch)
    model.rest()
    assert torch.equal(model(batch), passed)
    monkeypatch.setattr(type(model), "is_silent", False)
    slow, *more = compiled(model, 1, users, items, CROSSED)
    assert len(more[0]) > len(tensors[0])
    assert torch.equal(slow.logits(GRID, *more), found) and found.std() > 0.1


@pytest.mark.parametrize("backbone", ["deepfm", "dcn", "xdeepfm", "autoint"])
def test_a_backbone_whose_own_terms_are_not_0_is_not_silent(make_spec, make_model, backbone):
    model = silenced(make_model(make_spec(fields=CROSSED, crosses=True, backbone=backbone)))
    assert not model.is_silent


def test_nothing_rests_beside_a_gate_that_sees_the_row(make_spec, make_model):
    model = silenced(make_model(make_spec(fields=CROSSED, crosses=True, gate="sample")))
    before = {name for name, _ in model.named_parameters()}
    model.rest()
    trained = {id(parameter) for parameter in model.expert_parameters()}
    assert model.is_silent
    assert any(id(model.get_parameter(n)) in trained for n in before if n.startswith("tower."))


@pytest.mark.parametrize("items", [1, 4, 7, 100])
def test_a_grid_holds_the_pairs_of_a_list(items):
    users, rows = 30, 40
    user, item = torch.randn(users, 3), torch.randn(items, 3)
    for start in range(0, users * items - rows, 9):
        for count in (1, 13, rows):
            places = torch.arange(start, start + count)
            listed = ListedPairs(torch.div(places, items, rounding_mode="floor"), places % items)
            grid = GridPairs(start, count, rows, items)
            for pairs in (grid, listed):
                assert torch.equal(pairs.users(user)[:count], user[listed.user_rows])
                assert torch.equal(pairs.items(item)[:count], item[listed.item_rows])
                product = pairs.combine(torch.mul, user, item)[:count]
                assert torch.equal(product, user[listed.user_rows] * item[listed.item_rows])
            assert not grid.users(user)[count:].any()


@ALL_BACKBONES
@pytest.mark.parametrize("gate", ["domain", "sample"])
@torch.inference_mode()
def test_a_side_may_decide_no_dense_value_and_only_one_field(make_spec, make_model, backbone, gate):
    fields = (FieldShape("user_id", "categorical", 12), FieldShape("item_id", "categorical", 9))
    model = make_model(make_spec(backbone=backbone, fields=fields, gate=gate))
    batch = Batch(torch.randint(0, 9, (5, 2)), torch.zeros(5, 0), torch.zeros(5, dtype=torch.int64))
    pair_model = PairModel(model, domain=0, user=Part((0,), ()), item=Part((1,), ()))
    user = pair_model.side(replace(batch, categorical=batch.categorical[:, :1]), "user")
    item = pair_model.side(replace(batch, categorical=batch.categorical[:, 1:]), "item")
    grid = pair_model.logits(GridPairs(0, 25, 25, 5), user, item).view(5, 5)
    torch.testing.assert_close(grid.diagonal(), model(batch), rtol=1e-5, atol=1e-5)


@ALL_BACKBONES
@pytest.mark.parametrize("gate", ["domain", "both"])
@torch.inference_mode()
def test_logits_of_bfloat16_are_near_and_as_fine_as_float32s(make_wide, fields, backbone, gate):
    model, (users, items) = make_wide(backbone=backbone, gate=gate), sides(fields)
    pair_model, *tensors = compiled(model, 2, users, items, fields, precision="bfloat16")
    found = pair_model.logits(GRID, *tensors)
    expected = model(whole(users, items, 2, fields))
    assert found.dtype == torch.float32
    assert 0 < (found - expected).abs().max() < 0.03 * expected.abs().max()
    # Not rounded to bfloat16's 8 bits at the end, which would make ties of near scores.
    assert not torch.equal(found, found.bfloat16().float())
    assert not torch.is_autocast_enabled("cpu")
