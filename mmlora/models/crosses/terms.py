"""The cross terms' weights, and their sum for rows of any domains."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlora.batch import Batch
from mmlora.models.crosses.columns import Role, SideColumns, take_columns
from mmlora.models.crosses.pairs import history_pair, pair_fields
from mmlora.models.crosses.sparse import SparseTerm, side_places, sparse_terms
from mmlora.models.spec import FieldShape

KNOTS = 9
"""Points between which a number's own effect is a straight line: its 0, 12.5, ... 100% quantiles."""


class CrossInputs(NamedTuple):
    """What the cross terms read of B rows.

    Attributes:
        user: the user's columns, ``[B, Ku]``.
        item: the item's, ``[B, Ki]``.
        domain: ``[B]``, 0 for a domain absent at training, whose weights are 0, else the index + 1.
        knots: the knot below each number, as a place in a row of ``basis``, ``[B, Fd]``.
        shares: how far each number is on its way to the next knot, ``[B, Fd]`` in [0, 1].
        places: of the sparse weights, ``[B, P]``.
        pairs: numbers of user and item together, ``[B, Z]``.
    """

    user: Tensor
    item: Tensor
    domain: Tensor
    knots: Tensor
    shares: Tensor
    places: Tensor
    pairs: Tensor


@dataclass(frozen=True)
class FrozenRows:
    """What the cross terms add to B rows while nothing but experts and gate is trained.

    Attributes:
        terms: the terms without experts, ``[B]``.
        user: the user's columns, which experts read, ``[B, Ku]``.
        item: the item's, ``[B, Ki]``.
        domain: the domain's index, ``[B]``; -1 for a domain absent at training.
        label: 0/1, ``[B]``; None when scoring.
    """

    terms: Tensor
    user: Tensor
    item: Tensor
    domain: Tensor
    label: Tensor | None = None

    def __len__(self) -> int:
        return int(self.domain.shape[0])

    def map(self, change: Callable[[Tensor], Tensor]) -> FrozenRows:
        """Return rows with ``change`` applied to every tensor."""
        label = None if self.label is None else change(self.label)
        columns = change(self.user), change(self.item)
        return FrozenRows(change(self.terms), *columns, change(self.domain), label)


class CrossTerms(nn.Module):
    """``u W i + P_d . u + Q_d . i + f(numbers) + pairs + sparse weights + sum_e g_e (u A_e) . (i B_e)``.

    A history of items adds its product times a weight of its own, which is fitted on validation rows
    (:mod:`mmlora.training.history`).

    Everything starts at 0 but ``A_e``, so that a fresh module, and a fresh expert, change nothing.

    Args:
        fields: shapes of the inputs, in the order of the encoded columns.
        num_domains: domains seen in training; 0 where the model does not see the domain.
        num_experts: E.
        rank: R of an expert's two matrices; a share of the narrower side's width below 1.
        alpha: LoRA's scale, as of the tower.
    """

    def __init__(
        self, fields: Sequence[FieldShape], *, num_domains: int, num_experts: int, rank: float, alpha: float
    ) -> None:
        super().__init__()
        self.fields = tuple(fields)
        self.user, self.item = SideColumns(fields, "user"), SideColumns(fields, "item")
        self.num_domains = num_domains
        self.terms = sparse_terms(self.user, self.item, num_domains)
        self.pairs = pair_fields(self.fields)
        num_pairs = sum(len(pair.names) for pair in self.pairs)
        width, num_dense = min(self.user.width, self.item.width), len(self.user.dense) + len(self.item.dense)
        full_rank = max(1, round(rank * width)) if rank < 1 else int(rank)
        self.scale, rank = alpha / full_rank, min(full_rank, width)
        self.weight = nn.Parameter(torch.zeros(self.user.width, self.item.width))
        # Row 0 is that of a domain absent at training, and stays 0.
        self.domain_user = nn.Parameter(torch.zeros(num_domains + 1, self.user.width))
        self.domain_item = nn.Parameter(torch.zeros(num_domains + 1, self.item.width))
        # Row 0 is what all domains have in common; an absent domain has nothing more.
        self.basis = nn.Parameter(torch.zeros(num_domains + 1, num_dense * KNOTS))
        self.pair = nn.Parameter(torch.zeros(num_domains + 1, num_pairs))  # row 0 as of the basis
        self.table = nn.Parameter(torch.zeros(sum(term.size for term in self.terms)))
        self.knots: Tensor
        self.register_buffer("knots", torch.zeros(num_dense, KNOTS))
        self.precision: Tensor  # of each group's prior, as it was learned: see groups
        self.register_buffer("precision", torch.ones(self.num_groups))
        self.history = history_pair(self.fields)
        self.history_weight: Tensor
        if self.history:
            self.register_buffer("history_weight", torch.zeros(()))
        bound = 1 / math.sqrt(self.user.width)
        self.lora_a = nn.Parameter(torch.empty(num_experts, self.user.width, rank).uniform_(-bound, bound))
        self.lora_b = nn.Parameter(torch.zeros(num_experts, self.item.width, rank))

    def forward(self, batch: Batch, gate_weights: Tensor | None) -> Tensor:
        """B rows, ``gate_weights [B, E]`` (None: the backbone alone) -> ``[B]``."""
        return self.adapted(self.freeze(batch), gate_weights)

    def freeze(self, batch: Batch) -> FrozenRows:
        """Compute everything about a batch that experts and gate do not change."""
        inputs = self.inputs(batch)
        terms = self.backbone(inputs)
        if self.history:
            terms = terms + self.history_weight * self.history.number(batch)
        return FrozenRows(terms, inputs.user, inputs.item, batch.domain, batch.label)

    def adapted(self, rows: FrozenRows, gate_weights: Tensor | None) -> Tensor:
        """Add the experts' part to the terms of B rows, ``[B]``."""
        if gate_weights is None or not len(self.lora_a):
            return rows.terms
        return rows.terms + (gate_weights * self.adaptation(rows.user, rows.item)).sum(1)

    def adaptation(self, user: Tensor, item: Tensor) -> Tensor:
        """``[B, Ku]``, ``[B, Ki]`` -> what each expert adds, before the gate, ``[B, E]``."""
        return (self.expert_side(user, "user") * self.expert_side(item, "item")).sum(2)

    def expert_side(self, columns: Tensor, role: Role) -> Tensor:
        """A side's columns ``[n, K]`` -> its factor of what each expert adds, ``[n, E, R]``."""
        matrices = self.lora_a if role == "user" else self.lora_b
        experts, width, rank = matrices.shape
        down = columns @ matrices.transpose(0, 1).reshape(width, experts * rank)
        return down.view(-1, experts, rank) * (self.scale if role == "user" else 1.0)

    def backbone(self, inputs: CrossInputs) -> Tensor:
        """Return the terms without experts and history, ``[B]``."""
        of_item = inputs.user @ self.weight + F.embedding(inputs.domain, self.domain_item)
        terms = (of_item * inputs.item).sum(1)
        terms = terms + (F.embedding(inputs.domain, self.domain_user) * inputs.user).sum(1)
        if len(self.knots):
            terms = terms + self.effects(inputs.knots, inputs.shares, inputs.domain)
        if self.pairs:
            terms = terms + ((self.pair[0] + self.own_pair(inputs.domain)) * inputs.pairs).sum(1)
        return terms + self.table[inputs.places].sum(1) if len(self.table) else terms

    def own_pair(self, domain: Tensor) -> Tensor:
        """Return what the weights of pairs' numbers are beyond the common ones, ``[B, Z]``."""
        return F.embedding(domain, self.pair) * (domain > 0)[:, None]

    def inputs(self, batch: Batch) -> CrossInputs:
        """Return what the terms read of a batch."""
        domain = self._known(batch.domain)
        numbers = take_columns(batch.dense, [*self.user.dense, *self.item.dense])
        knots, shares = self.between(numbers, 0)
        places = [self._own_places(batch, side, role) for side, role in self._sides]
        places += [self._across(batch, term) for term in self.terms if term.small is not None]
        pairs = torch.cat(
            [pair.numbers(batch, self.user, self.item) for pair in self.pairs] or [numbers[:, :0]], 1
        )
        return CrossInputs(
            self.user(batch), self.item(batch), domain, knots, shares, torch.cat(places, 1), pairs
        )

    def effects(self, knots: Tensor, shares: Tensor, domain: Tensor) -> Tensor:
        """Return the sum of the numbers' own effects, in all domains and in the row's, ``[B]``."""
        width = self.basis.shape[1]
        summed = torch.cat([self.basis[:1], self.basis[1:] + self.basis[:1]]).flatten()
        below = knots + (domain * width)[:, None]
        return torch.lerp(summed[below], summed[below + 1], shares).sum(1)

    def between(self, numbers: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """Locate numbers ``[B, k]`` of the fields from ``first``: places in the flat basis, and shares."""
        numbers = numbers.t().contiguous()  # [k, B]
        knots = self.knots[first : first + len(numbers)]
        # A few comparisons are three times as fast as a binary search.
        above = torch.zeros(numbers.shape, dtype=torch.uint8, device=numbers.device)
        for knot in knots[:, 1:-1].unbind(1):
            above += numbers >= knot[:, None]
        place = above.long()
        low, high = knots.gather(1, place), knots.gather(1, place + 1)
        share = ((numbers - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
        start = (torch.arange(len(knots), device=numbers.device) + first) * KNOTS
        return (place + start[:, None]).t().contiguous(), share.t().contiguous()

    def side_places(self, role: Role, index: Mapping[str, Tensor], domain: Tensor) -> Tensor:
        """Return places of the sparse weights that one side and the domain decide, ``[B, P]``.

        Args:
            role: the side.
            index: of each of its large fields, ``[B, L]``.
            domain: ``[B]`` indices, -1 for a domain absent at training.
        """
        terms = [term for term in self.terms if term.role == role and term.small is None]
        return side_places(terms, index, self._known(domain) - 1)

    @property
    def num_groups(self) -> int:
        """How many :meth:`groups` there are."""
        users, items = len(set(self.user.names)), len(set(self.item.names))
        return users * items + users + items + 2 * len(self.knots) + 2 * self.pair.shape[1] + len(self.terms)

    def groups(self) -> tuple[dict[str, Tensor], list[str]]:
        """Return the group of every weight, by parameter, and the groups' names: one for a pair of fields.

        Group 0 is the constant's.
        """
        fields = [name for name, _ in itertools.groupby(self.user.names)]
        others = [name for name, _ in itertools.groupby(self.item.names)]
        users = torch.tensor([fields.index(name) for name in self.user.names])
        items = torch.tensor([others.index(name) for name in self.item.names])
        names = [" x ".join(filter(None, pair)) or "constant" for pair in itertools.product(fields, others)]
        groups = {"weight": users[:, None] * len(others) + items}
        for parameter, own, of_side in (("domain_user", users, fields), ("domain_item", items, others)):
            groups[parameter] = (len(names) + own).expand(self.num_domains + 1, -1)
            names += [f"domain x {name}" if name else "domain" for name in of_side]
        numbers = [*self.user.dense_names, *self.item.dense_names]
        of_number = (len(names) + torch.arange(len(numbers))).repeat_interleave(KNOTS)
        by_domain = (of_number + len(numbers)).expand(self.num_domains, -1)
        groups["basis"] = torch.cat([of_number[None], by_domain])
        names += [f"{name}, by quantiles" for name in numbers]
        names += [f"domain x {name}, by quantiles" for name in numbers]
        numbers = [name for pair in self.pairs for name in pair.names]
        own = len(names) + torch.arange(len(numbers))
        groups["pair"] = torch.cat([own[None], (own + len(numbers)).expand(self.num_domains, -1)])
        names += [*numbers, *(f"domain x {name}" for name in numbers)]
        sizes = torch.tensor([term.size for term in self.terms], dtype=torch.int64)
        groups["table"] = len(names) + torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        names += [term.name for term in self.terms]
        return groups, names

    @property
    def _sides(self) -> tuple[tuple[SideColumns, Role], ...]:
        return (self.user, "user"), (self.item, "item")

    def _own_places(self, batch: Batch, side: SideColumns, role: Role) -> Tensor:
        index = {field.name: side.index(batch, field) for field in side.large}
        return self.side_places(role, index, batch.domain)

    def _known(self, domain: Tensor) -> Tensor:
        """``[B]`` index + 1; 0 where the model does not see domains, or this one was absent at training."""
        return (domain + 1) if self.num_domains else torch.zeros_like(domain)

    def _across(self, batch: Batch, term: SparseTerm) -> Tensor:
        """Places of a term that both sides decide; a missing value of either weighs nothing."""
        assert term.small is not None
        mine, other = (self.user, self.item) if term.role == "user" else (self.item, self.user)
        index, small = mine.index(batch, term.field), other.index(batch, term.small)
        places = term.places(index, small)
        return torch.where((small == 0).repeat(1, index.shape[1]), term.start, places)
