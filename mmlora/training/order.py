"""A new order of all rows for every epoch, in memory that hardly grows with rows.

A shuffled copy of the row numbers takes 8 bytes per row. So for more than a million rows, the row at a
position is computed on demand by a Feistel network: a position is written as two digits, and each round adds
to one digit a random number looked up by the other. Every round is invertible, so every row occurs exactly
once. With random tables a few rounds can't be distinguished from a random order (Luby and Rackoff, 1988, for
four rounds). Digits of any size, and walking on from positions beyond the last row, are from Black and
Rogaway, "Ciphers with Arbitrary Finite Domains" (2002). The tables grow with the square root of the rows.
"""

from __future__ import annotations

from math import isqrt
from typing import Any

import numpy as np
import numpy.typing as npt

COPIED_ROWS = 1 << 20
"""Up to this many rows are shuffled as a copy: that takes 8 MB, and small tables would be less random."""

_ROUNDS = 6
_Digits = npt.NDArray[np.uint32]


class ShuffledRows:
    """Rows in a random order: ``len(order)``, and ``order[start:stop]`` -> row numbers ``[stop - start]``.

    Args:
        rows: row numbers, ``[N]``; read on demand, so they may be memory-mapped.
        generator: decides the order.
        copied_rows: up to this many rows are shuffled as a copy.
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
        """Map positions ``[B]`` to positions ``[B]``."""
        shuffled = self._once(place)
        # Fewer positions than the square root of the size are beyond the last row: few walk on, and not far.
        while len(beyond := np.flatnonzero(shuffled >= self._size)):
            shuffled[beyond] = self._once(shuffled[beyond])
        return shuffled

    def _once(self, place: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        quotient = place // self._right
        left, right = quotient.astype(np.uint32), (place - quotient * self._right).astype(np.uint32)
        for add_left, add_right in self._tables:
            left = _modulo(left + add_left[right], self._left)
            right = _modulo(right + add_right[left], self._right)
        return left.astype(np.int64) * self._right + right


def _modulo(digit: _Digits, size: int) -> _Digits:
    """Return ``digit % size`` for digits below twice the size; negative differences wrap to large numbers."""
    wrapped: _Digits = np.minimum(digit, digit - np.uint32(size))
    return wrapped
