"""The queue of cells: workers get cells that do not have to wait for another's backbone."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from datetime import date
from multiprocessing import get_context
from pathlib import Path

import pytest

from mmlora.experiments import pool
from mmlora.experiments.arms import ArmName
from mmlora.experiments.cell import Cell
from mmlora.experiments.data import PreparedRows
from mmlora.experiments.job import Job
from mmlora.experiments.pool import CellQueue
from mmlora.settings import TrainingSettings


def _job(seed: int, arm: ArmName) -> Job:
    cell = Cell("made", "ids", "wdl", arm, 1, "domain", "random", seed, {"rank": 2}).canonical()
    return Job(
        cell, f"{seed}-{arm}", Path(), PreparedRows(Path(), "", date(2020, 1, 1)), TrainingSettings(), 1
    )


def test_workers_start_with_different_backbones_and_keep_them() -> None:
    queue = CellQueue([_job(seed, arm) for seed in (0, 1) for arm in ("pooled_domain", "mlora", "moe_mlora")])
    first, second = queue.take(), queue.take()
    assert first and second and (first.cell.seed, second.cell.seed) == (0, 1)
    assert queue.take() is None  # a third would wait for a backbone
    queue.release(first)
    third = queue.take()
    assert third and third.cell.seed == 0


def test_a_job_whose_worker_died_after_its_result_was_written_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [replace(_job(seed, "mlora"), folder=tmp_path) for seed in (0, 1)]

    def die(queue: CellQueue, *others: object) -> None:
        for job in jobs:
            assert queue.take() == job
        jobs[0].result_folder.mkdir(parents=True)
        (jobs[0].result_folder / "result.json").touch()
        raise BrokenProcessPool

    monkeypatch.setattr(pool, "run_until_broken", die)
    done: list[Job] = []
    failed: list[Job] = []
    pool.run_jobs(CellQueue(jobs), 2, on_done=done.append, on_failure=lambda job, why: failed.append(job))
    assert (done, failed) == (jobs[:1], jobs[1:])


def test_idle_workers_help_with_the_last_group() -> None:
    queue = CellQueue([_job(0, arm) for arm in ("pooled_domain", "mlora", "moe_mlora")])
    first = queue.take()
    assert first and queue.take() is None
    queue.release(first)
    assert queue.take() and queue.take()
    assert queue  # two are running
    assert len(queue.give_up()) == 2 and not queue


def test_a_worker_sets_mkls_mode_before_importing_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MKL_CBWR")  # as in a process that didn't inherit it
    context = get_context("spawn")
    start = (1, os.getpid(), context.Event())
    with ProcessPoolExecutor(1, context, pool.start_worker, start) as worker:
        before = worker.submit(eval, "'torch' in __import__('sys').modules").result()
        mode = worker.submit(eval, "__import__('os').environ['MKL_CBWR']").result()
    assert (before, mode) == (False, "AUTO,STRICT")
