"""Where the weights of large fields lie: one table of numbers, a stretch of it for each term."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmlora.models.crosses.columns import Role, SideColumns
from mmlora.models.spec import FieldShape

LONGEST = 1 << 18
"""Combinations above so many share weights by a hash."""
_MULTIPLIER = 2654435761  # Knuth's, a prime near 2^32 divided by the golden ratio


@dataclass(frozen=True)
class SparseTerm:
    """The weights of one large field: alone, by domain, or by values of a small field of the other side.

    Attributes:
        field: the large field.
        role: its side.
        others: how many values it is combined with; 1 where it stands alone.
        small: the other side's field; None where it stands alone or with the domain.
        start: first weight of the term in the table; that one stays 0 and stands for a missing value.
    """

    field: FieldShape
    role: Role
    others: int
    small: FieldShape | None
    start: int

    @property
    def size(self) -> int:
        """Weights in the table."""
        return min(self.field.size * self.others, LONGEST)

    @property
    def name(self) -> str:
        """What is weighed, for reports."""
        if self.others == 1:
            return self.field.name
        return f"{self.field.name} x {self.small.name if self.small else 'domain'}"

    def places(self, index: Tensor, other: Tensor) -> Tensor:
        """``index [..., L]`` of the field and ``other [..., M]`` -> places in the table, ``[..., L * M]``."""
        code = index.unsqueeze(-1) * self.others + other.unsqueeze(-2)
        if self.field.size * self.others > LONGEST:
            code = 1 + (code * _MULTIPLIER) % (LONGEST - 1)
        return (self.start + code * (index != 0).unsqueeze(-1)).flatten(-2)


def sparse_terms(user: SideColumns, item: SideColumns, num_domains: int) -> list[SparseTerm]:
    """Return the terms of both sides' large fields, one after another in the table.

    Args:
        user: the user's columns.
        item: the item's.
        num_domains: domains; 0 where the model does not see them.
    """
    terms: list[SparseTerm] = []
    for role, mine, others in (("user", user, item), ("item", item, user)):
        for field in mine.large:
            for count, small in _partners(field, others.small, num_domains):
                start = terms[-1].start + terms[-1].size if terms else 0
                terms.append(SparseTerm(field, role, count, small, start))  # type: ignore[arg-type]
    return terms


def _partners(
    field: FieldShape, small: Sequence[FieldShape], num_domains: int
) -> Iterator[tuple[int, FieldShape | None]]:
    """Yield what a large field is combined with; long lists are combined with domains only."""
    yield 1, None
    if num_domains:
        yield num_domains + 1, None
    if field.kind == "categorical":
        yield from ((other.size, other) for other in small)


def side_places(terms: Sequence[SparseTerm], index: Mapping[str, Tensor], domain: Tensor) -> Tensor:
    """Return the places of the terms that one side and the domain decide, ``[B, P]``.

    Args:
        terms: those without a field of the other side.
        index: of each large field, ``[B, L]``.
        domain: ``[B]``, -1 for a domain absent at training, whose terms weigh nothing.
    """
    parts = []
    for term in terms:
        places = term.places(index[term.field.name], domain.new_zeros(len(domain), 1))
        if term.others > 1:
            places = term.places(index[term.field.name], domain.clamp(min=0)[:, None])
            places = torch.where(domain[:, None] < 0, term.start, places)
        parts.append(places)
    return torch.cat(parts, 1) if parts else domain.new_zeros(len(domain), 0)
