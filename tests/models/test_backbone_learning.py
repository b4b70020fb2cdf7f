"""Every backbone learns: gradients reach all of it, and its interactions do what a linear model can't."""

import pytest
import torch
import torch.nn.functional as F

from mmlora.batch import Batch
from mmlora.errors import UsageError
from mmlora.models.builder import BACKBONES, build_model
from mmlora.models.embedding import FieldEmbedding
from mmlora.models.spec import FieldShape

ALL = pytest.mark.parametrize("backbone", sorted(BACKBONES))
# Their papers have no first-order term beside the interactions.
WITHOUT_FIRST_ORDER = {"autoint", "pnn", "opnn", "dcn", "dcn_v2"}


@ALL
@pytest.mark.parametrize("adaptation", ["none", "mlora", "moe_mlora"])
def test_a_gradient_reaches_every_parameter(make_spec, make_batch, make_model, backbone, adaptation):
    model = make_model(make_spec(backbone=backbone, adaptation=adaptation)).train()
    if backbone == "fibinet":
        model.backbone.senet.excite.data.abs_()  # as it starts: no field's weight is shut for good
    batch = make_batch()
    loss = F.binary_cross_entropy_with_logits(model(batch), torch.randint(0, 2, (64,)).float())
    loss.backward()
    parameters = {name: value for name, value in model.named_parameters() if value.numel()}
    unreached = {name for name, value in parameters.items() if value.grad is None or not value.grad.any()}
    assert unreached == ({"embedding.dense_weight"} if backbone in WITHOUT_FIRST_ORDER else set())
    # Of parameters stacked in one tensor each layer's, pair's and map's is reached; a ReLU may be shut.
    for name, value in model.backbone.named_parameters():
        if backbone != "autoint" and not name.startswith("senet"):
            assert value.grad.flatten(1).any(1).all(), name


@ALL
@pytest.mark.parametrize("kinds", [("dense",), ("categorical",), ("categorical", "dense"), ("bag", "vector")])
def test_one_or_two_fields_of_any_kind_make_a_model(make_spec, backbone, kinds):
    fields = tuple(FieldShape(kind, kind, 1 if kind == "dense" else 5) for kind in kinds)
    batch = Batch(
        categorical=torch.randint(0, 5, (6, kinds.count("categorical"))),
        dense=torch.randn(6, kinds.count("dense")),
        domain=torch.zeros(6, dtype=torch.int64),
        bags={"bag": torch.randint(0, 5, (6, 2))},
        vectors={"vector": torch.randn(6, 5)},
    )
    spec = make_spec(backbone=backbone, adaptation="none", fields=fields)
    if backbone == "fibinet" and kinds != ("bag", "vector"):
        with pytest.raises(UsageError, match=f"there is {len(kinds) - kinds.count('dense')}: add"):
            build_model(spec)
    else:
        assert torch.isfinite(build_model(spec).eval()(batch)).all()


@ALL
def test_rows_share_no_statistics(make_spec, make_batch, make_model, backbone):
    model, batch = make_model(make_spec(backbone=backbone, adaptation="none", dropout=0.0)), make_batch()
    alone = torch.cat([model.train()(batch.take(torch.tensor([row]))) for row in range(8)])
    torch.testing.assert_close(model.train()(batch)[:8], alone, rtol=1e-4, atol=1e-4)
    assert not any(isinstance(module, torch.nn.BatchNorm1d) for module in model.modules())


@ALL
def test_dense_fields_add_no_products(make_spec, backbone):
    def width(dense: int) -> int:
        many = tuple(FieldShape(f"dense_{number}", "dense", 1) for number in range(dense))
        fields = (*(FieldShape(name, "categorical", 9) for name in "abc"), *many)
        return build_model(make_spec(backbone=backbone, adaptation="none", fields=fields)).backbone.output_dim

    assert width(60) == width(0) + 60


def planted(rows: int = 512) -> tuple[Batch, torch.Tensor]:
    """The label is decided by whether two fields agree: neither of them says anything by itself."""
    values = torch.randint(2, 10, (rows, 3))
    label = (values[:, 0] % 2 == values[:, 1] % 2).float()
    return Batch(values, torch.zeros(rows, 0), torch.zeros(rows, dtype=torch.int64)), label


def fitted_loss(backbone: str) -> float:
    """Fit the backbone with a linear head in the tower's place, so that only its interactions can help."""
    embedding = FieldEmbedding([FieldShape(name, "categorical", 10) for name in "abc"], embedding_dim=4)
    made = BACKBONES[backbone](num_fields=3, embedding_dim=4, num_dense=0)
    head = torch.nn.LazyLinear(1)
    batch, label = planted()
    terms, x = made(embedding(batch))
    assert x.shape[1] == made.output_dim
    head(x)  # takes its width
    optimizer = torch.optim.Adam(
        [*embedding.parameters(), *made.parameters(), *head.parameters()], lr=0.03, fused=True
    )
    for _ in range(200):
        terms, x = made(embedding(batch))
        loss = F.binary_cross_entropy_with_logits(terms + head(x).squeeze(1), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def test_a_linear_model_misses_a_planted_interaction():
    assert fitted_loss("wdl") > 0.6


@pytest.mark.parametrize("backbone", sorted(set(BACKBONES) - {"wdl"}))
def test_interactions_find_a_planted_one_without_the_tower(backbone):
    assert fitted_loss(backbone) < 0.3
