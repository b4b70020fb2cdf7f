"""Threads that compute blocks in parallel.

Every block is computed by one thread. A product shared by several threads waits for the slowest each time,
whereas a thread's block stays in its core's cache. A product computed by one thread also has the same bits
for any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

import torch

from mmlora.telemetry import in_context

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class ParallelMap(Protocol):
    """The built-in ``map``, or one that runs its calls in parallel and returns the results in order."""

    def __call__(self, function: Callable[[_In], _Out], values: Iterable[_In], /) -> Iterator[_Out]:
        """Apply ``function`` to each value."""


@contextmanager
def workers(threads: int | None) -> Iterator[ParallelMap]:
    """Yield a map with this many threads (None for torch's number), each of which uses one torch thread.

    The caller's number of torch threads is restored at the end.
    """
    before = torch.get_num_threads()
    count = threads or before
    try:
        if count == 1:
            torch.set_num_threads(1)
            yield map
        else:
            with ThreadPoolExecutor(count, "mmlora-score", torch.set_num_threads, (1,)) as pool:
                yield lambda function, values: pool.map(in_context(function), values)
    finally:
        torch.set_num_threads(before)
