"""Which cell a free worker takes: none that would wait for another, while there is one."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from mmlora.experiments.cell import Arm, Cell
from mmlora.experiments.data import Rows
from mmlora.experiments.job import Job
from mmlora.experiments.pool import CellQueue
from mmlora.settings import TrainingSettings


def _job(seed: int, arm: Arm) -> Job:
    cell = Cell("made", "ids", "wdl", arm, 1, "domain", "random", seed, {"rank": 2}).canonical()
    return Job(cell, f"{seed}-{arm}", Path(), Rows(Path(), "", date(2020, 1, 1)), TrainingSettings(), 1)


def test_workers_open_different_backbones_and_stay_with_them() -> None:
    queue = CellQueue([_job(seed, arm) for seed in (0, 1) for arm in ("pooled_domain", "mlora", "moe_mlora")])
    first, second = queue.take(), queue.take()
    assert first and second and (first.cell.seed, second.cell.seed) == (0, 1)
    assert queue.take() is None  # a third would wait for a backbone
    queue.ended(first)
    third = queue.take()
    assert third and third.cell.seed == 0


def test_at_the_end_idle_workers_help_with_what_is_left() -> None:
    queue = CellQueue([_job(0, arm) for arm in ("pooled_domain", "mlora", "moe_mlora")])
    first = queue.take()
    assert first and queue.take() is None
    queue.ended(first)
    assert queue.take() and queue.take()
    assert queue  # two are running
    assert len(queue.give_up()) == 2 and not queue
