"""Work on many row numbers, and on values for many rows, in memory that doesn't grow with them."""

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
"""Prediction needs no gradients, so blocks larger than a training batch are faster."""

IN_MEMORY = 4 << 20


def blocks(rows: RowNumbers, size: int = BLOCK_ROWS) -> Iterator[tuple[slice, RowNumbers]]:
    """Split row numbers into blocks, each with its slice."""
    for start in range(0, len(rows), size):
        place = slice(start, min(start + size, len(rows)))
        yield place, rows[place]


def sample(rows: RowNumbers, most: int, seed: int) -> RowNumbers:
    """Return ``most`` of the rows in order, one from each stretch of equal length, or all if there are fewer.

    Rows are sorted by domain, so each domain keeps its share.
    """
    if len(rows) <= most:
        return rows
    places = (np.arange(most) + np.random.default_rng(seed).random(most)) * (len(rows) / most)
    return np.asarray(rows[np.minimum(places.astype(np.int64), len(rows) - 1)])


def of_domain(data: TrainingData, rows: RowNumbers, domain: int) -> RowNumbers:
    """Return the rows of a domain: a slice without copying if rows are sorted by domain."""
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
    """Return which domains occur among the rows, ``[D]``."""
    seen = np.zeros(data.num_domains + 1, bool)
    for _, block in blocks(rows, 1 << 18):
        seen[np.asarray(data.domain[block]) + 1] = True  # -1 is a domain absent at training
    return seen[1:]


def scratch(rows: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return an empty array with one number per row: in memory if small, otherwise in an unnamed file.

    The file is in ``TMPDIR`` and is deleted with the array or the process.

    Raises:
        TransientError: the disk is full.
    """
    size = rows * np.dtype(dtype).itemsize
    if size <= IN_MEMORY:
        return np.empty(rows, dtype)
    with tempfile.TemporaryFile() as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)  # otherwise a full disk would kill the process
        except OSError as error:
            raise TransientError(
                f"{size >> 20:,} MB of scratch space aren't available in {tempfile.gettempdir()} ({error}): "
                "free some space, or set TMPDIR to another disk"
            ) from None
        return np.frombuffer(mmap.mmap(file.fileno(), size), dtype)
