"""The interaction blocks against DeepCTR-Torch's, on the same weights; skipped where that isn't installed."""

import pytest
import torch
from torch import Tensor

from mmlora.models.backbones.autoint import InteractingLayer
from mmlora.models.backbones.dcn import MatrixCross, VectorCross
from mmlora.models.backbones.deepfm import DeepFM
from mmlora.models.backbones.fibinet import BilinearInteraction, SENet
from mmlora.models.backbones.nfm import NFM
from mmlora.models.backbones.pnn import InnerProduct, OuterProduct
from mmlora.models.backbones.xdeepfm import CIN
from mmlora.models.embedding import Embedded

peer = pytest.importorskip("deepctr_torch.layers.interaction")

ROWS, FIELDS, DIM = 5, 6, 4
SHAPE = {"num_fields": FIELDS, "embedding_dim": DIM, "num_dense": 0}


@pytest.fixture
def fields() -> Tensor:
    return torch.randn(ROWS, FIELDS, DIM)


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs.reshape(ours.shape), rtol=1e-4, atol=1e-5)


def embedded(fields: Tensor) -> Embedded:
    return Embedded(fields, torch.zeros(ROWS, 0), torch.zeros(ROWS))


@torch.no_grad()
def test_deepfm(fields):
    close(DeepFM(**SHAPE)(embedded(fields))[0], peer.FM()(fields))


@torch.no_grad()
def test_nfm(fields):
    close(NFM(**SHAPE)(embedded(fields))[1], peer.BiInteractionPooling()(fields))


@torch.no_grad()
def test_autoint(fields):
    theirs = peer.InteractingLayer(DIM, head_num=2)
    ours = InteractingLayer(DIM, num_heads=2, head_dim=DIM // 2)
    pairs = zip(("query", "key", "value", "residual"), ("W_Query", "W_key", "W_Value", "W_Res"), strict=True)
    for name, their_name in pairs:
        weight = getattr(theirs, their_name).normal_()
        getattr(ours, name).copy_(weight.t())
    close(ours(fields), theirs(fields))


@torch.no_grad()
def test_pnn(fields):
    one_by_one = list(fields.split(1, 1))
    close(InnerProduct(FIELDS)(fields), peer.InnerProductLayer()(one_by_one))
    ours, theirs = OuterProduct(FIELDS, DIM), peer.OutterProductLayer(FIELDS, DIM)
    # Theirs is [D of the right field, pair, D of the left one].
    ours.kernel.copy_(theirs.kernel.permute(1, 2, 0))
    close(ours(fields), theirs(one_by_one))


@torch.no_grad()
@pytest.mark.parametrize(("cross", "name"), [(VectorCross, "vector"), (MatrixCross, "matrix")])
def test_dcn(fields, cross, name):
    x0 = fields.flatten(1)
    theirs, ours = peer.CrossNet(FIELDS * DIM, layer_num=2, parameterization=name), cross(FIELDS * DIM, 2)
    ours.weight.copy_(theirs.kernels.view(ours.weight.shape))
    ours.bias.copy_(theirs.bias.normal_().squeeze(2))
    close(ours(x0), theirs(x0))


@torch.no_grad()
def test_xdeepfm(fields):
    theirs = peer.CIN(FIELDS, layer_size=(8, 5), activation="linear", split_half=False)
    ours = CIN(FIELDS, (8, 5))
    for weight, conv in zip(ours.weights, theirs.conv1ds, strict=True):
        conv.bias.zero_()  # the paper has none
        weight.copy_(conv.weight.view(weight.shape))
    close(ours(fields), theirs(fields))


@torch.no_grad()
def test_senet(fields):
    ours, theirs = SENet(FIELDS, reduction=3), peer.SENETLayer(FIELDS, reduction_ratio=3)
    ours.squeeze.copy_(theirs.excitation[0].weight)
    ours.excite.copy_(theirs.excitation[2].weight)
    close(ours(fields), theirs(fields))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["all", "each", "interaction"])
def test_bilinear(fields, kind):
    ours, theirs = BilinearInteraction(FIELDS, DIM, kind=kind), peer.BilinearInteraction(FIELDS, DIM, kind)
    linears = [theirs.bilinear] if kind == "all" else list(theirs.bilinear)
    # With "each", theirs holds a matrix for the last field too, which is never a left one.
    for weight, linear in zip(ours.weight, linears, strict=kind != "each"):
        weight.copy_(linear.weight.t())
    close(ours(fields), theirs(fields))
