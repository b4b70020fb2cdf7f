"""Each interaction block against its paper's formula, written out in loops over single numbers."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from mmlora.models.backbones.autoint import AutoInt
from mmlora.models.backbones.dcn import DCN, MatrixCross, VectorCross
from mmlora.models.backbones.fibinet import BilinearInteraction, FiBiNET, SENet
from mmlora.models.backbones.nfm import NFM
from mmlora.models.backbones.pnn import PNN
from mmlora.models.backbones.xdeepfm import CIN, XDeepFM
from mmlora.models.embedding import Embedded

ROWS, FIELDS, DIM, DENSE = 3, 4, 3, 2
SHAPE = {"num_fields": FIELDS, "embedding_dim": DIM, "num_dense": DENSE}
PAIRS = [(i, j) for i in range(FIELDS) for j in range(i + 1, FIELDS)]
exactly = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12)


def embedded() -> Embedded:
    dense, linear = torch.randn(ROWS, DENSE), torch.randn(ROWS)
    return Embedded(torch.randn(ROWS, FIELDS, DIM).double(), dense.double(), linear.double())


def randomised(module: nn.Module) -> nn.Module:
    """The same module in float64, no parameter at its initial value."""
    for parameter in module.double().parameters():
        nn.init.normal_(parameter)
    return module


def beside(inputs: Embedded) -> Tensor:
    """The tower's input of the backbones that leave it as Wide & Deep has it."""
    return torch.cat([inputs.fields.flatten(1), inputs.dense], 1)


def inner(a: Tensor, b: Tensor) -> float:
    return sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))


def test_nfm_pools_the_products_of_all_pairs():
    inputs, nfm = embedded(), NFM(**SHAPE)
    terms, x = nfm(inputs)
    pooled = torch.zeros(ROWS, DIM, dtype=torch.float64)
    for row, v in enumerate(inputs.fields):
        for i, j in PAIRS:
            for d in range(DIM):
                pooled[row, d] += v[i, d] * v[j, d]
    exactly(x, torch.cat([pooled, inputs.dense], 1))
    assert torch.equal(terms, inputs.linear)
    assert nfm.output_dim == DIM + DENSE


def test_autoint_attends_in_every_head_of_every_layer():
    inputs = embedded()
    autoint = randomised(AutoInt(**SHAPE, num_layers=2, num_heads=2, head_dim=5))
    terms, x = autoint(inputs)
    for row in range(ROWS):
        v = list(inputs.fields[row])
        for layer in autoint.layers:
            v = interacting(layer, v)
        exactly(terms[row], (autoint.output[0] * torch.cat(v)).sum())
    exactly(x, beside(inputs))


def interacting(layer: nn.Module, v: list[Tensor]) -> list[Tensor]:
    """Equations 5 to 8 for one row: a list of fields in, a list of fields out."""
    out = []
    for m in range(len(v)):
        heads = []
        for h in range(layer.num_heads):
            of = slice(h * layer.head_dim, (h + 1) * layer.head_dim)
            similar = [math.exp(inner(layer.query[of] @ v[m], layer.key[of] @ v[k])) for k in range(len(v))]
            heads.append(sum(similar[k] / sum(similar) * (layer.value[of] @ v[k]) for k in range(len(v))))
        out.append(torch.clamp(torch.cat(heads) + layer.residual @ v[m], min=0))
    return out


def test_autoint_layers_have_the_papers_shapes():
    first, second, third = AutoInt(**SHAPE).layers
    assert first.query.shape == first.key.shape == first.value.shape == first.residual.shape == (64, DIM)
    assert second.query.shape == third.residual.shape == (64, 64)


def test_pnn_adds_the_inner_product_of_every_pair():
    inputs, pnn = embedded(), PNN(**SHAPE)
    terms, x = pnn(inputs)
    products = torch.tensor(
        [[inner(v[i], v[j]) for i, j in PAIRS] for v in inputs.fields], dtype=torch.float64
    )
    exactly(x, torch.cat([inputs.fields.flatten(1), products, inputs.dense], 1))
    assert torch.equal(terms, torch.zeros_like(terms))
    assert pnn.output_dim == x.shape[1] == FIELDS * DIM + len(PAIRS) + DENSE


def test_pnn_weighs_the_outer_product_of_every_pair():
    inputs, pnn = embedded(), randomised(PNN(**SHAPE, product="outer"))
    kernel = pnn.products.kernel
    assert kernel.shape == (len(PAIRS), DIM, DIM)
    products = torch.zeros(ROWS, len(PAIRS), dtype=torch.float64)
    for row, v in enumerate(inputs.fields):
        for pair, (i, j) in enumerate(PAIRS):
            for d in range(DIM):
                for e in range(DIM):
                    products[row, pair] += kernel[pair, d, e] * v[i, d] * v[j, e]
    _, x = pnn(inputs)
    exactly(x, torch.cat([inputs.fields.flatten(1), products, inputs.dense], 1))


@pytest.mark.parametrize("layers", [1, 3])
def test_dcn_crosses_by_vectors(layers):
    inputs, dcn = embedded(), randomised(DCN(**SHAPE, num_layers=layers))
    terms, x = dcn(inputs)
    exactly(x, beside(inputs))
    width = x.shape[1]
    assert dcn.cross.weight.shape == dcn.cross.bias.shape == (layers, width)
    for row, x0 in enumerate(x):
        xl = x0.tolist()
        for w, b in zip(dcn.cross.weight.tolist(), dcn.cross.bias.tolist(), strict=True):
            product = sum(xl[k] * w[k] for k in range(width))
            xl = [float(x0[d]) * product + b[d] + xl[d] for d in range(width)]
        exactly(terms[row].item(), sum(xl[d] * dcn.output[0, d].item() for d in range(width)))


@pytest.mark.parametrize("layers", [1, 3])
def test_dcn_v2_crosses_by_matrices(layers):
    inputs, dcn = embedded(), randomised(DCN(**SHAPE, num_layers=layers, cross=MatrixCross))
    terms, x = dcn(inputs)
    exactly(x, beside(inputs))
    width = x.shape[1]
    assert dcn.cross.weight.shape == (layers, width, width)
    for row, x0 in enumerate(x.tolist()):
        xl = x0
        for w, b in zip(dcn.cross.weight.tolist(), dcn.cross.bias.tolist(), strict=True):
            projected = [sum(w[d][k] * xl[k] for k in range(width)) + b[d] for d in range(width)]
            xl = [x0[d] * projected[d] + xl[d] for d in range(width)]
        exactly(terms[row].item(), sum(xl[d] * dcn.output[0, d].item() for d in range(width)))


def test_a_matrix_of_equal_rows_is_the_vector_cross():
    vector, matrix = randomised(VectorCross(5, 2)), MatrixCross(5, 2).double()
    with torch.no_grad():
        matrix.weight.copy_(vector.weight.unsqueeze(1).expand(2, 5, 5))
        vector.bias.zero_()
    x0 = torch.randn(4, 5).double()
    exactly(matrix(x0), vector(x0))


@pytest.mark.parametrize("maps", [(5,), (5, 2), (2, 3, 4)])
def test_xdeepfm_compresses_the_products_of_every_layer(maps):
    inputs, xdeepfm = embedded(), randomised(XDeepFM(**SHAPE, maps=maps))
    terms, x = xdeepfm(inputs)
    for row, fields in enumerate(inputs.fields.tolist()):
        pooled = compressed([weight.tolist() for weight in xdeepfm.cin.weights], fields)
        crossed = sum(p * w for p, w in zip(pooled, xdeepfm.output[0].tolist(), strict=True))
        exactly(terms[row].item(), inputs.linear[row].item() + crossed)
    exactly(x, beside(inputs))


def compressed(weights: list, x0: list) -> list[float]:
    """Equations 6 to 8 for one row: fields ``[m][D]`` -> pooled maps of all layers."""
    x, pooled = x0, []
    for weight in weights:
        x = [
            [
                sum(w[i][j] * x[i][d] * x0[j][d] for i in range(len(x)) for j in range(len(x0)))
                for d in range(DIM)
            ]
            for w in weight
        ]
        pooled += [sum(values) for values in x]
    return pooled


def test_xdeepfm_has_a_cin_of_the_papers_shapes():
    cin = XDeepFM(**SHAPE, maps=(7, 5, 6)).cin
    assert isinstance(cin, CIN)
    assert [tuple(weight.shape) for weight in cin.weights] == [
        (7, FIELDS, FIELDS),
        (5, 7, FIELDS),
        (6, 5, FIELDS),
    ]
    assert cin.output_dim == 7 + 5 + 6


def test_senet_squeezes_excites_and_reweighs():
    inputs, senet = embedded(), randomised(SENet(FIELDS, reduction=3))
    w1, w2 = senet.squeeze.tolist(), senet.excite.tolist()
    assert (len(w1), len(w1[0]), len(w2), len(w2[0])) == (2, FIELDS, FIELDS, 2)
    weighed = senet(inputs.fields)
    for row, v in enumerate(inputs.fields.tolist()):
        z = [sum(v[i]) / DIM for i in range(FIELDS)]
        hidden = [max(0.0, sum(w1[u][i] * z[i] for i in range(FIELDS))) for u in range(2)]
        for i in range(FIELDS):
            a = max(0.0, sum(w2[i][u] * hidden[u] for u in range(2)))
            exactly(weighed[row, i].tolist(), [a * value for value in v[i]])


@pytest.mark.parametrize("fields", [2, 3, 8])
def test_a_fresh_senet_leaves_no_field_out(fields):
    weighed = SENet(fields, reduction=3)(torch.randn(200, fields, DIM))
    assert (weighed.abs().sum((0, 2)) > 0).all()


@pytest.mark.parametrize(
    ("kind", "matrices"), [("all", 1), ("each", FIELDS - 1), ("interaction", len(PAIRS))]
)
def test_bilinear_products_share_their_matrices_by_kind(kind, matrices):
    fields, bilinear = embedded().fields, randomised(BilinearInteraction(FIELDS, DIM, kind=kind))
    assert bilinear.weight.shape == (matrices, DIM, DIM)
    weight, out = bilinear.weight.tolist(), bilinear(fields).view(ROWS, len(PAIRS), DIM)
    for row, v in enumerate(fields.tolist()):
        for pair, (i, j) in enumerate(PAIRS):
            w = weight[{"all": 0, "each": i, "interaction": pair}[kind]]
            for d in range(DIM):
                expected = sum(v[i][k] * w[k][d] for k in range(DIM)) * v[j][d]
                exactly(out[row, pair, d].item(), expected)


def test_fibinet_feeds_products_of_fields_and_of_weighed_fields():
    inputs, fibinet = embedded(), randomised(FiBiNET(**SHAPE))
    terms, x = fibinet(inputs)
    plain = fibinet.bilinear(inputs.fields)
    weighed = fibinet.weighed_bilinear(fibinet.senet(inputs.fields))
    assert torch.equal(x, torch.cat([plain, weighed, inputs.dense], 1))
    assert torch.equal(terms, inputs.linear)
    assert fibinet.output_dim == x.shape[1] == 2 * len(PAIRS) * DIM + DENSE
