from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from mmlora.batch import Batch
from mmlora.models.spec import FieldShape, ModelSpec
from mmlora.training.loop import TrainingOptions
from mmlora.training.observer import EpochRecord, PhaseReport


@dataclass
class InMemoryData:
    """Training data held in tensors: users and items, and domains that differ in taste."""

    categorical: torch.Tensor
    label: torch.Tensor
    domain: np.ndarray
    split: np.ndarray
    num_domains: int

    def rows(self, split: str) -> np.ndarray:
        return np.flatnonzero(self.split == ("train", "validation", "test").index(split))

    def batch(self, rows: np.ndarray) -> Batch:
        taken = torch.from_numpy(rows)
        return Batch(
            categorical=self.categorical[taken],
            dense=torch.zeros(len(rows), 0),
            domain=torch.from_numpy(self.domain[rows]),
            label=self.label[taken],
        )


@dataclass
class Recorder:
    """An observer that keeps what it is told."""

    started: list[tuple[str, int | None, int]] = field(default_factory=list)
    epochs: list[tuple[str, int | None, EpochRecord]] = field(default_factory=list)
    reports: list[PhaseReport] = field(default_factory=list)

    def phase_start(self, phase: Any, domain: int | None, *, rows: int, max_epochs: int) -> None:
        self.started.append((phase, domain, rows))

    def epoch(self, phase: Any, domain: int | None, record: EpochRecord) -> None:
        self.epochs.append((phase, domain, record))

    def phase_end(self, report: PhaseReport) -> None:
        self.reports.append(report)


@pytest.fixture
def make_data() -> Callable[..., InMemoryData]:
    def make(rows: int = 4000, num_domains: int = 3, seed: int = 0) -> InMemoryData:
        draw = np.random.default_rng(seed)
        users, items = draw.integers(0, 40, rows), draw.integers(0, 30, rows)
        domain = draw.choice(
            num_domains, rows, p=np.arange(num_domains, 0, -1) / (num_domains + 1) / num_domains * 2
        )
        common = draw.normal(size=40)[users] + draw.normal(size=30)[items]
        # Domains 0 and 2 like what domain 1 dislikes: what an expert can learn, and a gate can lend.
        own = np.where(domain == 1, -1.5, 1.5) * draw.normal(size=30)[items]
        chance = 1 / (1 + np.exp(-(common + own - 0.5)))
        return InMemoryData(
            categorical=torch.from_numpy(np.stack([users + 2, items + 2, domain + 2], 1)),
            label=torch.from_numpy((draw.random(rows) < chance).astype(np.float32)),
            domain=domain,
            split=draw.choice(3, rows, p=[0.6, 0.2, 0.2]),
            num_domains=num_domains,
        )

    return make


@pytest.fixture
def data(make_data: Callable[..., InMemoryData]) -> InMemoryData:
    return make_data()


@pytest.fixture
def make_training_spec() -> Callable[..., ModelSpec]:
    def make(**changes: Any) -> ModelSpec:
        values = {
            "backbone": "wdl",
            "adaptation": "moe_mlora",
            "fields": (
                FieldShape("user_id", "categorical", 42),
                FieldShape("item_id", "categorical", 32, "item"),
                FieldShape("domain_id", "categorical", 5, "domain"),
            ),
            "num_domains": 3,
            "crosses": False,
            "embedding_dim": 8,
            "hidden_units": (16, 8),
            "dropout": 0.1,
            "rank": 4,
            "alpha": 4.0,
        }
        return ModelSpec(**{**values, **changes})

    return make


@pytest.fixture
def options() -> TrainingOptions:
    return TrainingOptions(
        batch_size=256,
        learning_rate=1e-2,
        expert_learning_rate=1e-2,
        gate_learning_rate=0.1,
        expert_confidence=0.0,
        max_epochs=3,
        patience=2,
        device="cpu",
        threads=1,
    )


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()
