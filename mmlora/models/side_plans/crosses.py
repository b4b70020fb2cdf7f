"""Cross terms: for a fixed domain, one number per side plus a dot product of one vector per side.

The user's vector has the weights of the item's columns, ``u W + Q_d``, and the item's vector has those
columns. The weights of a large field's value combined with a small field of the other side add further
products to the dot product: the small field's columns times the weights of all its values.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmlora.batch import Batch
from mmlora.models.crosses.columns import Role, SideColumns
from mmlora.models.crosses.sparse import SparseTerm
from mmlora.models.crosses.terms import CrossTerms
from mmlora.models.side_plans.pairs import Pairs
from mmlora.models.side_plans.parts import SideTensors
from mmlora.models.spec import FieldShape


class CrossPlan:
    """The cross terms of one domain, in float32.

    Args:
        crosses: the cross terms, folded as far as the gate allows.
        fields: shapes of all of the model's inputs.
        domain: the domain's index; -1 for one absent at training.
    """

    def __init__(self, crosses: CrossTerms, fields: tuple[FieldShape, ...], *, domain: int) -> None:
        self._crosses, self._domain = crosses, domain
        self._experts = len(crosses.lora_a) > 0
        self._first = 3 if self._experts else 2
        self._looked_up = [pair for pair in crosses.pairs if crosses.item.start(pair.item) is None]
        # A side's batch has only the side's own fields, so their columns are at different positions.
        of_item = {role: [f for f in fields if (f.side == "item") == (role == "item")] for role in _ROLES}
        self._columns = {role: SideColumns(of_item[role], role) for role in _ROLES}

    @property
    def tensors(self) -> int:
        """Number of tensors that :meth:`side` returns."""
        return self._first + len(self._looked_up)

    def side(self, batch: Batch, role: Role) -> SideTensors:
        """-> terms ``[n]``, factors of the dot product ``[n, K]``, and those of the experts ``[n, E, R]``."""
        crosses, side = self._crosses, self._columns[role]
        columns = side(batch)
        domain = torch.full((len(batch),), self._domain, dtype=torch.int64, device=columns.device)
        index = {field.name: side.index(batch, field) for field in side.large}
        terms = self._own(batch, role, index, domain)
        if role == "user":
            known = int(self._domain + 1 if crosses.num_domains else 0)
            terms = terms + columns @ crosses.domain_user[known]
            factors = [columns @ crosses.weight + crosses.domain_item[known]]
            looked_up = self._add_worths(batch, factors[0], known)
        else:
            factors = [columns]
            looked_up = [side.index(batch, pair.item) for pair in self._looked_up]
        factors += [self._across(batch, role, term, index) for term in crosses.terms if term.small]
        if crosses.history:
            name = crosses.history.user if role == "user" else crosses.history.item
            factors.append(batch.vectors[name] * (crosses.history_weight if role == "user" else 1.0))
        experts = (crosses.expert_side(columns, role),) if self._experts else ()
        return terms, torch.cat(factors, 1), *experts, *looked_up

    def logits(self, pairs: Pairs, user: SideTensors, item: SideTensors) -> Tensor:
        """B pairs -> the terms without the experts, ``[B]``."""
        terms = pairs.combine(torch.mul, user[1], item[1]).sum(1)
        for worth, index in zip(
            user[self._first : self.tensors], item[self._first : self.tensors], strict=True
        ):
            starts = torch.arange(len(worth), device=worth.device) * worth.shape[1]
            places = pairs.users(starts)[:, None] + pairs.items(index)
            terms += worth.flatten()[places].sum(1)
        return terms.add_(pairs.combine(torch.add, user[0], item[0]))

    def all_logits(self, user: SideTensors, item: SideTensors) -> Tensor:
        """All pairs of n users and m items -> the terms without the experts, ``[n, m]``."""
        terms = torch.addmm(user[0][:, None] + item[0], user[1], item[1].t())
        for worth, index in zip(
            user[self._first : self.tensors], item[self._first : self.tensors], strict=True
        ):
            for column in index.t():
                terms += worth[:, column]
        return terms

    def adaptation(self, pairs: Pairs, user: SideTensors, item: SideTensors) -> Tensor | None:
        """B pairs -> what each expert adds, before the gate, ``[B, E]``; None if experts are folded."""
        return pairs.combine(torch.mul, user[2], item[2]).sum(2) if self._experts else None

    def _add_worths(self, batch: Batch, of_item: Tensor, known: int) -> list[Tensor]:
        """Add the value of the item's values for a user to the factors of the item's columns.

        Returns:
            The values for item values without columns, which a pair looks up, each ``[n, size]``.
        """
        crosses, looked_up, first = self._crosses, [], 0
        weights = crosses.pair[0] + (crosses.pair[known] if known else 0.0)
        for pair in crosses.pairs:
            own = weights[first : first + len(pair.names)]
            first += len(pair.names)
            worth = pair.by_value(batch, self._columns["user"], own)
            start = crosses.item.start(pair.item)
            if start is None:
                looked_up.append(worth)
            else:
                of_item[:, start : start + pair.item.size] += worth
        return looked_up

    def _own(self, batch: Batch, role: Role, index: dict[str, Tensor], domain: Tensor) -> Tensor:
        """First-order terms of numbers, and the sparse weights that depend on this side alone."""
        crosses, side = self._crosses, self._columns[role]
        terms = batch.dense.new_zeros(len(batch))
        if side.dense:
            first = 0 if role == "user" else len(crosses.user.dense)
            knots, shares = crosses.between(batch.dense[:, side.dense], first)
            known = domain + 1 if crosses.num_domains else torch.zeros_like(domain)
            terms = crosses.effects(knots, shares, known)
        places = crosses.side_places(role, index, domain)
        return terms + crosses.table[places].sum(1) if places.shape[1] else terms

    def _across(self, batch: Batch, role: Role, term: SparseTerm, index: dict[str, Tensor]) -> Tensor:
        """A term's factors ``[n, values of the small field]``: that field's columns, or their weights."""
        assert term.small is not None
        if role != term.role:
            columns = self._columns[role].hot(batch, term.small)
            columns[:, 0] = 0
            return columns
        values = torch.arange(term.small.size, device=batch.domain.device).expand(len(batch), -1)
        mine = index[term.field.name]
        weights = self._crosses.table[term.places(mine, values)]
        return weights.view(len(batch), mine.shape[1], term.small.size).sum(1)


_ROLES: tuple[Role, ...] = ("user", "item")
