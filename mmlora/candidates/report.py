"""What a policy removed, and why: counted while candidates are selected, and stored with the load."""

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
    """The number of users, items or pairs that were removed for one reason.

    Attributes:
        what: ``users``, ``items`` or ``pairs``.
        reason: the reason, in a clause.
        count: the number removed.
    """

    what: What
    reason: str
    count: int

    def __str__(self) -> str:
        return f"{self.count:,} {self.what} ({self.reason})"


@dataclass(frozen=True)
class Unknown:
    """Unknown ids in one of the user's own tables; they aren't scored.

    Attributes:
        table: the table.
        what: ``users`` or ``items``.
        count: number of distinct ids.
        first: the first of these ids, sorted.
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
        removed: what was removed, and why.
        unknown: unknown ids in the user's own tables.
        popularity: popularity of each item, ``[I]``, higher being more popular; only if the policy
            retrieves by it.
    """

    candidates: Candidates
    removed: tuple[Removed, ...] = ()
    unknown: tuple[Unknown, ...] = ()
    popularity: npt.NDArray[np.float32] | None = field(default=None, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return what is stored with the load."""
        return {
            "removed": [asdict(part) for part in self.removed],
            "unknown": [{**asdict(part), "first": list(part.first)} for part in self.unknown],
        }


def counted(removed: Sequence[Removed]) -> tuple[Removed, ...]:
    """Return the entries that removed anything."""
    return tuple(part for part in removed if part.count)
