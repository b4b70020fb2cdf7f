"""Fitting the cross terms: gradients, precisions, what is learned, and what phase 1 makes of it."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from mmlora import metrics
from mmlora.batch import Batch
from mmlora.models.builder import build_model
from mmlora.models.spec import FieldShape
from mmlora.training import epoch
from mmlora.training.crosses import CrossFit, passes_over
from mmlora.training.evidence import weigh_backbone
from mmlora.training.observer import SilentObserver
from mmlora.training.phases import train_backbone, train_crosses, train_expert, train_joint

SILENT = SilentObserver()
ROWS, DOMAINS, KINDS = 4000, 3, 6
FIELDS = (
    FieldShape("user_id", "categorical", 72),
    FieldShape("item_id", "categorical", 82, "item"),
    FieldShape("domain_id", "categorical", DOMAINS + 2, "domain"),
    FieldShape("item__kind", "categorical", KINDS + 2, "item"),
    FieldShape("item__noise", "categorical", KINDS + 2, "item"),
    FieldShape("user__interests", "bag", KINDS + 2, "user", "item__kind"),
    FieldShape("user__strength", "weights", 2, "user", "user__interests"),
    FieldShape("user__age", "dense", 1),
    FieldShape("item__price", "dense", 1, "item"),
)


@dataclass
class Rows:
    """Training data that is one batch of all rows."""

    all: Batch
    split: np.ndarray
    num_domains: int = DOMAINS

    @property
    def domain(self):
        return self.all.domain.numpy()

    def rows(self, split):
        return np.flatnonzero(self.split == ("train", "validation", "test").index(split))

    def batch(self, rows):
        return self.all.take(torch.from_numpy(np.asarray(rows)))


def make_rows(seed=0):
    """A domain likes some kinds of items, a user the kinds of their interests, all a middling price."""
    draw = np.random.default_rng(seed)
    kinds, noise = draw.integers(0, KINDS, 80), draw.integers(0, KINDS, 80)
    interests = np.stack([draw.choice(KINDS, 2, replace=False) for _ in range(70)])
    strength, prices, ages = draw.random((70, 2)), draw.normal(size=80), draw.normal(size=70)
    users, items = draw.integers(0, 70, ROWS), draw.integers(0, 80, ROWS)
    domain = draw.integers(0, DOMAINS, ROWS)
    taste = np.array([[2, -2, 0, 1, -1, 0], [-2, 2, 1, 0, 0, -1], [0, 0, -1, -1, 1, 1]])
    likes = (interests[users] == kinds[items][:, None]).any(1)
    generous = draw.normal(size=70)[users]
    logit = generous + taste[domain, kinds[items]] + 2.5 * likes - 1.0 - 0.5 * (prices[items] ** 2 - 1)
    label = draw.random(ROWS) < 1 / (1 + np.exp(-logit))
    codes = np.stack([users, items, domain, kinds[items], noise[items]], 1) + 2
    return Rows(
        Batch(
            categorical=torch.from_numpy(codes),
            dense=torch.from_numpy(np.stack([ages[users], prices[items]], 1).astype(np.float32)),
            domain=torch.from_numpy(domain),
            bags={"user__interests": torch.from_numpy(interests[users] + 2)},
            vectors={"user__strength": torch.from_numpy(strength[users].astype(np.float32))},
            label=torch.from_numpy(label.astype(np.float32)),
        ),
        split=draw.choice(3, ROWS, p=[0.7, 0.15, 0.15]),
    )


@pytest.fixture
def make_spec(make_training_spec):
    def make(**changes):
        return make_training_spec(**{"fields": FIELDS, "num_domains": DOMAINS, "crosses": True, **changes})

    return make


@pytest.fixture(scope="module")
def rows():
    return make_rows()


def wauc(model, data, part="test"):
    rows = data.rows(part)
    batch = data.batch(rows)
    with torch.inference_mode():
        return metrics.wauc(batch.label.numpy(), model.eval()(batch).numpy(), data.domain[rows])


def model_of(spec, state):
    model = build_model(spec)
    model.load_crosses(state)
    return model.eval()


def first_order_wauc(data):
    """The wauc of a logistic regression on one-hot values, domains, interests and numbers."""

    def columns(batch):
        sizes = [field.size for field in FIELDS if field.kind == "categorical"]
        hot = [torch.nn.functional.one_hot(batch.categorical[:, n], s) for n, s in enumerate(sizes)]
        bag = torch.nn.functional.one_hot(batch.bags["user__interests"], KINDS + 2).sum(1)
        return torch.cat([*hot, bag, batch.dense, batch.dense**2], 1).float()

    train, test = data.batch(data.rows("train")), data.batch(data.rows("test"))
    x = columns(train)
    weight = torch.zeros(x.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=40)

    def loss():
        optimizer.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(x @ weight, train.label)
        value = value + 1e-3 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return metrics.wauc(test.label.numpy(), (columns(test) @ weight).detach().numpy(), test.domain.numpy())


def test_interactions_of_domain_and_interests_with_the_item_are_learned(rows, make_spec, options):
    result = train_crosses(make_spec(), rows, options, SILENT)
    model = model_of(make_spec(), result.state)
    assert wauc(model, rows) > first_order_wauc(rows) + 0.05
    assert result.report.phase == "crosses" and result.report.helped
    assert result.report.epochs == passes_over(len(rows.rows("train"))) == 12
    assert wauc(model, rows, "validation") == pytest.approx(result.report.best_metric, abs=1e-9)


def test_precisions_rise_for_useless_pairs_and_stay_low_for_useful_ones(rows, make_spec, options):
    model = model_of(make_spec(), train_crosses(make_spec(), rows, options, SILENT).state)
    names = model.crosses.groups()[1]
    precision = dict(zip(names, model.crosses.precision.tolist(), strict=True))
    assert precision["constant"] == 0
    first = 30  # where all begin
    assert precision["domain x item__noise"] > 2 * first > 2 * precision["domain x item__kind"]
    assert precision["user__age x item__price"] > 2 * first > 2 * precision["user__interests . item__kind"]
    assert precision["item__price, by quantiles"] < 0.1 * precision["domain x user__age, by quantiles"]


@pytest.mark.parametrize("squared", [False, True], ids=["gradient", "curvature"])
def test_sums_over_rows_equal_autograd(rows, make_spec, squared):
    crosses = build_model(make_spec()).crosses
    batch = rows.batch(np.arange(40))
    batch.domain[::5] = -1
    batch.categorical[::7, 0] = 0
    with torch.no_grad():
        for parameter in crosses.parameters():
            parameter.normal_()
        crosses.knots.copy_(torch.randn_like(crosses.knots).sort(1).values)
    inputs, by_row = crosses.inputs(batch), torch.rand(40)
    fit = CrossFit(crosses, 40)
    found = fit.sums(inputs, by_row, squared=squared)

    names, parameters = zip(*fit.parameters.items(), strict=True)
    expected = [torch.zeros_like(parameter) for parameter in parameters]
    for row, logit in enumerate(crosses.backbone(inputs)):
        for total, slope in zip(
            expected, torch.autograd.grad(logit, parameters, retain_graph=True), strict=True
        ):
            total += by_row[row] * (slope**2 if squared else slope)
    for name, total in zip(names, expected, strict=True):
        if name in ("domain_user", "domain_item"):
            total[0] = 0.0
        elif name == "table":
            total[fit.held] = 0.0
        torch.testing.assert_close(found[name], total, rtol=1e-5, atol=1e-5, msg=name)


def test_weights_of_missing_values_stay_zero(rows, make_spec, options):
    data = replace(rows, all=rows.all.map(torch.clone))
    data.all.categorical[::7, :2] = 0
    model = model_of(make_spec(), train_crosses(make_spec(), data, options, SILENT).state)
    crosses = model.crosses
    assert not crosses.domain_user[0].any() and not crosses.domain_item[0].any()
    assert not crosses.table[[term.start for term in crosses.terms]].any() and crosses.table.any()


def test_same_seed_same_weights(rows, make_spec, options):
    one, two, other = (
        train_crosses(make_spec(), rows, replace(options, seed=seed), SILENT).state for seed in (0, 0, 1)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["crosses.weight"], other["crosses.weight"])


def _without(data, *names):
    """The rows and their fields without some."""
    kept = [field for field in FIELDS if field.name not in names]

    def columns(kind):
        return [n for n, f in enumerate(f for f in FIELDS if f.kind == kind) if f in kept]

    batch = replace(
        data.all,
        categorical=data.all.categorical[:, columns("categorical")],
        dense=data.all.dense[:, columns("dense")],
    )
    return replace(data, all=batch), tuple(kept)


@pytest.mark.parametrize(
    "dropped",
    [
        ("user__age", "item__price"),
        ("domain_id",),
        tuple(field.name for field in FIELDS if field.side == "item"),
        tuple(field.name for field in FIELDS if field.name != "item_id"),
    ],
    ids=["no numbers", "no domain", "no item", "one field"],
)
def test_fields_of_some_kinds_may_be_absent(rows, make_spec, options, dropped):
    data, fields = _without(rows, *dropped)
    spec = make_spec(fields=fields)
    result = train_crosses(spec, data, options, SILENT)
    assert all(torch.isfinite(value).all() for value in result.state.values())
    assert result.report.best_metric > 0.52
    batch = data.batch(data.rows("test"))
    logits, moved = (
        model_of(spec, result.state)(b) for b in (batch, replace(batch, domain=batch.domain * 0))
    )
    assert torch.equal(logits, moved) == ("domain_id" in dropped)


def test_the_backbone_starts_from_the_cross_terms_and_leaves_them_as_they_are(rows, make_spec, options):
    spec = make_spec()
    fitted = train_crosses(spec, rows, options, SILENT)
    before = {name: value.clone() for name, value in fitted.state.items()}
    one = replace(options, max_epochs=1)
    backbone = train_backbone(spec, rows, one, SILENT, crosses=fitted.state)
    assert backbone.report.start_metric == pytest.approx(fitted.report.history[-1].metric, abs=1e-6)
    expert = train_expert(spec, backbone.state, rows, domain=1, options=one, observer=SILENT)
    assert {"crosses.lora_a", "crosses.lora_b"} <= expert.state.keys()
    joint = train_joint(spec, [0, 1], rows, one, SILENT, crosses=fitted.state)
    for name, value in before.items():
        for state in (fitted.state, backbone.state, joint.state):
            assert torch.equal(state[name], value), name


def test_blocks_of_frozen_rows_train_the_same_expert(rows, make_spec, options, monkeypatch):
    spec, one = make_spec(backbone="wdl", adaptation="mlora"), replace(options, max_epochs=2, batch_size=64)
    fitted = train_crosses(spec, rows, one, SILENT)
    silent = train_backbone(spec, rows, one, SILENT, crosses=fitted.state, epochs=0).state

    def train(block_rows):
        monkeypatch.setattr(epoch, "BLOCK_ROWS", block_rows)
        return train_expert(spec, silent, rows, domain=1, options=one, observer=SILENT, epochs=2).state

    many, single = train(1024), train(1)
    assert many["crosses.lora_b"].abs().max() > 1e-3
    for name, value in many.items():
        torch.testing.assert_close(value, single[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("noisy", [True, False])
def test_a_backbone_is_kept_if_it_gains_more_than_noise(rows, make_spec, options, noisy):
    fitted = train_crosses(make_spec(), rows, options, SILENT) if noisy else None
    model = build_model(make_spec())
    if fitted:
        model.load_crosses(fitted.state)
    start = model.backbone_state()
    with torch.no_grad():
        if noisy:  # the start's own logits, a little shaken
            model.tower.layers[-1].weight.normal_(std=1e-3)
        else:  # trained on the cross terms' start, which knows nothing
            trained = train_backbone(make_spec(crosses=False), rows, options, SILENT).state
            model.load_backbone({**start, **trained})
    before = model.backbone_state()
    gain = weigh_backbone(model, start, rows, rows.rows("validation"), seed=0)
    assert gain.kept is not noisy and gain.wauc is not None
    for name, value in model.backbone_state().items():
        assert torch.equal(value, (start if noisy else before)[name]), name


def test_a_backbone_that_gains_nothing_over_cross_terms_leaves_its_start(rows, make_spec, options):
    fitted = train_crosses(make_spec(), rows, options, SILENT)
    report = train_backbone(
        make_spec(), rows, replace(options, learning_rate=1e-5, max_epochs=1), SILENT, crosses=fitted.state
    ).report
    assert not report.helped and report.best_epoch == 0
    assert report.best_metric == report.start_metric


def test_a_backbone_beside_cross_terms_stops_after_the_first_epoch_without_a_gain(rows, make_spec, options):
    fitted = train_crosses(make_spec(), rows, options, SILENT)
    patient = replace(options, learning_rate=3e-2, max_epochs=8, patience=8)
    report = train_backbone(make_spec(), rows, patient, SILENT, crosses=fitted.state).report
    metrics = [fitted.report.history[-1].metric, *(epoch.metric for epoch in report.history)]
    gains = [metric > max(metrics[:epoch]) for epoch, metric in enumerate(metrics) if epoch]
    assert all(gains[:-1]) and not gains[-1]
