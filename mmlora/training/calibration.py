"""Calibration: Platt scaling on validation rows, with a shift of each domain's own.

``p = sigmoid(scale * logit + shift_d)``: scale and a common shift are fitted on all domains' rows
(https://en.wikipedia.org/wiki/Platt_scaling); a domain's own shift is drawn towards the common one the more,
the fewer rows it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmlora.models.ctr import CTRModel
from mmlora.training.epoch import TrainingData
from mmlora.training.loop import predict

Floats = npt.NDArray[np.float64]
# Rows of average uncertainty that the common shift counts for against a domain's own.
_PRIOR_ROWS = 200.0
_STEPS = 40
_TOLERANCE = 1e-9
_MAX_SHIFT = 16.0


@dataclass(frozen=True)
class Calibration:
    """``p = sigmoid(scale * logit + shift)``.

    Attributes:
        scale: above 0, so that the order of scores stays.
        shift: of a domain absent at training.
        domain_shifts: by domain index.
        note: why it is less than asked for; empty as a rule.
    """

    scale: float = 1.0
    shift: float = 0.0
    domain_shifts: tuple[float, ...] = ()
    note: str = ""

    def apply(self, logits: Tensor, domain: Tensor) -> Tensor:
        """``logits [B]``, ``domain [B]`` (-1: absent at training) -> probabilities ``[B]``."""
        shifts = torch.tensor([self.shift, *self.domain_shifts], dtype=logits.dtype, device=logits.device)
        return torch.sigmoid(logits * self.scale + shifts[domain + 1])

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return {
            "scale": self.scale,
            "shift": self.shift,
            "domain_shifts": list(self.domain_shifts),
            "note": self.note,
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Calibration:
        """Read back what :meth:`to_dict` gave."""
        return cls(**{**raw, "domain_shifts": tuple(raw["domain_shifts"])})


def fit_calibration(model: CTRModel, data: TrainingData) -> Calibration:
    """Fit on the validation split; where its labels are of one class, change nothing and say so."""
    rows = data.rows("validation")
    logits, labels = predict(model, data, rows)
    y, x = labels.astype(np.float64), logits.astype(np.float64)
    none = (0.0,) * data.num_domains
    if not 0 < y.sum() < len(y):
        note = "validation rows hold one class of label, so scores are as the model gave them"
        return Calibration(domain_shifts=none, note=note)
    scale, shift = _platt(x, y)
    note = ""
    if not scale > 0:
        note = f"the fitted scale was {scale:.3g}, so only the shift was fitted"
        scale, shift = 1.0, float(_shifts(x, y, np.zeros(len(y), np.int64), 1, 0.0)[0])
    domain = np.asarray(data.domain[rows], np.int64)
    # One group more, for rows of domains absent at training (-1): these get the common shift.
    own = _shifts(scale * x + shift, y, domain + 1, data.num_domains + 1, _PRIOR_ROWS)[1:]
    return Calibration(float(scale), float(shift), tuple((shift + own).tolist()), note)


def _platt(x: Floats, y: Floats) -> tuple[float, float]:
    """Logistic regression of y on x by Newton's method; a step that overshoots is halved."""
    design = np.stack([x, np.ones_like(x)], 1)
    weights = np.array([1.0, 0.0])
    loss = _loss(design @ weights, y)
    for _ in range(_STEPS):
        p = _sigmoid(design @ weights)
        hessian = (design * (p * (1 - p))[:, None]).T @ design + 1e-6 * np.eye(2)
        step = np.linalg.solve(hessian, design.T @ (y - p))
        while _loss(design @ (weights + step), y) > loss and np.abs(step).max() > _TOLERANCE:
            step = step / 2
        if np.abs(step).max() <= _TOLERANCE:
            break
        weights = weights + step
        loss = _loss(design @ weights, y)
    return float(weights[0]), float(weights[1])


def _shifts(x: Floats, y: Floats, group: npt.NDArray[Any], groups: int, prior_rows: float) -> Floats:
    """Return each group's shift of x, its squared size penalised as ``prior_rows`` rows would resist it."""
    start = _sigmoid(x)
    penalty = prior_rows * float(np.mean(start * (1 - start))) + 1e-6
    # The likelihood's slope falls with the shift, so halving an interval finds where it is 0.
    low, high = np.full(groups, -_MAX_SHIFT), np.full(groups, _MAX_SHIFT)
    for _ in range(_STEPS):
        shift = (low + high) / 2
        slope = np.bincount(group, y - _sigmoid(x + shift[group]), groups) - penalty * shift
        low, high = np.where(slope > 0, shift, low), np.where(slope > 0, high, shift)
    middle: Floats = (low + high) / 2
    return middle


def _loss(x: Floats, y: Floats) -> float:
    return float(np.sum(np.logaddexp(0.0, x) - y * x))


def _sigmoid(x: Floats) -> Floats:
    result: Floats = 1 / (1 + np.exp(-np.clip(x, -500, 500)))
    return result
