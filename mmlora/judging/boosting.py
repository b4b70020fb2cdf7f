"""LightGBM on the encoded columns, as one would use it in an afternoon (Ke et al., NeurIPS 2017).

Without the user's and the item's own ids, which trees memorise. It comes with the extra ``baselines``.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmlora.judging.rows import MOST_TRAINING_ROWS, Fields, Predict, Rows, by_block, is_id
from mmlora.training.epoch import RowNumbers
from mmlora.training.rows import blocks

MISSING = "LightGBM isn't installed; `pip install 'mmlora[baselines]'` adds it"
_MOST_BAG_COLUMNS = 128
_MOST_CELLS = 1 << 28
"""Of the matrix that it is trained on: 1 GB of float32."""
_ROUNDS, _PATIENCE = 600, 30
_OPTIONS = {
    "objective": "binary",
    "learning_rate": 0.05,
    "min_child_samples": 50,
    "cat_smooth": 20,
    "feature_fraction": 0.5,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
Matrix = npt.NDArray[np.float32]


def installed() -> bool:
    """Say whether LightGBM is installed."""
    return importlib.util.find_spec("lightgbm") is not None


@dataclass(frozen=True)
class _Columns:
    """Where the trees' columns are in a batch: categories first, then numbers, vectors and small bags."""

    categorical: tuple[int, ...]
    vectors: tuple[str, ...]
    bags: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, rows: Rows) -> _Columns:
        fields, encoder = Fields.of(rows.data), rows.data.encoder
        size = {shape.name: shape.size for shape in encoder.field_shapes()}
        return cls(
            tuple(column for column, field in enumerate(fields.categorical) if not is_id(field)),
            tuple(field.name for field in fields.vector),
            tuple((f.name, size[f.name]) for f in fields.bag if size[f.name] <= _MOST_BAG_COLUMNS),
        )

    def matrix(self, rows: Rows, numbers: RowNumbers) -> Matrix:
        """Return the rows' columns, ``[N, C]``."""
        first = self._block(rows, numbers[:1])
        out = np.empty((len(numbers), first.shape[1]), np.float32)
        for place, block in blocks(numbers):
            out[place] = self._block(rows, block)
        return out

    def _block(self, rows: Rows, numbers: RowNumbers) -> Matrix:
        batch = rows.data.batch(numbers)
        categories = batch.categorical[:, list(self.categorical)].numpy().astype(np.float32)
        vectors = [batch.vectors[name].numpy() for name in self.vectors]
        bags = [_multi_hot(batch.bags[name].numpy(), size) for name, size in self.bags]
        return np.concatenate([categories, batch.dense.numpy(), *vectors, *bags], 1)


def fit_boosting(rows: Rows, threads: int | None = None) -> tuple[Predict, str]:
    """Train on training rows, as many rounds as validation rows like best.

    Args:
        rows: the rows; their validation rows have both labels.
        threads: of LightGBM; all cores when None.

    Returns:
        The prediction, and what it is.
    """
    import lightgbm

    columns = _Columns.of(rows)
    width = columns.matrix(rows, rows.validation[:1]).shape[1]
    numbers = rows.part("train", min(MOST_TRAINING_ROWS, _MOST_CELLS // width))
    options = {**_OPTIONS, "seed": rows.seed, "num_threads": threads or 0}
    data = {
        "categorical_feature": list(range(len(columns.categorical))),
        "params": options,
        "free_raw_data": True,
    }
    train = lightgbm.Dataset(columns.matrix(rows, numbers), rows.label(numbers), **data)
    held = columns.matrix(rows, rows.validation)
    valid = lightgbm.Dataset(held, rows.label(rows.validation), reference=train, params=options)
    stop = lightgbm.early_stopping(_PATIENCE, verbose=False)
    model = lightgbm.train(options, train, _ROUNDS, [valid], callbacks=[stop])
    predict = by_block(lambda block: np.asarray(model.predict(columns.matrix(rows, block))))
    return predict, f"{model.best_iteration} rounds, {width} columns, {len(numbers):,} rows"


def _multi_hot(index: npt.NDArray[np.int64], size: int) -> Matrix:
    out = np.zeros((len(index), size), np.float32)
    np.put_along_axis(out, index, 1.0, 1)
    out[:, 0] = 0  # the padding
    return out
