"""Worker processes for jobs: those that share a backbone don't start together, or one would wait for it.

Each worker takes its share of the cores. It ends when the parent does, however that ends: what it was doing
goes on from its last epoch in the next run.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from typing import TYPE_CHECKING, Protocol

from mmlora.errors import MmloraError
from mmlora.experiments.results import is_done
from mmlora.redaction import redact

if TYPE_CHECKING:
    from mmlora.experiments.job import Job

logger = logging.getLogger(__name__)


class Queue(Protocol):
    """Says which job comes next; it is true while a job waits or runs."""

    def __bool__(self) -> bool: ...

    def take(self) -> Job | None:
        """Return a job to start now; None where a running one has to end first."""

    def ended(self, job: Job) -> None:
        """Learn that a job has ended, well or not."""

    def give_up(self) -> list[Job]:
        """Return the jobs that were running, which are not tried again."""


def run_jobs(
    queue: Queue,
    workers: int,
    *,
    on_done: Callable[[Job], None],
    on_failure: Callable[[Job, str], None],
) -> None:
    """Run jobs in ``workers`` processes; the callbacks are called here, as jobs end.

    A process that dies (out of memory, say) fails the jobs that were running; the others go on in new ones.
    """
    while queue:
        try:
            run_until_broken(queue, workers, on_done, on_failure)
        except BrokenProcessPool:
            for job in queue.give_up():
                if is_done(job.place):  # it had just ended
                    on_done(job)
                    continue
                why = "a worker process died (out of memory?); run the same command again to go on"
                on_failure(job, why)


def run_until_broken(
    queue: Queue, workers: int, on_done: Callable[[Job], None], on_failure: Callable[[Job, str], None]
) -> None:
    """Run jobs in a pool of processes until the queue is empty, or until one of the processes dies."""
    context = get_context("spawn")
    stop = context.Event()
    threads = max(1, (os.cpu_count() or 1) // workers)
    pool = ProcessPoolExecutor(workers, context, start_worker, (threads, os.getpid(), stop))
    running: dict[Future[str | None], Job] = {}
    try:
        while queue:
            while len(running) < workers and (job := queue.take()) is not None:
                running[pool.submit(_attempt, job)] = job
            ended, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                why = future.result()  # raises when the process died
                job = running.pop(future)
                queue.ended(job)
                if why is None:
                    on_done(job)
                else:
                    on_failure(job, why)
    finally:
        if running:
            stop.set()
        pool.shutdown(cancel_futures=True)


class CellQueue:
    """Which cell comes next: groups that share a backbone are opened by one job each.

    Args:
        jobs: to be done.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._waiting: dict[str, list[Job]] = {}
        for job in jobs:
            self._waiting.setdefault(job.cell.group, []).append(job)
        self._running: list[Job] = []
        self._opened: set[str] = set()  # a job of theirs has ended
        self._started: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._running or any(self._waiting.values()))

    def take(self) -> Job | None:
        """Return a job that won't wait for another: first of a group that nobody works on."""
        busy = Counter(job.cell.group for job in self._running)
        groups = [group for group, jobs in self._waiting.items() if jobs]
        free = [group for group in groups if not busy[group]]
        known = [group for group in free if group in self._started]
        shared = [group for group in groups if group in self._opened]
        choice = known or free or sorted(shared, key=lambda group: busy[group])
        if not choice:
            return None
        self._started.add(choice[0])
        self._running.append(job := self._waiting[choice[0]].pop(0))
        return job

    def ended(self, job: Job) -> None:
        """Let the others of its group start."""
        self._running.remove(job)
        self._opened.add(job.cell.group)

    def give_up(self) -> list[Job]:
        """Return the jobs that were running, which are not tried again."""
        lost, self._running = self._running, []
        return lost


def start_worker(threads: int, parent: int, stop: Event) -> None:
    """Set up a worker, before torch is imported; an interrupt is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = str(threads)

    def watch() -> None:
        while not stop.wait(1.0) and os.getppid() == parent:
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _attempt(job: Job) -> str | None:
    """Run a job; return why it failed, or None."""
    from mmlora.experiments.run_cell import run_cell, run_trial

    try:
        (run_trial if job.study else run_cell)(job)
    except MmloraError as error:
        return str(error)
    except Exception as error:  # a fault of ours in one cell must not stop the others
        logger.exception("%s", job.cell)
        return redact(f"{type(error).__name__}: {error}")
    return None
