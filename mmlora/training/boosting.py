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

MISSING = "LightGBM isn't installed; `pip install 'mmlora[baselines]'` installs it"
MOST_CELLS = 1 << 28
"""Maximum size of the training matrix: 1 GB of float32."""
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
OnRound = Callable[[int, float, float | None], None]
"""Called with a round's number and the log loss on training and on validation rows after it."""


def installed() -> bool:
    """Return whether LightGBM is installed."""
    return importlib.util.find_spec("lightgbm") is not None


def train_trees(
    spec: ModelSpec,
    data: TrainingData,
    options: TrainingOptions,
    observer: Observer,
    *,
    epochs: int | None = None,
) -> PhaseResult:
    """Phase 1 of the backbone ``gbdt``: train as many rounds as give the least log loss on validation rows.

    A round counts as an epoch. There is no checkpoint, because training takes less than a minute.

    Args:
        spec: the model's specification.
        data: all domains' rows; above 1 GB of columns the trees see a seeded sample, and the report says so.
        options: seed and threads.
        observer: called after every round.
        epochs: train exactly this many rounds, on data whose rows are all for training.
    """
    from mmlora.models.trees.convert import tree_state
    from mmlora.training.phases import PhaseResult

    columns, began, history = TreeColumns(spec.fields), time.monotonic(), list[EpochRecord]()
    rows = sample(data.rows("train"), most_rows(columns), options.seed)
    validation = sample(data.rows("validation"), most_rows(columns), options.seed)
    observer.phase_start("backbone", None, rows=len(rows), max_epochs=epochs or _ROUNDS)

    def on_round(number: int, training: float, validation: float | None) -> None:
        speed = len(rows) * number / max(time.monotonic() - began, 1e-9)
        history.append(EpochRecord(number, training, validation, speed))
        observer.epoch("backbone", None, history[-1])

    booster = boost(
        *(columns, data, rows, validation if epochs is None else None),
        seed=options.seed,
        threads=options.threads,
        rounds=epochs or _ROUNDS,
        on_round=on_round,
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
    """Return how many rows fit into the memory that training trees may use."""
    return MOST_CELLS // max(len(columns), 1)


def boost(
    columns: TreeColumns,
    data: TrainingData,
    rows: RowNumbers,
    validation: RowNumbers | None,
    *,
    seed: int,
    threads: int | None,
    rounds: int = _ROUNDS,
    on_round: OnRound | None = None,
) -> Booster:
    """Train trees; the result doesn't depend on the number of threads.

    Args:
        columns: the trees' inputs.
        data: the data that ``rows`` and ``validation`` refer to.
        rows: row numbers to train on.
        validation: row numbers for choosing the number of rounds; None trains all rounds.
        seed: decides which columns each tree sees.
        threads: threads LightGBM may use; None means all cores.
        rounds: maximum number of trees.
        on_round: called after every round.
    """
    import lightgbm

    options = {**_OPTIONS, "seed": seed, "num_threads": threads or 0}
    train = lightgbm.Dataset(
        matrix(columns, data, rows),
        _labels(data, rows),
        categorical_feature=list(range(columns.categories)),
        params=options,
        free_raw_data=True,
    )
    datasets, names, callbacks = [], [], []
    if on_round is not None:
        datasets, names = [train], [_TRAINING]
    if validation is not None:
        reference = {"reference": train, "params": options}
        datasets.append(
            lightgbm.Dataset(matrix(columns, data, validation), _labels(data, validation), **reference)
        )
        names.append(_VALIDATION)
        callbacks.append(lightgbm.early_stopping(_PATIENCE, verbose=False))
    if on_round is not None:
        callbacks.append(_round_callback(on_round))
    return lightgbm.train(options, train, rounds, datasets, names, callbacks=callbacks)


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


def _round_callback(on_round: OnRound) -> Callable[[Any], None]:
    def after_round(env: Any) -> None:
        losses = {name: value for name, _, value, _ in env.evaluation_result_list}
        on_round(env.iteration + 1, losses[_TRAINING], losses.get(_VALIDATION))

    after_round.order = 10  # type: ignore[attr-defined]  # before early stopping, which ends the last round
    return after_round
