"""One pass over the training rows: gather, forward, backward, Adam."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Literal, Protocol

import numpy.typing as npt
import torch

from mmlora.batch import Batch
from mmlora.models.crosses.terms import FrozenRows
from mmlora.models.ctr import CTRModel
from mmlora.names import Precision
from mmlora.training.gradients import gradients_of, label_of

__all__ = ["RowNumbers", "RowOrder", "SplitPart", "TrainingData", "label_of", "train_epoch"]

RowNumbers = npt.NDArray[Any]
_BLOCK_ROWS = 4096
"""Rows that are gathered at once, in whole batches."""
SplitPart = Literal["train", "validation", "test"]


class TrainingData(Protocol):
    """Encoded rows with labels, read by row number."""

    @property
    def domain(self) -> npt.NDArray[Any]:
        """Domain index of every row, ``[N]``."""

    @property
    def num_domains(self) -> int:
        """Domains, the indices being 0 to ``num_domains`` - 1."""

    def rows(self, split: SplitPart) -> RowNumbers:
        """Return the row numbers of a split."""

    def batch(self, rows: RowNumbers) -> Batch:
        """Return rows, labels included."""


class RowOrder(Protocol):
    """Every training row once, in the order of an epoch."""

    def __len__(self) -> int:
        """Number of rows."""

    def __getitem__(self, chosen: slice, /) -> RowNumbers:
        """Return the row numbers at these places."""


def train_epoch(
    model: CTRModel,
    optimizer: torch.optim.Optimizer,
    data: TrainingData,
    order: RowOrder,
    batch_size: int,
    *,
    balance: float = 0.0,
    label_smoothing: float = 0.0,
    precision: Precision = "float32",
) -> float:
    """Train on every row once, in the given order; return the mean loss, dropout and penalty included.

    A label y counts as ``y (1 - label_smoothing) + label_smoothing / 2``. The penalty is
    ``balance`` times the gates' mean :func:`~mmlora.models.gate.load_balance`.
    """
    device = next(model.parameters()).device.type
    total = torch.zeros((), dtype=torch.float64, device=device)
    block_rows = batch_size * max(1, _BLOCK_ROWS // batch_size)
    with gradients_of(
        model, precision=precision, balance=balance, label_smoothing=label_smoothing
    ) as gradients:

        def gather(start: int) -> Future[Batch | FrozenRows]:
            rows = order[start : start + block_rows]
            return gradients.submit(lambda: model.freeze(data.batch(rows).to(device)))

        coming = gather(0)
        for start in range(0, len(order), block_rows):
            block = coming.result()
            if start + block_rows < len(order):
                coming = gather(start + block_rows)
            for first in range(0, len(block), batch_size):
                batch = _slice(block, first, batch_size)
                total += gradients(batch).double() * len(batch)
                optimizer.step()
    return float(total) / len(order)


def _slice(block: Batch | FrozenRows, first: int, rows: int) -> Batch | FrozenRows:
    return block.map(lambda values: values[first : first + rows])
