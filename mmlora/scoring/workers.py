"""Threads that compute blocks side by side.

Every block is computed by one thread from end to end. A product that several threads share waits for the
slowest of them each time, and a block of one thread stays in its core's cache; with one thread a product also
has the same bits however many threads work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

import torch

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class ParallelMap(Protocol):
    """The built-in ``map``, or one whose calls run side by side; results come in order."""

    def __call__(self, function: Callable[[_In], _Out], values: Iterable[_In], /) -> Iterator[_Out]:
        """Apply ``function`` to each value."""


@contextmanager
def workers(threads: int | None) -> Iterator[ParallelMap]:
    """Yield a map of so many threads (torch's own number when None), in which torch uses one each.

    The caller's number of torch threads is put back at the end.
    """
    before = torch.get_num_threads()
    count = threads or before
    try:
        if count == 1:
            torch.set_num_threads(1)
            yield map
        else:
            with ThreadPoolExecutor(count, "mmlora-score", torch.set_num_threads, (1,)) as pool:
                yield pool.map
    finally:
        torch.set_num_threads(before)
