from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
import torch

from mmlora.encoding import Encoder
from mmlora.models.builder import build_model
from mmlora.models.calibration import Calibration
from mmlora.models.ctr import CTRModel
from mmlora.models.spec import FieldShape, ModelSpec
from mmlora.registry.bundle import BundleStore, put_encoder
from mmlora.registry.manifest import ExpertPart, Manifest
from mmlora.schema import FeatureContract, FeatureField, IdTypes

CONTRACT = FeatureContract(
    "service",
    (
        FeatureField("user_id", "", ("user_id",), "INT64", "categorical"),
        FeatureField("domain_id", "", ("domain_id",), "STRING", "categorical"),
        FeatureField("age", "profile", ("user_id",), "FLOAT", "dense", (("transform", "log1p"),)),
        FeatureField("genres", "profile", ("user_id",), "STRING_LIST", "bag"),
    ),
)
DOMAINS = ("F", "M", "X")


class Trained(NamedTuple):
    """Everything that a bundle is made of, in memory, and the manifest of it stored."""

    store: BundleStore
    manifest: Manifest
    model: CTRModel
    encoder: Encoder
    calibration: Calibration
    table: pa.Table


def randomised(spec: ModelSpec, expert_domains: list[int]) -> CTRModel:
    """A model whose every parameter differs from what a fresh one has."""
    torch.manual_seed(7)
    model = build_model(spec, expert_domains=expert_domains)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model.eval()


@pytest.fixture(params=["none", "mlora", "moe_mlora"])
def adaptation(request) -> str:
    return request.param


@pytest.fixture
def trained(tmp_path: Path, adaptation: str) -> Trained:
    draw = np.random.default_rng(0)
    table = pa.table(
        {
            "user_id": draw.integers(0, 9, 60),
            "domain_id": draw.choice([*DOMAINS, "never seen"], 60),
            "age": draw.random(60) * 50,
            "genres": [["a", "b", "c"][: n % 4] for n in range(60)],
        }
    )
    encoder = Encoder.fit(CONTRACT, table, domains=DOMAINS)
    spec = ModelSpec(
        backbone="wdl",
        adaptation=adaptation,
        fields=tuple(FieldShape(*shape) for shape in encoder.field_shapes()),
        num_domains=3,
        crosses=False,
        embedding_dim=4,
        hidden_units=(8, 4),
        rank=2,
        experts_per_domain=2,
    )
    # X is thin: it has no expert of its own.
    experts = [] if adaptation == "none" else [("F", 0), ("F", 1), ("M", 0), ("M", 1)]
    model = randomised(spec, [DOMAINS.index(domain) for domain, _ in experts])
    calibration = Calibration(scale=1.25, shift=-0.5, domain_shifts=(0.1, 0.2, 0.3))
    store = BundleStore(tmp_path / "registry")
    manifest = Manifest(
        as_of=date(2000, 12, 30),
        spec=spec.to_dict(),
        contract=CONTRACT,
        encoder=put_encoder(store.parts, encoder),
        backbone=store.parts.put_tensors(model.backbone_state()),
        calibration=store.parts.put_json(calibration.to_json()),
        experts=tuple(
            ExpertPart(domain, slot, store.parts.put_tensors(model.expert_state(n)))
            for n, (domain, slot) in enumerate(experts)
        ),
        gate=store.parts.put_tensors(model.gate_state()) if adaptation == "moe_mlora" else None,
        training_domains=DOMAINS,
        ids=IdTypes(),
        block_rows=1024,
        data_fingerprint="d" * 64,
        metrics={"gate": {"all": {"wauc": 0.8}, "F": {"auc": None}}},
        code_version="0.1.0",
    )
    return Trained(store, manifest, model, encoder, calibration, table)
