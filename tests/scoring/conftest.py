"""A small made-up world: a contract, its features, an encoder fitted on them, a model with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from mmlora.candidates.pairs import Candidates, PairIndex
from mmlora.encoding import Encoder
from mmlora.models.builder import build_model
from mmlora.models.calibration import Calibration
from mmlora.models.ctr import CTRModel
from mmlora.models.spec import FieldShape, ModelSpec
from mmlora.schema import FeatureContract, FeatureField, IdTypes
from mmlora.scoring.score import LocalEngine, SideFeatures, Staged, score_candidates

DOMAINS = ("east", "west")
ON = date(2024, 3, 1)

CONTRACT = FeatureContract(
    "small",
    (
        FeatureField("user_id", "", ("user_id",), "INT64", "categorical"),
        FeatureField("item_id", "", ("item_id",), "INT64", "categorical"),
        FeatureField("domain_id", "", ("domain_id",), "STRING", "categorical"),
        FeatureField("item__price", "item", ("item_id",), "FLOAT", "dense"),
        FeatureField("user__age", "user", ("user_id",), "INT64", "categorical"),
        FeatureField("user__clicks", "user_domain", ("user_id", "domain_id"), "FLOAT", "dense"),
        FeatureField("item__genres", "item", ("item_id",), "STRING_LIST", "bag"),
        FeatureField("user__taste", "user", ("user_id",), "FLOAT_LIST", "vector"),
        FeatureField("domain__size", "domain", ("domain_id",), "FLOAT", "dense"),
        FeatureField("item__ctr", "item_domain", ("item_id", "domain_id"), "FLOAT", "dense"),
    ),
)


@dataclass
class World:
    """Everything that a load needs but its candidates; ``features`` follow the candidates."""

    ids: IdTypes
    encoder: Encoder
    model: CTRModel
    calibration: Calibration
    domain: str = "west"
    on: date = ON

    def features(self, candidates: Candidates, domain: str | None = None) -> SideFeatures:
        return side_features(candidates.users, candidates.items, domain or self.domain)

    def score(self, candidates: Candidates, folder: Path, **options: Any) -> Staged:
        """Score; ``threads`` and ``memory`` (bytes) are the local engine's."""
        given: dict[str, Any] = {"top_k": 5, "block_rows": 256, "domain": self.domain} | options
        local = {name: given.pop(name) for name in ("threads", "memory") if name in given}
        given["engine"] = given.get("engine") or LocalEngine(**{"device": "cpu"} | local)
        return score_candidates(
            candidates,
            model=self.model,
            encoder=self.encoder,
            calibration=self.calibration,
            features=self.features(candidates, given["domain"]),
            ids=self.ids,
            on=ON,
            folder=folder,
            **given,
        )

    def all_scores(self, candidates: Candidates) -> np.ndarray:
        """Every pair's score by one forward pass over whole rows, not by sides: ``[U, I]``."""
        features, users, items = self.features(candidates), len(candidates.users), len(candidates.items)
        user_rows = pa.array(np.repeat(np.arange(users), items))
        item_rows = pa.array(np.tile(np.arange(items), users))
        rows = features.users.take(user_rows)
        for name in features.items.column_names:
            rows = rows.append_column(name, features.items.column(name).take(item_rows))
        for name in features.domain.column_names:
            rows = rows.append_column(
                name, features.domain.column(name).take(pa.array(np.zeros(len(user_rows), int)))
            )
        whole = self.encoder.encode(rows)
        batch = self.encoder.assemble([(whole, np.arange(len(user_rows)))])
        with torch.inference_mode():
            scores = self.calibration.apply(self.model(batch), batch.domain)
        return scores.reshape(users, items).numpy()


def _noise(ids: pa.Array, salt: int) -> np.ndarray:
    """A made-up number an id, in [0, 1), the same wherever the id comes."""
    return np.array([(hash_of(str(value)) * (salt + 7919)) % 10007 / 10007 for value in ids.to_pylist()])


def hash_of(text: str) -> int:
    return sum((place + 1) * ord(letter) * 31 for place, letter in enumerate(text)) + 17


def side_features(users: pa.Array, items: pa.Array, domain: str) -> SideFeatures:
    genres = ["drama", "comedy", "war", "noir"]
    return SideFeatures(
        users=pa.table(
            {
                "user_id": users,
                "user__age": pa.array((_noise(users, 1) * 9).astype(np.int64)),
                "user__clicks": pa.array(_noise(users, 2) * 3 + len(domain), pa.float32()),
                "user__taste": pa.array(
                    [[a, b] for a, b in zip(_noise(users, 3), _noise(users, 4), strict=True)],
                    pa.list_(pa.float32()),
                ),
            }
        ),
        items=pa.table(
            {
                "item_id": items,
                "item__price": pa.array(_noise(items, 5) * 50, pa.float32()),
                "item__genres": pa.array(
                    [genres[: int(n * 5)] for n in _noise(items, 6)], pa.list_(pa.string())
                ),
                "item__ctr": pa.array(_noise(items, 8), pa.float32()),
            }
        ),
        domain=pa.table(
            {"domain_id": pa.array([domain]), "domain__size": pa.array([float(len(domain))], pa.float32())}
        ),
    )


def make_world(users: pa.Array, items: pa.Array, ids: IdTypes, backbone: str = "deepfm") -> World:
    rng = np.random.default_rng(0)
    rows = 400
    features = side_features(users, items, "west")
    table = features.users.take(pa.array(rng.integers(0, len(users), rows)))
    drawn = features.items.take(pa.array(rng.integers(0, len(items), rows)))
    for name in drawn.column_names:
        table = table.append_column(name, drawn.column(name))
    table = table.append_column("domain_id", pa.array(rng.choice(DOMAINS, rows)))
    table = table.append_column("domain__size", pa.array(rng.random(rows), pa.float32()))
    encoder = Encoder.fit(CONTRACT, table, domains=DOMAINS)
    torch.manual_seed(1)
    spec = ModelSpec(
        backbone=backbone,
        adaptation="moe_mlora",
        fields=tuple(FieldShape(*shape) for shape in encoder.field_shapes()),
        num_domains=len(DOMAINS),
        crosses=False,
        embedding_dim=8,
        hidden_units=(64, 32),
        rank=4,
    )
    model = build_model(spec, expert_domains=[0, 1])
    with torch.no_grad():  # every part counts: fresh experts and first-order weights would be 0
        for value in model.parameters():
            value.add_(torch.randn_like(value) * 0.2)
    return World(ids, encoder, model.eval(), Calibration(0.7, -3.0, (-2.5, -4.5)))


@pytest.fixture(scope="session")
def world_maker() -> Callable[..., World]:
    return make_world


@pytest.fixture(scope="session")
def world() -> World:
    return make_world(pa.array(range(40)), pa.array(range(100, 163)), IdTypes())


@pytest.fixture
def grid() -> Candidates:
    """40 users x 63 items; user u has had the first u % 5 items, and user 39 all but three."""
    return make_grid(pa.array(range(40)), pa.array(range(100, 163)))


@pytest.fixture(scope="session")
def text_ids() -> tuple[pa.Array, pa.Array]:
    """Users and items that are named, not numbered."""
    return pa.array([f"u{n:03d}é" for n in range(30)]), pa.array([f"i{n:03d}" for n in range(50)])


@pytest.fixture(scope="session")
def text_world(text_ids: tuple[pa.Array, pa.Array]) -> World:
    return make_world(*text_ids, IdTypes("string", "string"))


@pytest.fixture
def text_grid(text_ids: tuple[pa.Array, pa.Array]) -> Candidates:
    return make_grid(*text_ids)


def make_grid(users: pa.Array, items: pa.Array) -> Candidates:
    had = [(user, item) for user in range(len(users)) for item in range(user % 5)]
    last = len(users) - 1
    had = [pair for pair in had if pair[0] != last] + [(last, item) for item in range(len(items) - 3)]
    pairs = np.array(sorted(had), dtype=np.int64)
    return Candidates(users, items, PairIndex.from_rows(pairs[:, 0], pairs[:, 1], len(users)))
