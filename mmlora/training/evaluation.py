"""Evaluation of a finished model on a split; the test split should be read once, at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mmlora.metrics import DomainMetrics, Metrics
from mmlora.metrics.packed import PackedPairs, pack_probabilities, packed_metrics
from mmlora.models.builder import Model
from mmlora.models.calibration import Calibration
from mmlora.training.epoch import SplitPart, TrainingData
from mmlora.training.loop import predict
from mmlora.training.rows import blocks, scratch


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


def evaluate(
    model: Model,
    data: TrainingData,
    split: SplitPart,
    calibration: Calibration,
    *,
    user: npt.NDArray[Any] | None = None,
) -> Evaluation:
    """Return the metrics of ``split``, pooled and by domain, in memory that doesn't grow with rows or users.

    Args:
        model: the finished model.
        data: all rows.
        split: the split to evaluate on.
        calibration: calibration of the model's logits.
        user: code of every row's user, 0 to 2**32 - 1, ``[N]``; if given, ``gauc`` is computed.
    """
    rows = data.rows(split)
    logits, labels = predict(model, data, rows)

    def packed(*, by_domain: bool, by_user: bool) -> PackedPairs:
        pairs: PackedPairs = scratch(len(rows), np.complex128)
        for place, block in blocks(rows):
            domain = np.asarray(data.domain[block], np.int64)
            # In float64, different logits give different probabilities, so the AUC is the model's.
            logit = torch.from_numpy(logits[place]).double()
            probability = calibration.apply(logit, torch.from_numpy(domain)).numpy()
            none = np.zeros_like(domain)
            users = np.asarray(user[block]) if by_user and user is not None else none
            pairs[place] = pack_probabilities(
                labels[place], probability, domain if by_domain else none, users
            )
        return pairs

    def measured(*, by_domain: bool) -> dict[int, Metrics]:
        users = None if user is None else packed(by_domain=by_domain, by_user=True)
        return packed_metrics(packed(by_domain=by_domain, by_user=False), users)

    pooled = measured(by_domain=False).get(0)
    return Evaluation(split, DomainMetrics.of(pooled, measured(by_domain=True)))
