"""A new order of all rows every epoch, in memory that hardly grows with them.

A shuffled copy of the row numbers takes 8 bytes a row. So of more than a million rows, the row at a place is
computed when it is asked for, by a Feistel network: a place is written as two digits, and each round adds to
one a random number that the other looks up. Every round can be undone, so every row comes exactly once. With
random tables a few rounds can't be told from a random order (Luby and Rackoff, 1988, for four); digits of any
size, and walking on from places beyond the last row, are of Black and Rogaway, "Ciphers with Arbitrary Finite
Domains" (2002). The tables take memory with the square root of the rows.
"""

from __future__ import annotations

from math import isqrt
from typing import Any

import numpy as np
import numpy.typing as npt

COPIED_ROWS = 1 << 20
"""Up to so many rows, a shuffled copy is taken: 8 MB, and as random as can be, which small tables aren't."""

_ROUNDS = 6
_Digits = npt.NDArray[np.uint32]


class ShuffledRows:
    """Rows in a random order: ``len(order)``, and ``order[start:stop]`` -> row numbers ``[stop - start]``.

    Args:
        rows: row numbers, ``[N]``; read where needed, so they may be mapped from a file.
        generator: decides the order.
        copied_rows: up to so many rows are shuffled as a copy.
    """

    def __init__(
        self, rows: npt.NDArray[Any], generator: np.random.Generator, *, copied_rows: int = COPIED_ROWS
    ) -> None:
        self._rows = rows
        self._network = None
        if len(rows) <= copied_rows:
            self._rows = generator.permutation(rows)
        else:
            self._network = _Feistel(len(rows), generator)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, chosen: slice) -> npt.NDArray[Any]:
        if self._network is None:
            return self._rows[chosen]
        taken: npt.NDArray[Any] = self._rows[self._network.shuffle(np.arange(*chosen.indices(len(self))))]
        return taken


class _Feistel:
    """A random one-to-one mapping of 0, ..., ``size`` - 1 onto itself."""

    def __init__(self, size: int, generator: np.random.Generator) -> None:
        self._size = size
        self._left = isqrt(size - 1) + 1
        self._right = -(-size // self._left)
        draw = generator.integers
        self._tables = [
            (draw(0, self._left, self._right, np.uint32), draw(0, self._right, self._left, np.uint32))
            for _ in range(_ROUNDS // 2)
        ]

    def shuffle(self, place: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """``[B]`` places -> ``[B]`` places."""
        found = self._once(place)
        # Places beyond the last are fewer than the square root of the size: few walk on, and not far.
        while len(beyond := np.flatnonzero(found >= self._size)):
            found[beyond] = self._once(found[beyond])
        return found

    def _once(self, place: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        quotient = place // self._right
        left, right = quotient.astype(np.uint32), (place - quotient * self._right).astype(np.uint32)
        for add_left, add_right in self._tables:
            left = _modulo(left + add_left[right], self._left)
            right = _modulo(right + add_right[left], self._right)
        return left.astype(np.int64) * self._right + right


def _modulo(digit: _Digits, size: int) -> _Digits:
    """``digit % size`` of digits below twice the size: what is too small to subtract from wraps far above."""
    wrapped: _Digits = np.minimum(digit, digit - np.uint32(size))
    return wrapped
