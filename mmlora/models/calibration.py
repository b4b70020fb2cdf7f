"""Calibration: Platt scaling on validation rows, with a separate shift for each domain.

``p = sigmoid(scale * logit + shift_d)``: scale and a common shift are fitted on all domains' rows
(https://en.wikipedia.org/wiki/Platt_scaling); the fewer rows a domain has, the more its own shift is drawn
towards the common one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmlora.records import Record

Floats = npt.NDArray[np.float64]
# The common shift counts as much as this many rows of average uncertainty of a domain's own.
_PRIOR_ROWS = 200.0
_STEPS = 40
_TOLERANCE = 1e-9
_MAX_SHIFT = 16.0
_BLOCK_ROWS = 1 << 17
_CLIPPED = 1e-7  # half a step of float32 below 1


@dataclass(frozen=True)
class Calibration(Record):
    """``p = sigmoid(scale * logit + shift)``.

    Attributes:
        scale: scale of the logit, above 0, so that the order of scores is unchanged.
        shift: shift of a domain absent at training.
        domain_shifts: shifts by domain index.
        note: why the calibration is not a full one; usually empty.
        negatives: non-clicks that each one in the data stands for: above 1 if only a sample of them was kept.
            The odds of a click are divided by it (He et al., 2014, section 6.3).
    """

    scale: float = 1.0
    shift: float = 0.0
    domain_shifts: tuple[float, ...] = ()
    note: str = ""
    negatives: float = 1.0

    def apply(self, logits: Tensor, domain: Tensor) -> Tensor:
        """``logits [B]``, ``domain [B]`` (-1: absent at training) -> probabilities ``[B]``."""
        shifts = torch.tensor(self._corrected(), dtype=logits.dtype, device=logits.device)
        return torch.sigmoid(logits * self.scale + shifts[domain + 1])

    def with_shift(self, shift: float) -> Calibration:
        """Return the calibration of one domain: with its own shift, for any index."""
        return replace(self, shift=shift, domain_shifts=(shift,) * len(self.domain_shifts))

    def line(self, domain: int) -> tuple[float, float]:
        """Return the scale and the shift of a domain, -1 for one absent at training."""
        return self.scale, self._corrected()[domain + 1]

    def logits(self, probability: npt.NDArray[Any], domain: int) -> Floats:
        """Return a domain's logits from its probabilities, ``[N]``, clipped to ``1e-7`` from 0 and 1."""
        scale, shift = self.line(domain)
        p = np.clip(np.asarray(probability, np.float64), _CLIPPED, 1 - _CLIPPED)
        return np.asarray((np.log(p) - np.log1p(-p) - shift) / scale)

    def calibrated_logits(self, logits: npt.NDArray[Any], domain: npt.NDArray[Any]) -> Floats:
        """Return ``scale * logit + shift`` of each row, ``[N]``, for labels sampled like the data's."""
        shifts = np.array([self.shift, *self.domain_shifts])[domain + 1]
        return np.asarray(np.asarray(logits, np.float64) * self.scale + shifts)

    @property
    def of_sample(self) -> Calibration:
        """The calibration for rows sampled like those of the data: without the correction for negatives."""
        return replace(self, negatives=1.0)

    def to_json(self) -> dict[str, object]:
        """Return a JSON-serialisable mapping, without ``negatives`` where nothing is corrected."""
        raw = super().to_json()
        if self.negatives == 1.0:
            del raw["negatives"]
        return raw

    def _corrected(self) -> list[float]:
        """Return the shifts by domain index + 1, corrected for negatives."""
        return [shift - math.log(self.negatives) for shift in (self.shift, *self.domain_shifts)]


def calibrate(
    logits: npt.NDArray[Any], labels: npt.NDArray[Any], domain: npt.NDArray[Any], num_domains: int
) -> Calibration:
    """Fit on logits and labels of validation rows, ``[N]`` each, of the domains ``domain``.

    All are read block by block, so they may be memory-mapped.
    """
    none = (0.0,) * num_domains
    if not 0 < np.count_nonzero(labels) < len(labels):
        note = "validation rows hold one class of label, so scores are as the model gave them"
        return Calibration(domain_shifts=none, note=note)
    # One more group for rows of domains absent at training (-1), which get the common shift.
    rows = _Rows(logits, labels, domain, num_domains + 1)
    scale, shift = _platt(rows)
    note = ""
    if not scale > 0:
        note = f"the fitted scale was {scale:.3g}, so only the shift was fitted"
        pooled = _Rows(logits, labels, np.broadcast_to(np.int64(-1), domain.shape), 1)
        scale, shift = 1.0, float(_shifts(pooled, 1.0, 0.0, 0.0)[0])
    own = _shifts(rows, scale, shift, _PRIOR_ROWS)[1:]
    return Calibration(float(scale), float(shift), tuple((shift + own).tolist()), note)


def own_shift(calibration: Calibration, logits: npt.NDArray[Any], labels: npt.NDArray[Any]) -> float:
    """Return the shift of a domain that the calibration wasn't fitted on, drawn towards the common one.

    Args:
        calibration: the calibration, whose scale stays.
        logits: the domain's logits, ``[N]``.
        labels: 0/1, ``[N]``.
    """
    rows = _Rows(logits, labels, np.broadcast_to(np.int64(-1), labels.shape), 1)
    own = _shifts(rows, calibration.scale, calibration.shift, _PRIOR_ROWS)
    return calibration.shift + float(own[0])


def recalibrate(
    base: Calibration,
    logits: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    domain: npt.NDArray[Any],
    *,
    only: int | None = None,
) -> Calibration:
    """Correct a calibration by newer rows: ``logit' = a * logit + b + c_d`` of what it gives now.

    The fewer rows a domain has, the more it is left with the common correction (a, b); one without rows gets
    just that. The order of scores within a domain stays.

    Args:
        base: the calibration.
        logits: logits before it, ``[N]``.
        labels: 0/1, ``[N]``.
        domain: domain indices, ``[N]``; -1 for domains absent at training.
        only: correct the shift of this domain alone, by its rows; all else stays.
    """
    now = base.calibrated_logits(logits, domain)
    if only is not None:
        own = np.asarray(domain) == only
        rows = _Rows(now[own], np.asarray(labels)[own], np.full(int(own.sum()), -1), 1)
        shifts = list(base.domain_shifts)
        shifts[only] += float(_shifts(rows, 1.0, 0.0, _PRIOR_ROWS)[0])
        return replace(base, domain_shifts=tuple(shifts))
    step = calibrate(now, labels, domain, len(base.domain_shifts))
    moved = (step.scale * np.array(base.domain_shifts) + np.array(step.domain_shifts)).tolist()
    shift = step.scale * base.shift + step.shift
    return replace(
        base, scale=step.scale * base.scale, shift=shift, domain_shifts=tuple(moved), note=step.note
    )


@dataclass(frozen=True)
class _Rows:
    """The data for a fit, read once per pass; groups are domains + 1."""

    logits: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    domain: npt.NDArray[Any]
    groups: int

    def __iter__(self) -> Iterator[tuple[Floats, Floats, npt.NDArray[np.int64]]]:
        for start in range(0, len(self.labels), _BLOCK_ROWS):
            place = slice(start, start + _BLOCK_ROWS)
            group = np.asarray(self.domain[place], np.int64) + 1
            yield self.logits[place].astype(np.float64), self.labels[place].astype(np.float64), group


def _platt(rows: _Rows) -> tuple[float, float]:
    """Logistic regression of labels on logits by Newton's method; a step that overshoots is halved."""
    weights = np.array([1.0, 0.0])
    loss = _loss(rows, weights)
    for _ in range(_STEPS):
        hessian, slope = 1e-6 * np.eye(2), np.zeros(2)
        for x, y, _group in rows:
            design = np.stack([x, np.ones_like(x)], 1)
            p = _sigmoid(design @ weights)
            hessian += (design * (p * (1 - p))[:, None]).T @ design
            slope += design.T @ (y - p)
        step = np.linalg.solve(hessian, slope)
        while _loss(rows, weights + step) > loss and np.abs(step).max() > _TOLERANCE:
            step = step / 2
        if np.abs(step).max() <= _TOLERANCE:
            break
        weights = weights + step
        loss = _loss(rows, weights)
    return float(weights[0]), float(weights[1])


def _shifts(rows: _Rows, scale: float, shift: float, prior_rows: float) -> Floats:
    """Return each group's shift of scale x logit + shift, with a prior worth ``prior_rows`` average rows."""
    spread = 0.0
    for x, _, _ in rows:
        start = _sigmoid(scale * x + shift)
        spread += float(np.sum(start * (1 - start)))
    penalty = prior_rows * spread / len(rows.labels) + 1e-6
    # The likelihood's slope falls with the shift, so bisection finds where it is 0.
    low, high = np.full(rows.groups, -_MAX_SHIFT), np.full(rows.groups, _MAX_SHIFT)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        slope = -penalty * middle
        for x, y, group in rows:
            slope += np.bincount(group, y - _sigmoid(scale * x + shift + middle[group]), rows.groups)
        low, high = np.where(slope > 0, middle, low), np.where(slope > 0, high, middle)
    shift_by_group: Floats = (low + high) / 2
    return shift_by_group


def _loss(rows: _Rows, weights: Floats) -> float:
    total = 0.0
    for x, y, _ in rows:
        logits = x * weights[0] + weights[1]
        total += float(np.sum(np.logaddexp(0.0, logits) - y * logits))
    return total


def _sigmoid(x: Floats) -> Floats:
    result: Floats = 1 / (1 + np.exp(-np.clip(x, -500, 500)))
    return result
