"""One loop for every phase: vectorised batches, Adam, early stopping on a given metric.

A batch is a slice of a seeded order of row numbers; there is no loader and no worker process. The same seed,
machine and number of threads give the same weights, whether a run is uninterrupted or killed and resumed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mmlora.errors import UsageError
from mmlora.hyperparameters import Optimisation
from mmlora.hyperparameters.setting import faults_in
from mmlora.models.builder import Model
from mmlora.models.ctr import CTRModel
from mmlora.numerics import warn_of_own_setting
from mmlora.training.checkpoint import Checkpoint, NoCheckpoint
from mmlora.training.epoch import RowNumbers, TrainingData, label_of, train_epoch
from mmlora.training.observer import EpochRecord
from mmlora.training.order import ShuffledRows
from mmlora.training.progress import TrainingProgress
from mmlora.training.rows import blocks, scratch
from mmlora.training.unknown_ids import in_pass


@dataclass(frozen=True)
class TrainingOptions(Optimisation):
    """How to optimise, as :mod:`mmlora.hyperparameters` declares it.

    Raises:
        UsageError: a value is out of range; every fault is named.
    """

    def __post_init__(self) -> None:
        faults = faults_in(self)
        if self.device == "cuda" and not torch.cuda.is_available():
            faults.append("device 'cuda' is not available on this machine: use auto or cpu")
        if faults:
            raise UsageError("training: " + "; ".join(faults))

    @property
    def torch_device(self) -> str:
        """The device that ``device`` means on this machine."""
        if self.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        return self.device


@dataclass(frozen=True)
class Fit:
    """The outcome of a run of the loop; the model has the best weights."""

    start_metric: float | None
    best_metric: float | None
    best_epoch: int
    history: tuple[EpochRecord, ...]
    seconds: float


@contextmanager
def reproducible(options: TrainingOptions, *key: int) -> Iterator[np.random.Generator]:
    """Seed torch from the options' seed and ``key`` and set its threads; both are restored afterwards.

    Yields:
        A numpy generator with the same seed, for the order of rows.
    """
    warn_of_own_setting()
    threads = torch.get_num_threads()
    sequence = np.random.SeedSequence([options.seed, *key])
    with torch.random.fork_rng():
        torch.manual_seed(int(sequence.generate_state(1)[0]))
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        try:
            yield np.random.default_rng(sequence)
        finally:
            torch.set_num_threads(threads)


def predictions(
    model: Model, data: TrainingData, rows: RowNumbers
) -> Iterator[tuple[slice, npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """Yield the logits and labels of ``rows`` block by block, each with the slice of ``rows`` it covers."""
    model.eval()
    device = next(model.parameters()).device.type
    for place, block in blocks(rows):
        batch = data.batch(block)
        with torch.inference_mode():
            logits = model(batch.to(device)).cpu().numpy()
        yield place, logits, label_of(batch).cpu().numpy()


def predict(
    model: Model, data: TrainingData, rows: RowNumbers
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return logits and labels of ``rows``, each ``[len(rows)]``; for many rows they are in scratch files."""
    logits, labels = scratch(len(rows), np.float32), scratch(len(rows), np.float32)
    for place, *found in predictions(model, data, rows):
        logits[place], labels[place] = found
    return logits, labels


def _out_of_patience(progress: TrainingProgress, patience: int, sooner: int) -> bool:
    """Return whether to stop early: ``sooner`` epochs earlier if no epoch has been better than the start."""
    gained = progress.best_epoch > 0
    return progress.epochs_without_gain >= (patience if gained else max(1, patience - sooner))


def fit(
    model: CTRModel,
    parameters: Sequence[nn.Parameter],
    data: TrainingData,
    rows: RowNumbers,
    *,
    measure: Callable[[CTRModel], float] | None,
    higher_is_better: bool,
    learning_rate: float,
    dropout: bool,
    balance: float = 0.0,
    leave_start: Callable[[], None] | None = None,
    also_moved: Sequence[torch.Tensor] = (),
    options: TrainingOptions,
    generator: np.random.Generator,
    on_epoch: Callable[[EpochRecord], None],
    checkpoint: Checkpoint | None = None,
) -> Fit:
    """Train only ``parameters``, and leave the model with the best weights seen, including the start's.

    Args:
        model: the model, on the device to train on.
        parameters: the parameters to train; all others are frozen, bit for bit.
        data: the data.
        rows: row numbers to train on.
        measure: returns the metric on validation rows; None runs all ``max_epochs`` and keeps the last.
        higher_is_better: whether a higher metric is better.
        learning_rate: Adam's learning rate.
        dropout: whether hidden units are dropped in training.
        balance: weight of the penalty on unequal use of experts.
        leave_start: moves the parameters from the measured start, which is kept if nothing beats it, to
            where training begins; None if training begins at the start.
        also_moved: other tensors that ``leave_start`` moves, restored together with the parameters.
        options: batch size, epochs, patience, weight decay, label smoothing.
        generator: decides the order of rows.
        on_epoch: called after every epoch, once it is in the checkpoint.
        checkpoint: saved after every epoch; training resumes from what it holds.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(parameters, lr=learning_rate, weight_decay=options.weight_decay, fused=True)
    checkpoint = checkpoint or NoCheckpoint()
    progress = TrainingProgress([*parameters, *also_moved], optimizer, generator)
    if not progress.restore(checkpoint.load()):
        progress.start(measure(model) if measure else None)
        if leave_start is not None:
            leave_start()
    # Training that begins away from the start may need an epoch to get back to it.
    sooner = 0 if leave_start else 1
    while progress.epoch < options.max_epochs and not _out_of_patience(progress, options.patience, sooner):
        began = time.perf_counter()
        model.train(dropout)
        order = ShuffledRows(rows, generator)
        loss = train_epoch(
            *(model, optimizer, in_pass(data, progress.epoch), order, options.batch_size),
            balance=balance,
            label_smoothing=options.label_smoothing,
            precision=options.precision,
        )
        speed = len(rows) / max(time.perf_counter() - began, 1e-9)
        record = EpochRecord(progress.epoch + 1, loss, measure(model) if measure else None, speed)
        progress.add(record, higher_is_better=higher_is_better)
        checkpoint.save(progress.state())
        on_epoch(record)
    progress.keep_best()
    model.eval()
    return Fit(
        *(progress.start_metric, progress.best_metric, progress.best_epoch),
        tuple(progress.history),
        progress.seconds,
    )
