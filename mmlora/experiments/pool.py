"""Run jobs in worker processes. Jobs that share a backbone do not start together: one would wait for it.

Each worker uses its share of the cores. A worker ends with its parent process, even if the parent is killed;
the next run resumes its job from the last finished epoch.
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
    """Decides which job runs next; true while any job is waiting or running."""

    def __bool__(self) -> bool: ...

    def take(self) -> Job | None:
        """Return a job to start now; None if a running one has to end first."""

    def release(self, job: Job) -> None:
        """Take note that a job has ended, whether it succeeded or failed."""

    def give_up(self) -> list[Job]:
        """Return the jobs that were running; they are not retried."""


def run_jobs(
    queue: Queue,
    workers: int,
    *,
    on_done: Callable[[Job], None],
    on_failure: Callable[[Job, str], None],
) -> None:
    """Run jobs in ``workers`` processes and call back in this process when each ends.

    If a worker dies (e.g. out of memory), the jobs that were running fail; the others run in new workers.
    """
    while queue:
        try:
            run_until_broken(queue, workers, on_done, on_failure)
        except BrokenProcessPool:
            for job in queue.give_up():
                if is_done(job.result_folder):  # it had just ended
                    on_done(job)
                    continue
                why = "a worker process died (out of memory?); run the same command again to resume"
                on_failure(job, why)


def run_until_broken(
    queue: Queue, workers: int, on_done: Callable[[Job], None], on_failure: Callable[[Job, str], None]
) -> None:
    """Run jobs in a pool of processes until the queue is empty or one of the processes dies."""
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
                why = future.result()  # raises if the process died
                job = running.pop(future)
                queue.release(job)
                if why is None:
                    on_done(job)
                else:
                    on_failure(job, why)
    finally:
        if running:
            stop.set()
        pool.shutdown(cancel_futures=True)


class CellQueue:
    """A queue of cells: of each group that shares a backbone, one job runs alone first and trains it.

    Args:
        jobs: the jobs to run.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._waiting: dict[str, list[Job]] = {}
        for job in jobs:
            self._waiting.setdefault(job.cell.group, []).append(job)
        self._running: list[Job] = []
        self._started: set[str] = set()
        self._have_backbone: set[str] = set()  # groups of which a job has ended

    def __bool__(self) -> bool:
        return bool(self._running or any(self._waiting.values()))

    def take(self) -> Job | None:
        """Return a job that does not have to wait for another's backbone, preferably of an idle group."""
        busy = Counter(job.cell.group for job in self._running)
        groups = [group for group, jobs in self._waiting.items() if jobs]
        idle = [group for group in groups if not busy[group]]
        started = [group for group in idle if group in self._started]
        shared = [group for group in groups if group in self._have_backbone]
        choice = started or idle or sorted(shared, key=lambda group: busy[group])
        if not choice:
            return None
        self._started.add(choice[0])
        self._running.append(job := self._waiting[choice[0]].pop(0))
        return job

    def release(self, job: Job) -> None:
        """Let the other jobs of its group start."""
        self._running.remove(job)
        self._have_backbone.add(job.cell.group)

    def give_up(self) -> list[Job]:
        """Return the jobs that were running; they are not retried."""
        lost, self._running = self._running, []
        return lost


def start_worker(threads: int, parent: int, stop: Event) -> None:
    """Set up a worker before torch is imported; interrupts are left to the parent."""
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
    except Exception as error:  # a bug that one cell meets must not stop the others
        logger.exception("%s", job.cell)
        return redact(f"{type(error).__name__}: {error}")
    return None
