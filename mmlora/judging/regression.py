"""The baseline of logistic regression on one-hot values and their crosses, by scikit-learn."""

from __future__ import annotations

import warnings

import numpy as np

from mmlora.judging.crosses import Crosses
from mmlora.judging.rows import MOST_TRAINING_ROWS, Floats, Predict, Rows, by_block
from mmlora.metrics.probabilities import losses
from mmlora.training.rows import sample

_STRENGTHS = (0.01, 0.03, 0.1, 0.3)
"""Values of scikit-learn's C, the inverse of the penalty's weight, from strong to weak penalties."""
MOST_ENTRIES = 60_000_000
"""Maximum entries of the training matrix: 0.7 GB, and the same again while it is built."""
_MOST_STEPS, _TOLERANCE = 40, 1e-4


def fit_regression(rows: Rows) -> tuple[Predict, str]:
    """Train on training rows, with the penalty that has the lowest log loss on validation rows.

    Penalties are tried from strong to weak, each starting from the previous weights, until the log loss on
    validation rows no longer decreases.

    Args:
        rows: the rows, with both labels among the training rows.

    Returns:
        The prediction function, and a description of the model.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    numbers = rows.part("train", MOST_TRAINING_ROWS)
    crosses = Crosses(rows.data, numbers)
    numbers = sample(numbers, int(MOST_ENTRIES / max(crosses.entries(numbers), 1.0)), rows.seed)
    matrix, label = crosses.matrix(numbers), rows.label(numbers)
    model = LogisticRegression(max_iter=_MOST_STEPS, tol=_TOLERANCE, warm_start=True)
    best, chosen, weights, intercept = np.inf, 0.0, np.zeros(crosses.width), 0.0
    for strength in _STRENGTHS:
        with warnings.catch_warnings():
            # Stop early: the choice depends on validation rows, not on full convergence.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.set_params(C=strength).fit(matrix, label)
        loss = _loss(rows, _predict(crosses, model.coef_[0], float(model.intercept_[0])))
        if loss >= best:
            break
        best, chosen = loss, strength
        weights, intercept = model.coef_[0].copy(), float(model.intercept_[0])
    description = f"C {chosen:g}, {crosses.width:,} columns, {len(numbers):,} rows"
    return _predict(crosses, weights, intercept), description


def _predict(crosses: Crosses, weights: Floats, intercept: float) -> Predict:
    return by_block(lambda block: _sigmoid(crosses.matrix(block) @ weights + intercept))


def _loss(rows: Rows, predict: Predict) -> float:
    label = rows.label(rows.validation) > 0
    return float(losses(label, ~label, predict(rows.validation)).mean())


def _sigmoid(logits: Floats) -> Floats:
    result: Floats = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
    return result
