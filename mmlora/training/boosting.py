"""LightGBM on the encoded columns (Ke et al., NeurIPS 2017): the backbone ``gbdt``, and a baseline.

It comes with the extra ``baselines``; only training needs it.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmlora.models.spec import ModelSpec
from mmlora.models.trees.columns import TreeColumns
from mmlora.training.epoch import RowNumbers, TrainingData, label_of
from mmlora.training.observer import EpochRecord, Observer, PhaseReport
from mmlora.training.rows import blocks, sample

if TYPE_CHECKING:
    from lightgbm import Booster

    from mmlora.training.loop import TrainingOptions
    from mmlora.training.phases import PhaseResult

MISSING = "LightGBM isn't installed; `pip install 'mmlora[baselines]'` adds it"
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
    "force_col_wise": True,
    "verbosity": -1,
}
_TRAINING, _VALIDATION = "training", "validation"
Told = Callable[[int, float, float | None], None]
"""Told a round, and the log loss of training and of validation rows after it."""


def installed() -> bool:
    """Say whether LightGBM is installed."""
    return importlib.util.find_spec("lightgbm") is not None


def train_trees(
    spec: ModelSpec,
    data: TrainingData,
    options: TrainingOptions,
    observer: Observer,
    *,
    epochs: int | None = None,
) -> PhaseResult:
    """Phase 1 of the backbone ``gbdt``: the number of rounds with the least log loss on validation rows.

    A round counts as an epoch. There is no checkpoint, for training takes less than a minute.

    Args:
        spec: the model's.
        data: all domains' rows; above 1 GB of columns trees see a seeded sample, which the report says.
        options: seed and threads.
        observer: told of every round.
        epochs: train exactly so many rounds, on data whose rows are all for training.
    """
    from mmlora.models.trees.convert import tree_state
    from mmlora.training.phases import PhaseResult

    columns, began, history = TreeColumns(spec.fields), time.monotonic(), list[EpochRecord]()
    rows = sample(data.rows("train"), most_rows(columns), options.seed)
    validation = sample(data.rows("validation"), most_rows(columns), options.seed)
    observer.phase_start("backbone", None, rows=len(rows), max_epochs=epochs or _ROUNDS)

    def told(number: int, training: float, held: float | None) -> None:
        speed = len(rows) * number / max(time.monotonic() - began, 1e-9)
        history.append(EpochRecord(number, training, held, speed))
        observer.epoch("backbone", None, history[-1])

    booster = boost(
        *(columns, data, rows, validation if epochs is None else None),
        seed=options.seed,
        threads=options.threads,
        rounds=epochs or _ROUNDS,
        told=told,
    )
    best = epochs or booster.best_iteration
    total = len(data.rows("train"))
    report = PhaseReport(
        phase="backbone",
        domain=None,
        slot=0,
        metric="logloss",
        start_metric=None,
        best_metric=history[best - 1].metric,
        best_epoch=best,
        epochs=len(history),
        helped=True,
        history=tuple(history),
        seconds=time.monotonic() - began,
        rows=len(rows),
        note="" if len(rows) == total else f"trained on a sample of {len(rows):,} of {total:,} rows",
    )
    observer.phase_end(report)
    return PhaseResult(tree_state(booster.dump_model(num_iteration=best)), report)


def most_rows(columns: TreeColumns) -> int:
    """Return how many rows fit the memory that trees are trained in."""
    return _MOST_CELLS // max(len(columns), 1)


def boost(
    columns: TreeColumns,
    data: TrainingData,
    rows: RowNumbers,
    validation: RowNumbers | None,
    *,
    seed: int,
    threads: int | None,
    rounds: int = _ROUNDS,
    told: Told | None = None,
) -> Booster:
    """Train trees, the same for any number of threads.

    Args:
        columns: what they see.
        data: where the rows are.
        rows: to train on.
        validation: to choose the rounds on; all of them are trained when None.
        seed: of the columns that a tree sees.
        threads: of LightGBM; all cores when None.
        rounds: trees at most.
        told: of every round.
    """
    import lightgbm

    options = {**_OPTIONS, "seed": seed, "num_threads": threads or 0}
    common: dict[str, Any] = {
        "categorical_feature": list(range(columns.categories)),
        "params": options,
        "free_raw_data": True,
    }
    train = lightgbm.Dataset(matrix(columns, data, rows), _labels(data, rows), **common)
    held, names, callbacks = [], [], []
    if told is not None:
        held, names = [train], [_TRAINING]
    if validation is not None:
        reference = {"reference": train, "params": options}
        held.append(
            lightgbm.Dataset(matrix(columns, data, validation), _labels(data, validation), **reference)
        )
        names.append(_VALIDATION)
        callbacks.append(lightgbm.early_stopping(_PATIENCE, verbose=False))
    if told is not None:
        callbacks.append(_teller(told))
    return lightgbm.train(options, train, rounds, held, names, callbacks=callbacks)


def matrix(columns: TreeColumns, data: TrainingData, rows: RowNumbers) -> npt.NDArray[np.float32]:
    """Return the rows' columns, ``[N, C]``."""
    out = np.empty((len(rows), len(columns)), np.float32)
    for place, block in blocks(rows):
        out[place] = columns(data.batch(block)).numpy()
    return out


def _labels(data: TrainingData, rows: RowNumbers) -> npt.NDArray[np.float32]:
    out = np.empty(len(rows), np.float32)
    for place, block in blocks(rows):
        out[place] = label_of(data.batch(block)).numpy()
    return out


def _teller(told: Told) -> Callable[[Any], None]:
    def after_round(env: Any) -> None:
        losses = {name: value for name, _, value, _ in env.evaluation_result_list}
        told(env.iteration + 1, losses[_TRAINING], losses.get(_VALIDATION))

    after_round.order = 10  # type: ignore[attr-defined]  # before early stopping, which ends the last round
    return after_round
