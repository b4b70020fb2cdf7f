"""Evaluation of a finished model on a split: read the test split once, at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mmlora.metrics import DomainMetrics, domain_metrics
from mmlora.models.ctr import CTRModel
from mmlora.training.calibration import Calibration
from mmlora.training.epoch import SplitPart, TrainingData
from mmlora.training.loop import predict


@dataclass(frozen=True)
class Evaluation:
    """Metrics of calibrated probabilities on one split.

    Attributes:
        split: the split.
        metrics: pooled and by domain index.
    """

    split: SplitPart
    metrics: DomainMetrics

    @property
    def wauc(self) -> float | None:
        """Mean of the domains' AUCs, weighted by rows."""
        return self.metrics.wauc

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return {"split": self.split, **self.metrics.to_dict()}


def evaluate(
    model: CTRModel,
    data: TrainingData,
    split: SplitPart,
    calibration: Calibration,
    *,
    user: npt.NDArray[Any] | None = None,
) -> Evaluation:
    """Return the metrics of ``split``, pooled and by domain; gauc too, given every row's user, ``[N]``."""
    rows = data.rows(split)
    logits, labels = predict(model, data, rows)
    domain = np.asarray(data.domain[rows], np.int64)
    users = None if user is None else np.asarray(user[rows])
    # In float64, so that two logits that differ don't fall on one probability, and the AUC stays the model's.
    probability = calibration.apply(torch.from_numpy(logits).double(), torch.from_numpy(domain))
    return Evaluation(split, domain_metrics(labels, probability.numpy(), domain, users))
