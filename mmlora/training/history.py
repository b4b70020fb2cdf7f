"""The weight of the history of items, fitted on validation rows, and kept if they gain from it.

The factors of :mod:`mmlora.encoding.history` know the labels of training rows, so training rows have no
history, and can't show what it is worth. A single weight is fitted on half of the validation rows; the other
half decides by a paired bootstrap of the wauc whether the gain is more than noise. If it is kept, it is
refitted on all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from mmlora.metrics.bootstrap import compare
from mmlora.models.ctr import CTRModel
from mmlora.training.epoch import RowNumbers, TrainingData, label_of
from mmlora.training.evidence import halves
from mmlora.training.rows import blocks

_DRAWS, _LEVEL, _MOST_ROWS = 400, 0.95, 400_000
_STEPS = 20
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class HistoryGain:
    """The gain from the history of items.

    Attributes:
        wauc: difference of the wauc on rows that did not choose the weight, and the bounds of its interval;
            None if the weight isn't above 0, or the gain can't be measured.
        weight: the weight that is kept; 0 if none is.
    """

    wauc: tuple[float, float, float] | None
    weight: float

    def __str__(self) -> str:
        outcome = f"item history {'' if self.weight else 'not '}kept"
        if self.wauc is None:
            return f"{outcome}: half of the validation rows give it no weight above 0, or have no wauc"
        value, low, high = self.wauc
        return (
            f"{outcome}: wauc {value:+.4f} [{low:+.4f}, {high:+.4f}] on rows that did not choose its weight"
        )


@torch.no_grad()
def weigh_history(model: CTRModel, data: TrainingData, rows: RowNumbers, *, seed: int) -> HistoryGain:
    """Fit the weight of a model's history, or leave it at 0.

    Args:
        model: a model whose cross terms have a history; its weight is set.
        data: the data.
        rows: validation rows; of more than 400,000, an even sample is used.
        seed: seed of the draws.
    """
    assert model.crosses is not None
    model.crosses.history_weight.zero_()
    rows = np.asarray(rows[:: -(-len(rows) // _MOST_ROWS) or 1])
    logits, products, labels = _outputs(model, data, rows)
    choosing, deciding = halves(np.arange(len(rows)))
    gain = HistoryGain(None, 0.0)
    weight = best_weight(logits[choosing], products[choosing], labels[choosing])
    if weight > 0 and len(deciding):
        difference = compare(
            labels[deciding],
            _sigmoid(logits[deciding] + weight * products[deciding]),
            _sigmoid(logits[deciding]),
            np.asarray(data.domain[rows[deciding]], np.int64) + 1,
            draws=_DRAWS,
            level=_LEVEL,
            seed=seed,
        ).wauc
        if difference.value is not None and difference.low is not None and difference.high is not None:
            final = best_weight(logits, products, labels) if difference.low > 0 else 0.0
            gain = HistoryGain((difference.value, difference.low, difference.high), final)
    model.crosses.history_weight.fill_(gain.weight)
    return gain


def best_weight(logits: Floats, products: Floats, labels: Floats) -> float:
    """Return the weight w that minimises the log loss of ``logits + w products``, all ``[N]`` (Newton).

    Returns:
        w; 0 if all products are 0.
    """
    scale = np.abs(products).max(initial=0.0)
    if not scale:
        return 0.0
    weight = 0.0
    products = products / scale
    for _ in range(_STEPS):
        probability = _sigmoid(logits + weight * products)
        slope = products @ (labels - probability) - weight
        weight += float(slope / (products**2 @ (probability * (1 - probability)) + 1.0))  # a prior around 0
    return float(np.float32(weight / scale))


def _outputs(model: CTRModel, data: TrainingData, rows: RowNumbers) -> tuple[Floats, Floats, Floats]:
    """Return logits without the history, its products, and labels, each ``[N]``."""
    assert model.crosses is not None and model.crosses.history is not None
    model.eval()
    device = next(model.parameters()).device.type
    found = np.empty((3, len(rows)))
    for place, block in blocks(rows):
        batch = data.batch(block)
        labels = label_of(batch).numpy()
        moved = batch.to(device)
        products = model.crosses.history.number(moved)
        found[:, place] = model(moved).cpu().numpy(), products.cpu().numpy(), labels
    return found[0], found[1], found[2]


def _sigmoid(logits: Floats) -> Floats:
    probabilities: Floats = 1 / (1 + np.exp(-np.clip(logits, -50, 50)))
    return probabilities
