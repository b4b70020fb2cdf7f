"""Fitting the cross terms: logistic regression whose priors are learned from the data.

Weights have Gaussian priors around 0, with one precision per group, i.e. per pair of fields. The precision is
learned from the data (evidence approximation, MacKay 1992, https://doi.org/10.1162/neco.1992.4.3.415): after
each pass the precision of group k becomes ``gamma_k / sum w^2`` with ``gamma_k = sum h / (h + precision_k)``,
the number of weights that the data determines, where h is the curvature of the loss by one weight (the
diagonal of the Hessian). So meaningless products fade out by themselves, a value seen three times stays near
0, and no penalty has to be chosen. The loss is convex and its gradient is written out, so a pass costs a
tenth of one through a tower.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from mmlora.models.crosses.terms import KNOTS, CrossInputs, CrossTerms
from mmlora.training.checkpoint import Checkpoint
from mmlora.training.epoch import RowNumbers, TrainingData, label_of
from mmlora.training.observer import EpochRecord
from mmlora.training.order import ShuffledRows
from mmlora.training.progress import TrainingProgress
from mmlora.training.unknown_ids import in_pass
from mmlora.training.warm import WarmStart

_ROW_VISITS, _MOST_PASSES, _FEWEST_PASSES = 4_000_000, 12, 2
_LEARNING_RATE, _LAST_RATE = 5e-3, 2e-2
_LARGEST_BATCH, _SMALLEST_BATCH, _LEAST_STEPS = 4096, 256, 80
_FIRST_PRECISION, _PRECISIONS = 30.0, (1.0, 1e5)
_CURVATURE_EVERY = 4  # batches: the curvature is a mean over the rows, for which a sample is enough
_KNOT_ROWS = 100_000
_PARAMETERS = ("weight", "domain_user", "domain_item", "basis", "pair", "table")


def passes_over(rows: int) -> int:
    """Return the number of passes over this many rows: from 12 for few rows down to 2 for millions."""
    return min(_MOST_PASSES, max(_FEWEST_PASSES, -(-_ROW_VISITS // max(rows, 1))))


def fit_crosses(
    crosses: CrossTerms,
    data: TrainingData,
    rows: RowNumbers,
    *,
    measure: Callable[[], float] | None,
    higher_is_better: bool,
    generator: np.random.Generator,
    on_epoch: Callable[[EpochRecord], None],
    checkpoint: Checkpoint,
    warm: WarmStart | None = None,
) -> TrainingProgress:
    """Fit the terms' own weights, not the experts', on all of ``rows``; keep the weights after the last pass.

    Args:
        crosses: the terms, on the device to train on.
        data: the data.
        rows: row numbers to fit on.
        measure: returns the terms' metric, for the report, before the first pass and after the last; None
            reports no metric.
        higher_is_better: whether a higher metric is better.
        generator: decides the order of rows.
        on_epoch: called after every pass.
        checkpoint: saved after every pass; training resumes from what it holds.
        warm: the weights to begin with; None for a cold start.
    """
    fit = CrossFit(crosses, len(rows))
    parameters = [*fit.parameters.values(), crosses.precision, crosses.knots]
    progress = TrainingProgress(parameters, fit.optimizer, generator)
    if not progress.restore(checkpoint.load()):
        _start(crosses, data, rows)
        if warm is not None:
            warm.carry_crosses(crosses)
        progress.start(measure() if measure else None)
    passes = passes_over(len(rows))
    while progress.epoch < passes:
        began = time.perf_counter()
        order, done = ShuffledRows(rows, generator), progress.epoch / passes
        loss = fit.go_over(in_pass(data, progress.epoch), order, done, 1 / passes)
        speed = len(rows) / max(time.perf_counter() - began, 1e-9)
        # Nothing is chosen between passes, so only the last is measured.
        metric = measure() if measure and progress.epoch + 1 == passes else None
        record = EpochRecord(progress.epoch + 1, loss, metric, speed)
        progress.add(record, higher_is_better=higher_is_better)
        checkpoint.save(progress.state())
        on_epoch(record)
    return progress


class CrossFit:
    """Adam on the penalised loss, and the precisions after each pass."""

    def __init__(self, crosses: CrossTerms, rows: int) -> None:
        self.crosses, self.rows = crosses, rows
        self.parameters = {name: crosses.get_parameter(name) for name in _PARAMETERS}
        self.batch = min(_LARGEST_BATCH, max(_SMALLEST_BATCH, rows // _LEAST_STEPS))
        self.optimizer = torch.optim.Adam(self.parameters.values(), betas=(0.9, 0.99), fused=True)
        groups, _ = crosses.groups()
        self.groups = {name: group.to(crosses.precision.device) for name, group in groups.items()}
        # A missing value and a domain absent at training have weight 0.
        self.held = torch.tensor([term.start for term in crosses.terms], dtype=torch.int64)

    @torch.no_grad()
    def go_over(self, data: TrainingData, order: ShuffledRows, done: float, share: float) -> float:
        """Make one pass and return the mean loss; ``done`` is the share of all training already done."""
        decay = {name: self.crosses.precision[group] / self.rows for name, group in self.groups.items()}
        curvature = {name: torch.zeros_like(value) for name, value in self.parameters.items()}
        starts = range(0, len(order), self.batch)
        total = 0.0
        with ThreadPoolExecutor(1, "crosses", torch.set_num_threads, (1,)) as pool:
            coming = pool.submit(self._prepare, data, order[: self.batch])
            for step, start in enumerate(starts):
                inputs, label = coming.result()
                if start + self.batch < len(order):
                    following = order[start + self.batch : start + 2 * self.batch]
                    coming = pool.submit(self._prepare, data, following)
                rate = max(1 - done - share * step / len(starts), _LAST_RATE)
                self.optimizer.param_groups[0]["lr"] = _LEARNING_RATE * rate
                observed = curvature if step % _CURVATURE_EVERY == 0 else None
                total += self._step(inputs, label, decay, observed) * len(label)
        seen = sum(min(self.batch, len(order) - start) for start in starts[::_CURVATURE_EVERY])
        self._learn_precisions(curvature, len(order) / seen)
        return total / len(order)

    @torch.no_grad()
    def _prepare(self, data: TrainingData, rows: RowNumbers) -> tuple[CrossInputs, Tensor]:
        """Read rows and compute their inputs, which costs as much as a step, beside the step before."""
        batch = data.batch(rows).to(self.crosses.weight.device.type)
        return self.crosses.inputs(batch), label_of(batch)

    def _step(
        self,
        inputs: CrossInputs,
        label: Tensor,
        decay: dict[str, Tensor],
        curvature: dict[str, Tensor] | None,
    ) -> float:
        logits = self.crosses.backbone(inputs)
        probability = torch.sigmoid(logits)
        slopes = (probability - label) / len(label)
        for name, slope in self.sums(inputs, slopes, squared=False).items():
            parameter = self.parameters[name]
            parameter.grad = slope.addcmul_(decay[name], parameter)
        self.optimizer.step()
        if curvature is not None:
            found = self.sums(inputs, probability * (1 - probability), squared=True)
            for name, value in found.items():
                curvature[name] += value
        return float(torch.nn.functional.binary_cross_entropy_with_logits(logits, label))

    def sums(self, inputs: CrossInputs, rows: Tensor, *, squared: bool) -> dict[str, Tensor]:
        """Sum ``rows [B]`` times each weight's input, or its square, over the batch."""
        user, item, shares, pairs = inputs.user, inputs.item, inputs.shares, inputs.pairs
        rest = 1 - shares
        if squared:
            user, item, shares, rest = user * user, item * item, shares * shares, rest * rest
            pairs = pairs * pairs
        by_row = rows[:, None]
        of_user, of_item = user * by_row, item * by_row
        zeros = {name: torch.zeros_like(value) for name, value in self.parameters.items()}
        zeros["weight"] = of_user.t() @ item
        zeros["domain_user"].index_add_(0, inputs.domain, of_user)[0] = 0
        zeros["domain_item"].index_add_(0, inputs.domain, of_item)[0] = 0
        zeros["pair"].index_add_(0, inputs.domain, pairs * by_row)
        zeros["pair"][0] = zeros["pair"].sum(0)
        self._add_effects(zeros["basis"], inputs, rest * by_row, shares * by_row)
        spread = by_row.expand(-1, inputs.places.shape[1]).reshape(-1)
        zeros["table"].index_add_(0, inputs.places.reshape(-1), spread)[self.held] = 0
        return zeros

    def _add_effects(self, basis: Tensor, inputs: CrossInputs, below: Tensor, above: Tensor) -> None:
        """Add each row's contribution to the knots below and above its numbers, in its domain and overall."""
        width = basis.shape[1]
        if not width:
            return
        own = inputs.knots + (inputs.domain * width)[:, None]
        basis = basis.view(-1).index_add_(0, own.reshape(-1), below.reshape(-1))
        basis = basis.index_add_(0, own.reshape(-1) + 1, above.reshape(-1)).view(-1, width)
        basis[0] = basis.sum(0)

    def _learn_precisions(self, curvature: dict[str, Tensor], scale: float) -> None:
        precision = self.crosses.precision
        determined, squares = torch.zeros_like(precision), torch.zeros_like(precision)
        for name, group in self.groups.items():
            own = curvature[name] * scale
            seen = own > 0
            share, weight = own / (own + precision[group]), self.parameters[name]
            determined.index_add_(0, group[seen], share[seen])
            squares.index_add_(0, group[seen], weight[seen].square())
        learned = (determined / squares.clamp(min=1e-6)).clamp(*_PRECISIONS)
        learned[0] = 0.0
        precision.copy_(torch.where(determined > 0, learned, precision))


@torch.no_grad()
def _start(crosses: CrossTerms, data: TrainingData, rows: RowNumbers) -> None:
    """Set the bias to the overall rate, and each number's knots to its quantiles in a sample of rows."""
    some = data.batch(np.asarray(rows[:: -(-len(rows) // _KNOT_ROWS)]))
    crosses.precision.fill_(_FIRST_PRECISION)[0] = 0.0
    rate = label_of(some).double().mean().clamp(1e-6, 1 - 1e-6)
    crosses.weight[0, 0] = torch.logit(rate)
    if len(crosses.knots):
        numbers = some.dense[:, [*crosses.user.dense, *crosses.item.dense]].numpy()
        quantiles = np.quantile(numbers, np.linspace(0, 1, KNOTS), axis=0)
        crosses.knots.copy_(torch.from_numpy(quantiles.T.astype(np.float32)))
