"""Gradients by slices and threads are those of the whole batch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmlora import metrics
from mmlora.models.builder import BACKBONES, build_model
from mmlora.models.gate import load_balance
from mmlora.models.spec import FieldShape
from mmlora.training.epoch import train_epoch
from mmlora.training.gradients import gradients_of
from mmlora.training.loop import predict
from tests.offsets import OFFSETS, at_offset


@pytest.fixture
def model(make_training_spec):
    torch.manual_seed(0)
    model = build_model(make_training_spec(adaptation="moe_mlora"), expert_domains=[0, 1, 2])
    with torch.no_grad():  # away from the zeros that experts start at
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model.eval()


def _plain(model, batch, balance=0.0):
    """Gradients by autograd on the whole batch, by name."""
    logits, gates = model.forward_with_gates(batch)
    loss = F.binary_cross_entropy_with_logits(logits, batch.label)
    if balance:
        loss = loss + balance * torch.stack([load_balance(weights) for weights in gates]).mean()
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, [*named.values()], materialize_grads=True)
    return loss.item(), dict(zip(named, found, strict=True))


def _ours(model, *batches, balance=0.0, **options):
    """The same, of the last of some batches, by slices."""
    with gradients_of(model, precision="float32", balance=balance, **options) as gradients:
        losses = [gradients(batch).item() for batch in batches]
        return losses[-1], {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def _assert_equal(found, expected):
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("rows", [2, 1001])
def test_smoothed_labels_pull_scores_towards_one_half(model, data, rows):
    batch = data.batch(np.arange(rows))
    smoothed = replace(batch, label=batch.label * 0.8 + 0.1)
    _assert_equal(_ours(model, batch, label_smoothing=0.2), _plain(model, smoothed))


@pytest.mark.parametrize("rows", [1, 2, 1001, 2400])
@pytest.mark.parametrize("balance", [0.0, 0.3])
def test_gradients_equal_plain_autograd(model, data, rows, balance):
    batch = data.batch(np.arange(rows))
    _assert_equal(_ours(model, batch, balance=balance), _plain(model, batch, balance))


def test_a_batch_does_not_affect_the_next_batchs_gradients(make_training_spec, data):
    """Also where the table is so large that only the rows that were read are put back to 0."""
    user, *rest = make_training_spec().fields
    large = build_model(make_training_spec(fields=(FieldShape(user.name, "categorical", 50_000), *rest)))
    for model in (large, build_model(make_training_spec())):
        first, second = data.batch(np.arange(300)), data.batch(np.arange(300, 420))
        _assert_equal(_ours(model.eval(), first, second), _plain(model, second))


def test_frozen_parameters_get_no_gradient(model, data):
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in model.expert_parameters():
        parameter.requires_grad_(True)
    batch = data.batch(np.arange(1500))
    found = _ours(model, batch)
    assert found[1].keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    _assert_equal(found, _plain(model, batch))


def test_threads_and_order_of_execution_change_no_bit(model, data):
    """Dropout included: a slice's mask is its own."""
    model.train()

    def drawn(threads):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        torch.manual_seed(3)
        try:
            return _ours(model, data.batch(np.arange(2400)))
        finally:
            torch.set_num_threads(before)

    one, three = drawn(1), drawn(3)
    assert one[0] == three[0]
    assert all(torch.equal(one[1][name], three[1][name]) for name in one[1])


@pytest.mark.parametrize("backbone", sorted(BACKBONES))
def test_where_weights_and_batch_lie_changes_no_bit(make_training_spec, data, backbone):
    torch.manual_seed(0)
    fields = (*make_training_spec().fields, FieldShape("user__embedding", "vector", 5))
    spec = make_training_spec(backbone=backbone, fields=fields)
    model = build_model(spec, expert_domains=[0, 1, 2]).train()
    batch = replace(data.batch(np.arange(1100)), vectors={"user__embedding": torch.randn(1100, 5)})

    def drawn(offset):
        torch.manual_seed(3)
        return _ours(at_offset(model, offset), at_offset(batch, offset))

    expected = drawn(0)
    for offset in OFFSETS[1:]:
        found = drawn(offset)
        assert found[0] == expected[0] and found[1].keys() == expected[1].keys()
        assert all(torch.equal(found[1][name], value) for name, value in expected[1].items()), offset


def test_torchs_threads_are_restored_and_gradients_freed(model, data):
    threads = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), gradients_of(model, precision="float32", balance=0.0) as gradients:
        gradients(data.batch(np.arange(10)))
        raise ZeroDivisionError
    assert torch.get_num_threads() == threads
    assert all(parameter.grad is None for parameter in model.parameters())


def test_bfloat16_learns_as_float32_does(make_training_spec, make_data):
    data = make_data(rows=12_000)
    found = {}
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(1)
        model = build_model(make_training_spec(adaptation="none")).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)
        for epoch in range(3):
            order = np.random.default_rng(epoch).permutation(data.rows("train"))
            train_epoch(model, optimizer, data, order, 512, precision=precision)
        assert all(parameter.dtype is torch.float32 for parameter in model.parameters())
        logits, labels = predict(model, data, data.rows("validation"))
        found[precision] = metrics.auc(labels, logits)
    assert found["float32"] > 0.6
    assert found["bfloat16"] == pytest.approx(found["float32"], abs=0.005)
