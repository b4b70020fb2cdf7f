"""Loss and gradients of one batch.

On CPU a batch is taken in slices whose activations stay in the processor's cache, by Python threads with one
torch thread each (torch lets go of Python's lock while it computes). The sum over the slices is the batch's
gradient within rounding; slices, their dropout and the order of summation follow from the batch alone, not
from the threads, so the same seed gives the same weights. The embedding table's gradient is written into one
tensor that lives as long as the epoch: only rows of the batch are added to and put back to 0, so a step on a
large table doesn't allocate and fill a copy of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlora.batch import Batch
from mmlora.errors import UsageError
from mmlora.models.crosses.terms import FrozenRows
from mmlora.models.ctr import CTRModel
from mmlora.models.dropout import masks_from
from mmlora.models.gate import load_balance
from mmlora.names import Precision

_SLICE_ROWS = 1024
# Above so many table rows for each row of it that a batch reads, putting those back to 0 is the faster way.
_SPARSE = 8
T = TypeVar("T")


def label_of(batch: Batch | FrozenRows) -> Tensor:
    """Return a batch's labels (``UsageError`` when it has none)."""
    if batch.label is None:
        raise UsageError("the training data's batches have no labels: encode the label column as well")
    return batch.label


class Gradients:
    """Gives a model's trainable parameters their gradients, batch by batch.

    Args:
        model: on the device to train on; what doesn't require a gradient gets none.
        precision: of the forward pass; loss, gradients and weights are float32 throughout.
        balance: weight of the gates' mean :func:`~mmlora.models.gate.load_balance`, a penalty on a whole
            batch, which then is one slice.
        label_smoothing: share s, in [0, 0.5), of each label y in the loss: ``y (1 - s) + s / 2``.
        threads: to compute in.
    """

    def __init__(
        self,
        model: CTRModel,
        *,
        precision: Precision,
        balance: float,
        threads: int,
        label_smoothing: float = 0.0,
    ) -> None:
        self._model, self._precision, self._balance = model, precision, balance
        self._label_smoothing = label_smoothing
        self._device = next(model.parameters()).device.type
        self._table = model.embedding.table
        self._parameters = [
            parameter
            for parameter in model.parameters()
            if parameter.requires_grad and parameter is not self._table
        ]
        self._places: Tensor | None = None
        self._pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))

    def submit(self, task: Callable[[], T]) -> Future[T]:
        """Run a task beside the slices."""
        return self._pool.submit(task)

    def close(self) -> None:
        """End the threads and let the gradients go."""
        self._pool.shutdown()
        for parameter in (*self._parameters, self._table):
            parameter.grad = None

    def __call__(self, batch: Batch | FrozenRows) -> Tensor:
        """Set the gradients of a batch's mean loss; return that loss, dropout and penalty included."""
        if self._device != "cpu":
            return self._whole(batch)
        # A small batch, too, should have work for two cores.
        size = len(batch) if self._balance else min(_SLICE_ROWS, -(-len(batch) // 2))
        starts = range(0, len(batch), size)
        seeds = torch.randint(1 << 62, (len(starts),)).tolist()
        places = None
        if self._table.requires_grad and isinstance(batch, Batch):
            places = self._model.embedding.places(batch)
            self._clear_table(places)
        slices = [
            self._pool.submit(self._slice, batch, places, start, start + size, seed)
            for start, seed in zip(starts, seeds, strict=True)
        ]
        total, sums = torch.zeros(()), None
        for start, task in zip(starts, slices, strict=True):
            loss, by_row, gradients = task.result()
            total += loss
            if by_row is not None and places is not None and self._table.grad is not None:
                where = (places[start : start + size].reshape(-1),)
                self._table.grad.index_put_(where, by_row.flatten(0, 1), accumulate=True)
            if sums is None:
                sums = gradients
            else:
                torch._foreach_add_(sums, gradients)
        for parameter, gradient in zip(self._parameters, sums or (), strict=True):
            parameter.grad = gradient
        return total

    def _clear_table(self, places: Tensor) -> None:
        """Put the table's gradient to 0 where the last batch left it otherwise."""
        before, self._places = self._places, places
        if self._table.grad is None:
            self._table.grad = torch.zeros_like(self._table)
        elif before is None or before.numel() * _SPARSE > len(self._table):
            self._table.grad.zero_()
        else:
            self._table.grad.index_fill_(0, before.reshape(-1), 0.0)

    def _slice(
        self, batch: Batch | FrozenRows, places: Tensor | None, start: int, stop: int, seed: int
    ) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        """Return a slice's part of the mean loss, and its gradients: of the table's rows, of the rest."""
        part = batch.map(lambda values: values[start:stop])
        found = None
        if places is not None:
            found = F.embedding(places[start:stop], self._table.detach()).requires_grad_(True)
        with masks_from(seed):
            loss = self._loss(part, found) * (len(part) / len(batch))
        wanted = self._parameters if found is None else [found, *self._parameters]
        gradients = list(torch.autograd.grad(loss, wanted, materialize_grads=True))
        return loss.detach(), None if found is None else gradients.pop(0), gradients

    def _whole(self, batch: Batch | FrozenRows) -> Tensor:
        loss = self._loss(batch, None)
        for parameter in (*self._parameters, self._table):
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _loss(self, batch: Batch | FrozenRows, found: Tensor | None) -> Tensor:
        with torch.autocast(self._device, torch.bfloat16, enabled=self._precision == "bfloat16"):
            logits, gates = self._model.forward_with_gates(batch, found)
        label = label_of(batch) * (1 - self._label_smoothing) + self._label_smoothing / 2
        loss = F.binary_cross_entropy_with_logits(logits.float(), label)
        if self._balance and gates:
            penalties = [load_balance(weights.float()) for weights in gates]
            loss = loss + self._balance * torch.stack(penalties).mean()
        return loss


@contextmanager
def gradients_of(
    model: CTRModel, *, precision: Precision, balance: float, label_smoothing: float = 0.0
) -> Iterator[Gradients]:
    """Make :class:`Gradients` in as many threads as torch has; meanwhile torch itself has one."""
    threads = torch.get_num_threads()
    gradients = Gradients(
        model, precision=precision, balance=balance, threads=threads, label_smoothing=label_smoothing
    )
    try:
        torch.set_num_threads(1)
        yield gradients
    finally:
        gradients.close()
        torch.set_num_threads(threads)
