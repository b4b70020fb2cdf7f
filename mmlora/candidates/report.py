"""What a policy removed, and why: counted while candidates are found, and kept with the load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mmlora.candidates.pairs import Candidates
from mmlora.schema import Id

FIRST_NAMED = 5

What = Literal["users", "items", "pairs"]


@dataclass(frozen=True)
class Removed:
    """So many users, items or pairs that were removed for one reason.

    Attributes:
        what: of what.
        reason: why, in a clause.
        count: how many.
    """

    what: What
    reason: str
    count: int

    def __str__(self) -> str:
        return f"{self.count:,} {self.what} ({self.reason})"


@dataclass(frozen=True)
class Unknown:
    """Ids of a table of the user's own that nothing is known of: they aren't scored.

    Attributes:
        table: the table.
        what: ``users`` or ``items``.
        count: distinct ids.
        first: the first of them, sorted.
    """

    table: str
    what: What
    count: int
    first: tuple[Id, ...]

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.first) else ""
        return (
            f"{self.table} names {self.count:,} unknown {self.what}: {', '.join(map(str, self.first))}{more}"
        )


@dataclass(frozen=True)
class Selection:
    """The candidates that a policy chose.

    Attributes:
        candidates: the pairs to score.
        removed: what is no candidate, and why.
        unknown: ids of own tables that nothing is known of.
        popularity: of each item, the greater the more popular; ``[I]``; only where the policy
            retrieves by it.
    """

    candidates: Candidates
    removed: tuple[Removed, ...] = ()
    unknown: tuple[Unknown, ...] = ()
    popularity: npt.NDArray[np.float32] | None = field(default=None, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return what is kept with the load."""
        return {
            "removed": [asdict(part) for part in self.removed],
            "unknown": [{**asdict(part), "first": list(part.first)} for part in self.unknown],
        }


def counted(removed: Sequence[Removed]) -> tuple[Removed, ...]:
    """Return those that removed anything."""
    return tuple(part for part in removed if part.count)
