"""Many row numbers, and numbers about many rows, in memory that doesn't grow with them."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from mmlora.errors import TransientError
from mmlora.training.epoch import RowNumbers, TrainingData

BLOCK_ROWS = 16384
"""Scoring needs no gradient, so larger blocks than a training batch are the faster ones."""

_IN_MEMORY = 4 << 20


def blocks(rows: RowNumbers, size: int = BLOCK_ROWS) -> Iterator[tuple[slice, RowNumbers]]:
    """Cut row numbers into blocks, each with its place."""
    for start in range(0, len(rows), size):
        place = slice(start, min(start + size, len(rows)))
        yield place, rows[place]


def sample(rows: RowNumbers, most: int, seed: int) -> RowNumbers:
    """Return ``most`` of the rows, one of each stretch of equal length, so in their order; or all of them.

    Rows stand by domain, so each domain keeps its share.
    """
    if len(rows) <= most:
        return rows
    places = (np.arange(most) + np.random.default_rng(seed).random(most)) * (len(rows) / most)
    return np.asarray(rows[np.minimum(places.astype(np.int64), len(rows) - 1)])


def of_domain(data: TrainingData, rows: RowNumbers, domain: int) -> RowNumbers:
    """Return the rows of a domain: a slice, and no copy, where rows are arranged by domain."""
    count, first, last = 0, len(rows), 0
    for place, block in blocks(rows, 1 << 18):
        own = np.flatnonzero(np.asarray(data.domain[block]) == domain)
        if len(own):
            count += len(own)
            first, last = min(first, place.start + int(own[0])), place.start + int(own[-1]) + 1
    if last - first == count or not count:
        return rows[first:last]
    apart: RowNumbers = rows[np.asarray(data.domain[rows]) == domain]
    return apart


def domains_of(data: TrainingData, rows: RowNumbers) -> npt.NDArray[np.bool_]:
    """Return which domains have some of the rows, ``[D]``."""
    seen = np.zeros(data.num_domains + 1, bool)
    for _, block in blocks(rows, 1 << 18):
        seen[np.asarray(data.domain[block]) + 1] = True  # -1 is a domain absent at training
    return seen[1:]


def scratch(rows: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return room for a number a row: in memory if it is little, else in a file without a name.

    The file is in ``TMPDIR`` and goes when the array does, or the process.

    Raises:
        TransientError: there is no room on the disk.
    """
    size = rows * np.dtype(dtype).itemsize
    if size <= _IN_MEMORY:
        return np.empty(rows, dtype)
    with tempfile.TemporaryFile() as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)  # else a full disk would end the process
        except OSError as error:
            raise TransientError(
                f"{size >> 20:,} MB of scratch space in {tempfile.gettempdir()} can't be had ({error}): "
                "make room, or set TMPDIR to another disk"
            ) from None
        return np.frombuffer(mmap.mmap(file.fileno(), size), dtype)
