"""One loop for every phase: vectorised batches, Adam, early stopping on the metric that it is given.

A batch is a slice of a seeded order of row numbers; there is no loader and no worker process. The same
seed, machine and number of threads give the same weights, in one go or killed and called again.
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
        """The device that ``device`` stands for here."""
        if self.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        return self.device


@dataclass(frozen=True)
class Fit:
    """What a run of the loop did; the model holds the best weights."""

    start_metric: float | None
    best_metric: float | None
    best_epoch: int
    history: tuple[EpochRecord, ...]
    seconds: float


@contextmanager
def reproducible(options: TrainingOptions, *key: int) -> Iterator[np.random.Generator]:
    """Seed torch by the options' seed and ``key`` and set its threads; both are put back afterwards.

    Yields:
        A numpy generator of the same seed, for the order of rows.
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
    """Yield the logits and labels of ``rows`` block by block, each with its place among them."""
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
    """Return logits and labels of ``rows``, each ``[len(rows)]``; of many rows they lie in scratch files."""
    logits, labels = scratch(len(rows), np.float32), scratch(len(rows), np.float32)
    for place, *found in predictions(model, data, rows):
        logits[place], labels[place] = found
    return logits, labels


def _out_of_patience(progress: TrainingProgress, patience: int, sooner: int) -> bool:
    """Whether to stop early; where no epoch has gained anything over the start, some epochs sooner."""
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
    """Train ``parameters`` only, and leave the model with the best weights seen, the start's included.

    Args:
        model: on the device to train on.
        parameters: what may change; the rest is frozen, bit for bit.
        data: the rows.
        rows: row numbers to train on.
        measure: the metric, on validation rows; None: all ``max_epochs`` are run, and the last is kept.
        higher_is_better: its direction.
        learning_rate: Adam's.
        dropout: whether hidden units are dropped in training.
        balance: weight of the penalty on experts that are used unequally.
        leave_start: moves the parameters from the start that is measured, and kept when nothing beats it, to
            where training begins; None where that is the same.
        also_moved: what it moves besides, and what goes back with the parameters.
        options: batch size, epochs, patience, weight decay, label smoothing.
        generator: decides the order of rows.
        on_epoch: told of every epoch, once it is in the checkpoint.
        checkpoint: keeps every epoch; what it holds already is gone on from.
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
    # What leaves its start may need an epoch to come back to it.
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
