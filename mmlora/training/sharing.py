"""Choose weights of other domains' experts for a domain that has none, and decide whether they help.

A mixture has a weight per expert; the weights are at least 0 and sum to 1 at most, and what is missing to 1
is the backbone. So a domain with few rows needs only a few numbers. The weights minimise the log loss on the
domain's rows. What they gain over the whole model is measured on rows that didn't choose them, by
cross-validation; its interval is a paired bootstrap, as for an expert of the domain's own
(:mod:`mmlora.training.evidence`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmlora.metrics.bootstrap import compare
from mmlora.models.builder import assemble_mixture
from mmlora.models.ctr import CTRModel, State
from mmlora.models.spec import ModelSpec
from mmlora.training.epoch import RowNumbers, TrainingData
from mmlora.training.loop import predict

Floats = npt.NDArray[np.float64]

MOST_EXPERTS = 8
"""Experts in a mixture: those that alone lower the log loss most."""
_FOLDS, _DRAWS = 5, 400
_PASSES, _TOLERANCE = 300, 1e-9
_LEAST_WEIGHT = 0.01


@dataclass(frozen=True)
class Shared:
    """The experts that a domain shares with others.

    Attributes:
        weights: the weight of each expert, ``[E]``, fitted on all rows; all 0 if they are not kept.
        gain: auc minus the whole model's by cross-validation, with the bounds of its interval; None if it
            can't be measured.
        logits: the mixture's logits by cross-validation, or the whole model's if it is not kept, ``[N]``.
    """

    weights: Floats
    gain: tuple[float, float, float] | None
    logits: Floats

    @property
    def kept(self) -> bool:
        """Whether there is an expert in the mixture."""
        return bool(self.weights.any())


def share_experts(
    model: CTRModel,
    spec: ModelSpec,
    backbone: State,
    experts: Sequence[State],
    data: TrainingData,
    rows: RowNumbers,
    *,
    confidence: float,
    seed: int,
) -> Shared:
    """Choose a mixture of experts for a domain's rows, and keep it if it gains more than noise.

    Args:
        model: the whole model, which gives the domain its gate's experts, or the backbone if it is new.
        spec: the model's specification.
        backbone: its state.
        experts: the experts' states, E of them.
        data: the data.
        rows: the domain's rows that the model wasn't trained on, N of them.
        confidence: share of draws within the interval, in (0, 1); the mixture is kept if all of it is
            above 0.
        seed: seed of the draws.
    """
    now = np.asarray(predict(model, data, rows)[0], np.float64)
    if not experts:
        return Shared(np.zeros(0), None, now)

    def logits_of(weights: Sequence[float], chosen: RowNumbers) -> tuple[Floats, Floats]:
        mixed = [(weight, state) for weight, state in zip(weights, experts, strict=True) if weight]
        logits, labels = predict(assemble_mixture(spec, backbone=backbone, experts=mixed), data, chosen)
        return np.asarray(logits, np.float64), np.asarray(labels, np.float64)

    start, labels = logits_of([0.0] * len(experts), rows)
    steps = np.empty((len(rows), len(experts)))
    for number, alone in enumerate(np.eye(len(experts))):
        steps[:, number] = logits_of(alone.tolist(), rows)[0] - start
    mixed = np.empty_like(start)
    for fold in range(_FOLDS):
        held = np.arange(len(rows)) % _FOLDS == fold
        weights = fit_weights(start[~held], steps[~held], labels[~held])
        mixed[held] = logits_of(weights.tolist(), rows[held])[0]
    pooled = np.zeros(len(rows), np.int64)
    difference = compare(
        *(labels, _sigmoid(mixed), _sigmoid(now), pooled), draws=_DRAWS, level=confidence, seed=seed
    ).auc
    gain = None
    if difference.value is not None and difference.low is not None and difference.high is not None:
        gain = difference.value, difference.low, difference.high
    better = gain is not None and gain[1] > 0 and shifted_loss(mixed, labels) < shifted_loss(now, labels)
    weights = fit_weights(start, steps, labels) if better else np.zeros(len(experts))
    return Shared(weights, gain, mixed if weights.any() else now)


def fit_weights(start: Floats, steps: Floats, labels: Floats) -> Floats:
    """Return the weights of the experts that minimise the log loss, ``[E]``, at least 0 and 1 at most in sum.

    The logits are taken to be ``start + steps @ weights + shift``, which is exact for cross terms and an
    approximation for a tower. It is a convex problem, solved by exponentiated gradient descent
    (https://doi.org/10.1006/inco.1996.2612), in which the backbone is one more expert that adds nothing.

    Args:
        start: the backbone's logits, ``[N]``.
        steps: what each expert alone adds to them, ``[N, E]``.
        labels: 0/1, ``[N]``.
    """
    alone = [shifted_loss(start + step, labels) for step in steps.T]
    nearest = np.argsort(alone, kind="stable")[:MOST_EXPERTS]
    chosen = np.column_stack([steps[:, nearest], np.zeros(len(start))])
    weights, shift, rate = np.full(chosen.shape[1], 1 / chosen.shape[1]), 0.0, 1.0
    loss = _loss(start + chosen @ weights, labels)
    for _ in range(_PASSES):
        logits = start + chosen @ weights
        shift = _shift(logits, labels, shift)
        residual = _sigmoid(logits + shift) - labels
        slope = chosen.T @ residual / len(labels)
        tried = weights * np.exp(-rate * (slope - slope.min()))
        tried /= tried.sum()
        new = _loss(start + chosen @ tried + shift, labels)
        if new > loss:
            rate /= 2
        elif loss - new < _TOLERANCE:
            break
        else:
            weights, loss, rate = tried, new, rate * 1.5
    found = np.zeros(steps.shape[1])
    found[nearest] = np.where(weights[:-1] < _LEAST_WEIGHT, 0.0, weights[:-1])
    return found


def shifted_loss(logits: Floats, labels: Floats) -> float:
    """Return the log loss with the best constant added to the logits, because a calibration follows."""
    return _loss(logits + _shift(logits, labels, 0.0), labels)


def _shift(logits: Floats, labels: Floats, shift: float) -> float:
    """Return the best constant to add, by Newton's method from ``shift``."""
    for _ in range(20):
        p = _sigmoid(logits + shift)
        step = float(np.sum(labels - p) / max(np.sum(p * (1 - p)), 1e-9))
        shift += float(np.clip(step, -2.0, 2.0))
        if abs(step) < 1e-6:
            break
    return float(np.clip(shift, -16.0, 16.0))


def _loss(logits: Floats, labels: Floats) -> float:
    return float(np.mean(np.logaddexp(0.0, logits) - labels * logits))


def _sigmoid(x: Floats) -> Floats:
    result: Floats = 1 / (1 + np.exp(-np.clip(x, -50, 50)))
    return result
