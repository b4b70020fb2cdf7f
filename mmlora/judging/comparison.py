"""Figures of each contender on the test rows, and the intervals of the model's difference to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mmlora.judging.contest import MODEL, Contender
from mmlora.metrics import compare_all, domain_metrics

DRAWS = 200


def compared(
    contenders: Sequence[Contender],
    label: npt.NDArray[Any],
    domain: npt.NDArray[Any],
    names: Sequence[str],
    seed: int,
) -> list[dict[str, Any]]:
    """Return a row a contender, in their order.

    Args:
        contenders: the model first.
        label: 0/1 of the test rows, ``[N]``.
        domain: their domain indices, ``[N]``.
        names: of the domains.
        seed: of the bootstrap.

    Returns:
        ``name``, ``note``, ``seconds``, ``decides``; of those that have scores ``wauc``, ``auc``,
        ``logloss``, ``calibration`` (sum of scores over clicks) and the same ``by_domain``; of all but the
        model ``difference``: model - it, of ``wauc``, ``auc``, ``logloss`` and each domain's auc, with
        intervals.
    """
    scores = {each.name: each.scores for each in contenders if each.scores is not None}
    baselines = {name: values for name, values in scores.items() if name != MODEL}
    found = compare_all(label, scores[MODEL], baselines, domain, draws=DRAWS, seed=seed)
    rows = []
    for each in contenders:
        row: dict[str, Any] = {"name": each.name, "note": each.note, "seconds": round(each.seconds, 1)}
        row["decides"] = each.decides
        if each.scores is not None:
            row |= _figures(label, each.scores, domain, names)
        if each.name in found:
            row["difference"] = _differences(found[each.name].to_dict(), names)
        rows.append(row)
    return rows


def _figures(
    label: npt.NDArray[Any], scores: npt.NDArray[Any], domain: npt.NDArray[Any], names: Sequence[str]
) -> dict[str, Any]:
    metrics = domain_metrics(label, scores, domain)
    by_domain = {
        names[index]: {
            "rows": row.rows,
            "clicks": row.positives,
            "auc": row.auc,
            "logloss": row.logloss,
            "calibration": row.calibration,
        }
        for index, row in metrics.by_domain.items()
    }
    pooled = metrics.pooled
    return {
        "wauc": metrics.wauc,
        "auc": pooled.auc,
        "logloss": pooled.logloss,
        "calibration": pooled.calibration,
        "by_domain": by_domain,
    }


def _differences(raw: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {
        **{name: raw[name] for name in ("wauc", "auc", "logloss")},
        "by_domain": {names[int(index)]: each for index, each in raw["by_domain"].items()},
    }


def best_baseline(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the row of the baseline with the highest wauc, of those that decide; None when none has one."""
    able = [row for row in rows if row["decides"] and "difference" in row and row["wauc"] is not None]
    return max(able, key=lambda row: float(row["wauc"]), default=None)


def cold(
    contenders: Sequence[Contender], label: npt.NDArray[Any], seen: npt.NDArray[np.integer[Any]]
) -> list[dict[str, Any]]:
    """Return a row a band of test rows whose entity has so many training rows.

    Args:
        contenders: those to show, each with scores of the test rows.
        label: 0/1 of the test rows, ``[N]``.
        seen: training rows of the user, or item, of each test row, ``[N]``.

    Returns:
        ``training_rows`` (``0``, ``1-3``, ``4-20``, ``more``), ``rows``, ``clicks``, and by contender
        ``auc`` and ``logloss``.
    """
    band = np.digitize(seen, (1, 4, 21))
    table = []
    for number, name in enumerate(("0", "1-3", "4-20", "more")):
        own = band == number
        metrics = {
            each.name: domain_metrics(label[own], each.scores[own], np.zeros(int(own.sum()), np.int64)).pooled
            for each in contenders
            if each.scores is not None
        }
        figures = {key: {"auc": row.auc, "logloss": row.logloss} for key, row in metrics.items()}
        table.append(
            {
                "training_rows": name,
                "rows": int(own.sum()),
                "clicks": int(label[own].sum()),
                **{"by": figures},
            }
        )
    return table
