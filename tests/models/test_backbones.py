import torch

from mmlora.models.backbones.deepfm import DeepFM
from mmlora.models.backbones.wdl import WDL
from mmlora.models.embedding import Embedded

SHAPE = {"num_fields": 3, "embedding_dim": 4, "num_dense": 2}


def embedded() -> Embedded:
    torch.manual_seed(0)
    return Embedded(torch.randn(5, 3, 4), torch.randn(5, 2), torch.randn(5))


def test_wdl_adds_first_order_weights_to_a_tower_over_all_fields():
    inputs, wdl = embedded(), WDL(**SHAPE)
    terms, x = wdl(inputs)
    assert torch.equal(terms, inputs.linear)
    assert x.shape == (5, wdl.output_dim)
    assert torch.equal(x, torch.cat([inputs.fields.flatten(1), inputs.dense], 1))


def test_deepfm_adds_every_pair_of_fields():
    inputs, deepfm = embedded(), DeepFM(**SHAPE)
    terms, x = deepfm(inputs)
    v = inputs.fields
    pairs = sum((v[:, i] * v[:, j]).sum(1) for i in range(3) for j in range(i + 1, 3))
    torch.testing.assert_close(terms, inputs.linear + pairs)
    assert x.shape == (5, deepfm.output_dim)
