"""One pass over the training rows: gather, forward, backward, Adam."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from mmlora.batch import Batch
from mmlora.errors import UsageError
from mmlora.models.ctr import CTRModel
from mmlora.models.gate import load_balance

RowNumbers = npt.NDArray[Any]
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


def train_epoch(
    model: CTRModel,
    optimizer: torch.optim.Optimizer,
    data: TrainingData,
    order: RowNumbers,
    batch_size: int,
    *,
    balance: float = 0.0,
) -> float:
    """Train on every row once, in the given order; return the mean loss, dropout and penalty included.

    The penalty is ``balance`` times the gates' mean :func:`~mmlora.models.gate.load_balance`.
    """
    device = next(model.parameters()).device.type
    total = torch.zeros((), dtype=torch.float64, device=device)
    for start in range(0, len(order), batch_size):
        batch = data.batch(order[start : start + batch_size]).to(device)
        logits, gates = model.forward_with_gates(batch)
        loss = F.binary_cross_entropy_with_logits(logits, label_of(batch))
        if balance and gates:
            loss = loss + balance * torch.stack([load_balance(weights) for weights in gates]).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.detach().double() * len(batch)
    return float(total) / len(order)


def label_of(batch: Batch) -> Tensor:
    """Return a batch's labels (``UsageError`` when it has none)."""
    if batch.label is None:
        raise UsageError("the training data's batches have no labels: encode the label column as well")
    return batch.label
