"""The metric on validation rows that decides a phase, computed in memory that doesn't grow with rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmlora import metrics
from mmlora.metrics.packed import pack, packed_wauc
from mmlora.models.builder import Model
from mmlora.training.epoch import RowNumbers, TrainingData, label_of
from mmlora.training.loop import predictions
from mmlora.training.observer import MetricName
from mmlora.training.rows import blocks, of_domain, scratch


@dataclass(frozen=True)
class Validation:
    """The rows and the metric that decide a phase.

    Attributes:
        data: all rows.
        rows: row numbers of the rows that decide.
        metric: the metric on these rows.
        note: why the metric differs from the requested one; usually empty.
    """

    data: TrainingData
    rows: RowNumbers
    metric: MetricName
    note: str

    @classmethod
    def choose(
        cls,
        data: TrainingData,
        metric: MetricName,
        *,
        domain: int | None,
        rows: RowNumbers | None = None,
    ) -> Validation:
        """Use the requested metric, or logloss if all labels are of one class.

        Args:
            data: all rows.
            metric: ``wauc`` or ``auc``.
            domain: the domain that decides; None means all domains.
            rows: row numbers of the rows that decide; None means all validation rows.
        """
        if rows is None:
            rows = data.rows("validation")
            rows = rows if domain is None else of_domain(data, rows, domain)
        if not len(rows) or _decidable(data, rows, by_domain=metric == "wauc"):
            return cls(data, rows, metric, "")
        note = f"all validation rows have the same label, so logloss decided instead of {metric}"
        return cls(data, rows, "logloss", note)

    def measure(self, model: Model) -> float:
        """Return the metric of the model in its current state."""
        if self.metric == "logloss":
            return self._logloss(model)
        packed = scratch(len(self.rows), np.uint64)
        for place, logits, labels in predictions(model, self.data, self.rows):
            group = np.zeros(len(logits), np.int64)
            if self.metric == "wauc":  # by domain; -1 is a domain absent at training
                group = np.asarray(self.data.domain[self.rows[place]], np.int64) + 1
            packed[place] = pack(labels, logits, group)
        value = packed_wauc(packed)
        assert value is not None  # the metric was chosen by the labels
        return value

    def _logloss(self, model: Model) -> float:
        total = 0.0
        for _, logits, labels in predictions(model, self.data, self.rows):
            probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
            total += (metrics.logloss(labels, probability) or 0.0) * len(labels)
        return total / len(self.rows)


def _decidable(data: TrainingData, rows: RowNumbers, *, by_domain: bool) -> bool:
    """Return whether both labels occur, within at least one domain if ``by_domain``."""
    seen = np.zeros((data.num_domains + 1, 2), bool)
    for _, block in blocks(rows):
        group = np.asarray(data.domain[block], np.int64) + 1 if by_domain else 0
        seen[group, (label_of(data.batch(block)).numpy() > 0).astype(np.int64)] = True
        if seen.all(1).any():
            return True
    return False
