"""Whether the gain of an expert, or of the backbone over the cross terms, is more than noise.

An expert's epochs are chosen on half of the validation rows, and its gain is measured on the other.

The best of several epochs looks better than it is on the rows that chose it. On the other half the difference
to the backbone is unbiased; its interval is a paired bootstrap (:mod:`mmlora.metrics.bootstrap`). A smaller
step towards the expert is taken where that has less log loss: with few rows the whole step is often too long.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from mmlora.metrics.bootstrap import compare
from mmlora.models.ctr import CTRModel, State
from mmlora.training.epoch import RowNumbers, TrainingData
from mmlora.training.loop import predict

STEPS = (1.0, 0.5, 0.25)
_DRAWS, _LEVEL = 400, 0.95
_MOST_ROWS = 200_000


@dataclass(frozen=True)
class Gain:
    """What an expert gains on rows that did not choose its epochs.

    Attributes:
        auc: difference of the domain's auc to the backbone's.
        low: lower bound of its interval; None where the rows hold one class.
        high: upper bound.
        step: share of the trained step that was taken; 0 where the expert is not kept.
    """

    auc: float | None
    low: float | None
    high: float | None
    step: float

    def __str__(self) -> str:
        if self.auc is None or self.low is None or self.high is None:
            return "not kept: the validation rows that decide hold one class of label"
        interval = f"[{self.low:+.4f}, {self.high:+.4f}]"
        measured = f"auc {self.auc:+.4f} {interval} on rows that did not choose its epochs"
        if not self.step:
            return f"not kept: {measured}"
        return measured if self.step == 1 else f"kept at {self.step:g} of its step: {measured}"


@dataclass(frozen=True)
class BackboneGain:
    """What phase 1 gains over the cross terms alone, on the validation rows that chose its epochs.

    Attributes:
        wauc: difference of the wauc and the bounds of its interval; None where it can't be measured.
        kept: whether it is more than noise.
    """

    wauc: tuple[float, float, float] | None
    kept: bool

    def __str__(self) -> str:
        if self.wauc is None:
            return ""
        value, low, high = self.wauc
        measured = f"wauc {value:+.4f} [{low:+.4f}, {high:+.4f}] over the cross terms alone"
        return measured if self.kept else f"not kept, as it is no more than noise: {measured}"


def weigh_backbone(
    model: CTRModel, start: State, data: TrainingData, rows: RowNumbers, *, seed: int
) -> BackboneGain:
    """Keep what phase 1 trained beside the cross terms where it gains more than noise, or put it back.

    Without it a pair is scored by the cross terms alone, several times as fast.

    Args:
        model: with cross terms, trained.
        start: what phase 1 started from.
        data: the rows.
        rows: validation rows; beyond 200,000 an even choice of them.
        seed: of the draws.
    """
    rows = rows[:: -(-len(rows) // _MOST_ROWS) or 1]
    logits, labels = (np.array(values) for values in predict(model, data, rows))
    trained = model.backbone_state()
    model.load_backbone(start)
    before, _ = (np.array(values) for values in predict(model, data, rows))
    domain = np.asarray(data.domain[rows], np.int64) + 1
    both = _sigmoid(logits), _sigmoid(before)
    found = compare(labels, *both, domain, draws=_DRAWS, level=_LEVEL, seed=seed).wauc
    measured = None
    if found.value is not None and found.low is not None and found.high is not None:
        measured = found.value, found.low, found.high
    gain = BackboneGain(measured, measured is None or measured[1] > 0)
    if gain.kept:
        model.load_backbone(trained)
    return gain


def halves(rows: RowNumbers) -> tuple[RowNumbers, RowNumbers]:
    """Return every other row, for epochs to be chosen on, and the rows between, to decide on."""
    return rows[::2], rows[1::2]


def weigh_expert(
    model: CTRModel, data: TrainingData, rows: RowNumbers, *, confidence: float, seed: int
) -> Gain:
    """Keep the one expert of a model, or a part of its step, or put it back to 0.

    Args:
        model: with one expert, trained; its backbone decides what there is to gain.
        data: the rows.
        rows: those that decide, of the expert's domain; beyond 200,000 an even choice of them.
        confidence: share of draws that the interval holds, in (0, 1); kept where all of it is above 0.
        seed: of the draws.
    """
    rows = rows[:: -(-len(rows) // _MOST_ROWS) or 1]
    trained = {name: value.clone() for name, value in model.expert_state(0).items()}
    logits: dict[float, npt.NDArray[np.float32]] = {}
    for step in (0.0, *STEPS):
        model.load_expert(0, scaled(trained, step))
        logits[step], labels = (np.array(values) for values in predict(model, data, rows))
    gain = Gain(None, None, None, 0.0)
    if 0 < labels.mean() < 1:
        best = min(STEPS, key=lambda step: _logloss(labels, logits[step]))
        one = np.zeros(len(labels), np.int64)
        found = compare(
            *(labels, _sigmoid(logits[best]), _sigmoid(logits[0.0]), one),
            draws=_DRAWS,
            level=confidence,
            seed=seed,
        ).auc
        kept = found.low is not None and found.low > 0
        gain = Gain(found.value, found.low, found.high, best if kept else 0.0)
    model.load_expert(0, scaled(trained, gain.step))
    return gain


def scaled(state: dict[str, torch.Tensor], step: float) -> dict[str, torch.Tensor]:
    """Scale what starts at 0, so that 0 is the backbone and 1 the trained expert."""
    return {n: value if n.endswith("lora_a") else value * step for n, value in state.items()}


def _sigmoid(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    probabilities: npt.NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -50, 50)))
    return probabilities


def _logloss(labels: npt.NDArray[np.float32], logits: npt.NDArray[np.float32]) -> float:
    return float(np.mean(np.logaddexp(0, logits) - labels * logits))
