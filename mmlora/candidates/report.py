"""What a policy removed, and why: counted while candidates are selected, and stored with the load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mmlora.candidates.pairs import Candidates
from mmlora.load_checks import Removed, Unknown

FIRST_NAMED = 5


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


def counted(removed: Sequence[Removed]) -> tuple[Removed, ...]:
    """Return the entries that removed anything."""
    return tuple(part for part in removed if part.count)
