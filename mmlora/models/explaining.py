"""The parts of one row's logit: each product of fields, the backbone, each expert. They add up to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from mmlora.batch import Batch
from mmlora.models.builder import Model
from mmlora.models.crosses.terms import CrossTerms
from mmlora.models.ctr import CTRModel
from mmlora.models.sharing import shallow_copy
from mmlora.models.trees.model import TreeModel
from mmlora.models.trees.paths import path_parts
from mmlora.records import Record

PartKind = Literal["cross terms", "backbone", "expert", "trees"]
HISTORY = "item history"
_LINEAR = ("weight", "domain_user", "domain_item", "basis", "pair", "table")


@dataclass(frozen=True)
class LogitPart(Record):
    """A part of a logit.

    Attributes:
        kind: what computes it.
        name: the pair of fields of cross terms, the domain of an expert, the field that trees read, else the
            kind.
        value: the part, in the logit's unit (log odds before calibration).
    """

    kind: PartKind
    name: str
    value: float


def logit_parts(model: Model, batch: Batch, expert_names: list[str]) -> list[LogitPart]:
    """Return the parts of one row's logit, experts last.

    Cross terms are linear in their weights, so each weight's share is exact. Experts act inside of the tower
    and not independently, so an expert's part is what it adds to those with larger gate weights. Trees are
    explained by :mod:`mmlora.models.trees.paths`.

    Args:
        model: the model, which isn't changed.
        batch: one row.
        expert_names: a name for each of the model's experts.
    """
    if isinstance(model, TreeModel):
        return [LogitPart("trees", name, value) for name, value in path_parts(model, batch).items()]
    crosses = [] if model.crosses is None else _cross_parts(model.crosses, batch)
    with torch.inference_mode():
        alone = _with_experts(model, None)(batch)
        backbone = float(alone[0]) - sum(part.value for part in crosses)
        parts = [*crosses, LogitPart("backbone", "backbone", backbone)]
        weights = model.gate_weights(batch)
        if weights is None:
            return parts
        kept, before = torch.zeros_like(weights[0]), float(alone[0])
        for expert in weights[0].argsort(descending=True, stable=True).tolist():
            if not weights[0, expert]:
                continue
            kept[expert] = 1.0
            after = float(_with_experts(model, kept)(batch)[0])
            parts.append(LogitPart("expert", expert_names[expert], after - before))
            before = after
    return parts


class _Masked(nn.Module):
    """A gate that gives some experts no weight."""

    def __init__(self, gate: nn.Module, kept: Tensor) -> None:
        super().__init__()
        self.gate, self.kept = gate, kept
        self.weight = getattr(gate, "weight", None)  # tells whether the gate reads the row

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        """Return the kept experts' weights, ``[B, E]``."""
        return cast(Tensor, self.gate(x, domain)) * self.kept


def _with_experts(model: CTRModel, kept: Tensor | None) -> CTRModel:
    """Return the model with some of its experts; with None without any."""
    copy = shallow_copy(model).eval()
    if kept is None or copy.gate is None:
        copy.gate = None
    elif isinstance(copy.gate, nn.ModuleList):
        copy.gate = nn.ModuleList(_Masked(gate, kept) for gate in copy.gate)
    else:
        copy.gate = _Masked(copy.gate, kept)
    return copy


def _cross_parts(crosses: CrossTerms, batch: Batch) -> list[LogitPart]:
    """Return each group's part of one row's cross terms: its weights times the slopes by them."""
    own = shallow_copy(crosses)
    for name in _LINEAR:
        setattr(own, name, nn.Parameter(crosses.get_parameter(name).detach(), True))
    values = [own.get_parameter(name) for name in _LINEAR]
    with torch.enable_grad():
        terms = own.backbone(own.inputs(batch)).sum()
        slopes = torch.autograd.grad(terms, values, allow_unused=True)
    groups, names = crosses.groups()
    sums = torch.zeros(len(names), dtype=torch.float64)
    for name, value, slope in zip(_LINEAR, values, slopes, strict=True):
        if slope is not None:
            share = (value.detach() * slope).double()
            sums.index_add_(0, groups[name].reshape(-1), share.reshape(-1))
    named = zip(names, sums.tolist(), strict=True)
    parts = [LogitPart("cross terms", name, value) for name, value in named if value]
    if crosses.history:
        history = float((crosses.history_weight * crosses.history.number(batch))[0])
        parts.append(LogitPart("cross terms", HISTORY, history))
    return parts
