"""Inputs of every kind count in every backbone; a pretrained vector is data, not a weight."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmlora.models.builder import BACKBONES, build_model
from mmlora.models.spec import FieldShape
from mmlora.training.epoch import train_epoch

ALL_BACKBONES = pytest.mark.parametrize("backbone", sorted(BACKBONES))


class _Rows:
    """Training data that hands out the same batch: its own tensors, so that a write into them would show."""

    def __init__(self, batch):
        self._batch = batch

    def batch(self, rows):
        return self._batch


def other(batch, kind):
    """The batch with other values in the inputs of one kind."""
    if kind == "categorical":
        return replace(batch, categorical=(batch.categorical + 1) % 9)
    if kind == "dense":
        return replace(batch, dense=batch.dense + 1.0)
    if kind == "bag":
        return replace(batch, bags={name: (bag + 3) % 7 for name, bag in batch.bags.items()})
    return replace(batch, vectors={name: value + 1.0 for name, value in batch.vectors.items()})


@ALL_BACKBONES
@pytest.mark.parametrize("kind", ["categorical", "bag", "vector", "dense"])
def test_every_kind_of_field_counts(make_spec, make_batch, make_model, backbone, kind):
    model, batch = make_model(make_spec(backbone=backbone)), make_batch(20)
    # Where PNN's whole tower is below 0, a row keeps its score: only the tower sees a vector there.
    assert (model(other(batch, kind)) != model(batch)).sum() >= 18


@ALL_BACKBONES
@pytest.mark.parametrize("adaptation", ["none", "mlora", "moe_mlora"])
def test_training_learns_from_vectors_and_leaves_them_as_they_came(
    make_spec, make_batch, backbone, adaptation
):
    # The vector is a direction, and its sign is the label: nothing else tells it.
    fields = (FieldShape("user_id", "categorical", 12), FieldShape("user__embedding", "vector", 5))
    batch, direction = make_batch(128, domains=(0, 1, 2)), torch.randn(5)
    vectors = batch.vectors["user__embedding"]
    batch = replace(
        batch,
        categorical=batch.categorical[:, :1],
        dense=torch.zeros(128, 0),
        bags={},
        label=(vectors @ direction > 0).float(),
    )
    before = batch.map(torch.clone)
    spec = make_spec(backbone=backbone, adaptation=adaptation, fields=fields, dropout=0.0)
    model = build_model(spec, expert_domains=() if adaptation == "none" else (0, 1, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = [train_epoch(model, optimizer, _Rows(batch), np.arange(128), 128) for _ in range(40)]

    assert losses[-1] < 0.5 * losses[0]
    assert torch.equal(vectors, before.vectors["user__embedding"])
    assert torch.equal(batch.categorical, before.categorical)
    assert not vectors.requires_grad
    assert not any(value.shape == vectors.shape for value in model.state_dict().values())
