"""Compute each contender's figures on the test rows, and the intervals of the model's difference to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mmlora.judgement import ColdBand, ColdFigures, ContenderRow, Difference, DomainFigures
from mmlora.judging.contest import MODEL, Contender
from mmlora.metrics import DomainMetrics, Intervals, compare_all, domain_metrics

DRAWS = 200


def compared(
    contenders: Sequence[Contender],
    label: npt.NDArray[Any],
    domain: npt.NDArray[Any],
    names: Sequence[str],
    seed: int,
) -> tuple[ContenderRow, ...]:
    """Return one row per contender, in their order.

    Args:
        contenders: the model first.
        label: 0/1 of the test rows, ``[N]``.
        domain: their domain indices, ``[N]``.
        names: the domains' names.
        seed: seed of the bootstrap.
    """
    scores = {each.name: each.scores for each in contenders if each.scores is not None}
    baselines = {name: values for name, values in scores.items() if name != MODEL}
    intervals = compare_all(label, scores[MODEL], baselines, domain, draws=DRAWS, seed=seed)
    metrics = {name: domain_metrics(label, values, domain) for name, values in scores.items()}
    return tuple(_row(each, metrics.get(each.name), intervals.get(each.name), names) for each in contenders)


def _row(
    contender: Contender, metrics: DomainMetrics | None, intervals: Intervals | None, names: Sequence[str]
) -> ContenderRow:
    row = ContenderRow(contender.name, contender.note, round(contender.seconds, 1))
    if metrics is None:
        return row
    pooled = metrics.pooled
    return replace(
        row,
        wauc=metrics.wauc,
        auc=pooled.auc,
        logloss=pooled.logloss,
        calibration=pooled.calibration,
        by_domain={
            names[index]: DomainFigures(part.rows, part.positives, part.auc, part.logloss, part.calibration)
            for index, part in metrics.by_domain.items()
        },
        difference=_difference(intervals, names) if intervals else None,
    )


def _difference(intervals: Intervals, names: Sequence[str]) -> Difference:
    by_domain = {names[index]: interval for index, interval in intervals.by_domain.items()}
    return Difference(intervals.wauc, intervals.auc, intervals.logloss, by_domain)


def best_baseline(rows: Sequence[ContenderRow]) -> ContenderRow | None:
    """Return the row of the baseline with the highest wauc; None when none has a wauc."""
    baselines = [row for row in rows if row.difference and row.wauc is not None]
    return max(baselines, key=lambda row: row.wauc or 0.0, default=None)


def cold(
    contenders: Sequence[Contender], label: npt.NDArray[Any], seen: npt.NDArray[np.integer[Any]]
) -> tuple[ColdBand, ...]:
    """Return the figures of test rows by the number of training rows of their entity.

    Args:
        contenders: the contenders to show, with scores of the test rows.
        label: 0/1 of the test rows, ``[N]``.
        seen: number of training rows of the user (or item) of each test row, ``[N]``.
    """
    band = np.digitize(seen, (1, 4, 21))
    bands = []
    for number, name in enumerate(("0", "1-3", "4-20", "more")):
        mask = band == number
        one_domain = np.zeros(int(mask.sum()), np.int64)
        metrics = {
            each.name: domain_metrics(label[mask], each.scores[mask], one_domain).pooled
            for each in contenders
            if each.scores is not None
        }
        figures = {key: ColdFigures(row.auc, row.logloss) for key, row in metrics.items()}
        bands.append(ColdBand(name, int(mask.sum()), int(label[mask].sum()), figures))
    return tuple(bands)
