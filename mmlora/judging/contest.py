"""The contenders of a comparison: their probabilities of the same rows, or why they have none."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from mmlora.judging.boosting import fit_boosting
from mmlora.judging.popularity import ItemRates
from mmlora.judging.regression import fit_regression
from mmlora.judging.rows import Floats, Predict, Rows
from mmlora.training.boosting import MISSING, installed
from mmlora.training.epoch import RowNumbers

logger = logging.getLogger(__name__)

MODEL = "model"
ITEM_CTR = "item CTR by domain"
REGRESSION = "logistic regression"
BOOSTING = "LightGBM"


@dataclass(frozen=True)
class Contender:
    """A model or baseline in the comparison.

    Attributes:
        name: its name in tables.
        scores: click probabilities of the judged rows, ``[N]``; None when it wasn't compared.
        note: a description, or why it wasn't compared.
        seconds: time to train it and to score the rows.
    """

    name: str
    scores: Floats | None
    note: str = ""
    seconds: float = 0.0


def train_baselines(rows: Rows, numbers: RowNumbers, threads: int | None = None) -> list[Contender]:
    """Train every baseline on training rows and score the judged rows with it.

    Args:
        rows: the training set.
        numbers: numbers of the judged rows.
        threads: threads of LightGBM; None for all cores.
    """

    def item_ctr() -> tuple[Predict, str]:
        rates = ItemRates.of(rows)
        return lambda chosen: rates(rows.domain(chosen), rows.item[chosen]), "an item's clicks in the domain"

    return [
        _contender(ITEM_CTR, rows, numbers, item_ctr),
        _contender(REGRESSION, rows, numbers, lambda: fit_regression(rows)),
        _contender(
            BOOSTING, rows, numbers, lambda: fit_boosting(rows, threads), "" if installed() else MISSING
        ),
    ]


def _contender(
    name: str, rows: Rows, numbers: RowNumbers, fit: Callable[[], tuple[Predict, str]], unavailable: str = ""
) -> Contender:
    begun = time.monotonic()
    why = unavailable or _unfit(rows)
    if why:
        logger.info("%s: not compared: %s", name, why)
        return Contender(name, None, why)
    predict, note = fit()
    scores = predict(numbers)
    return Contender(name, scores, note, time.monotonic() - begun)


def _unfit(rows: Rows) -> str:
    """Return why a baseline can't be trained on these rows; empty if it can."""
    if not len(rows.validation):
        return "there are no validation rows to choose its settings on"
    clicks = int(rows.label(rows.data.rows("train")).sum())
    if clicks in (0, len(rows.data.rows("train"))):
        return "the training rows have one label only"
    return ""
