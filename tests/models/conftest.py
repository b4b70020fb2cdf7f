from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from mmlora.batch import Batch
from mmlora.models.builder import build_model
from mmlora.models.crosses.terms import CrossTerms
from mmlora.models.ctr import CTRModel
from mmlora.models.spec import FieldShape, ModelSpec

FIELDS = (
    FieldShape("user_id", "categorical", 12),
    FieldShape("item_id", "categorical", 9, "item"),
    FieldShape("domain_id", "categorical", 12, "domain"),
    FieldShape("item__genres", "bag", 7, "item"),
    FieldShape("user__ctr", "dense", 1),
    FieldShape("item__clicks", "dense", 1, "item"),
    FieldShape("user__embedding", "vector", 5),
)
NUM_DOMAINS = 4


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        yield


@pytest.fixture
def make_spec() -> Callable[..., ModelSpec]:
    """A small specification; the backbone ``wdl with crosses`` has cross terms as well."""

    def make(backbone: str = "wdl", **changes: Any) -> ModelSpec:
        name, _, crosses = backbone.partition(" with ")
        values = {
            "backbone": name,
            "crosses": bool(crosses),
            "adaptation": "moe_mlora",
            "fields": FIELDS,
            "num_domains": NUM_DOMAINS,
            "embedding_dim": 4,
            "hidden_units": (16, 8),
            "dropout": 0.5,
            "rank": 3,
            "alpha": 6.0,
        }
        return ModelSpec(**{**values, **changes})

    return make


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    def make(rows: int = 64, domains: tuple[int, ...] = (-1, 0, 1, 2, 3)) -> Batch:
        bags = torch.randint(2, 7, (rows, 3))
        bags[::3, 1:] = 0
        bags[::5] = 0
        domain = torch.tensor(domains)[torch.arange(rows) % len(domains)]
        users, items = torch.randint(0, 12, (rows,)), torch.randint(0, 9, (rows,))
        return Batch(
            categorical=torch.stack([users, items, domain + 2], 1),
            dense=torch.randn(rows, 2),
            domain=domain,
            bags={"item__genres": bags},
            vectors={"user__embedding": torch.randn(rows, 5)},
        )

    return make


@pytest.fixture
def make_model(make_spec: Callable[..., ModelSpec]) -> Callable[..., CTRModel]:
    """A model whose every parameter is random, so that nothing is 0 by its initial value.

    As after training, cross terms weigh missing values and absent domains 0.
    """

    def make(spec: ModelSpec, expert_domains: tuple[int, ...] = (0, 1, 2)) -> CTRModel:
        model = build_model(spec, expert_domains=() if spec.adaptation == "none" else expert_domains)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.3)
            if model.crosses is not None:
                _as_trained(model.crosses)
        return model.eval()

    return make


def _as_trained(crosses: CrossTerms) -> None:
    crosses.domain_user[0], crosses.domain_item[0] = 0.0, 0.0
    crosses.table[[term.start for term in crosses.terms]] = 0.0
    if crosses.history:
        crosses.history_weight.fill_(0.7)
    crosses.knots.copy_(torch.randn_like(crosses.knots).sort(1).values)
