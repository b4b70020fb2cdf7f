"""The weights of large fields: one table of numbers, with a section for each term."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmlora.models.crosses.columns import Role, SideColumns
from mmlora.models.spec import FieldShape

LONGEST = 1 << 18
"""If there are more combinations than this, they share weights by a hash."""
_MULTIPLIER = 2654435761  # Knuth's, a prime near 2^32 divided by the golden ratio


@dataclass(frozen=True)
class SparseTerm:
    """The weights of one large field: alone, by domain, or by values of a small field of the other side.

    Attributes:
        field: the large field.
        role: its side.
        others: number of values it is combined with; 1 if it is used alone.
        small: the other side's field; None if it is used alone or with the domain.
        start: the term's first weight in the table; it stays 0 and is used for a missing value.
    """

    field: FieldShape
    role: Role
    others: int
    small: FieldShape | None
    start: int

    @property
    def size(self) -> int:
        """Number of weights in the table."""
        return min(self.field.size * self.others, LONGEST)

    @property
    def name(self) -> str:
        """Name of what the weights apply to, for reports."""
        if self.others == 1:
            return self.field.name
        return f"{self.field.name} x {self.small.name if self.small else 'domain'}"

    def places(self, index: Tensor, other: Tensor) -> Tensor:
        """``index [..., L]`` of the field and ``other [..., M]`` -> table positions, ``[..., L * M]``."""
        code = index.unsqueeze(-1) * self.others + other.unsqueeze(-2)
        if self.field.size * self.others > LONGEST:
            code = 1 + (code * _MULTIPLIER) % (LONGEST - 1)
        return (self.start + code * (index != 0).unsqueeze(-1)).flatten(-2)


def sparse_terms(user: SideColumns, item: SideColumns, num_domains: int) -> list[SparseTerm]:
    """Return the terms of both sides' large fields, one after another in the table.

    Args:
        user: the user's columns.
        item: the item's columns.
        num_domains: number of domains; 0 if the model does not see them.
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
    """Return the table positions of the terms that depend on one side and the domain, ``[B, P]``.

    Args:
        terms: the terms without a field of the other side.
        index: indices of each large field, ``[B, L]``.
        domain: ``[B]``, -1 for a domain absent at training, whose terms have weight 0.
    """
    parts = []
    for term in terms:
        places = term.places(index[term.field.name], domain.new_zeros(len(domain), 1))
        if term.others > 1:
            places = term.places(index[term.field.name], domain.clamp(min=0)[:, None])
            places = torch.where(domain[:, None] < 0, term.start, places)
        parts.append(places)
    return torch.cat(parts, 1) if parts else domain.new_zeros(len(domain), 0)
