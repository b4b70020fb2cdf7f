"""The LightGBM baseline with common settings; see :mod:`mmlora.training.boosting`."""

from __future__ import annotations

import numpy as np

from mmlora.judging.rows import MOST_TRAINING_ROWS, Predict, Rows, by_block
from mmlora.models.spec import FieldShape
from mmlora.models.trees.columns import TreeColumns
from mmlora.training.boosting import boost, matrix, most_rows


def fit_boosting(rows: Rows, threads: int | None = None) -> tuple[Predict, str]:
    """Train on training rows, for the number of rounds with the lowest log loss on validation rows.

    Args:
        rows: the rows; their validation rows have both labels.
        threads: threads of LightGBM; None for all cores.

    Returns:
        The prediction function, and a description of the model.
    """
    data = rows.data
    columns = TreeColumns([FieldShape(*shape) for shape in data.encoder.field_shapes()])
    numbers = rows.part("train", min(MOST_TRAINING_ROWS, most_rows(columns)))
    model = boost(columns, data, numbers, rows.validation, seed=rows.seed, threads=threads)
    predict = by_block(lambda block: np.asarray(model.predict(matrix(columns, data, block))))
    return predict, f"{model.best_iteration} rounds, {len(columns)} columns, {len(numbers):,} rows"
