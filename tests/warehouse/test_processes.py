"""Eight processes at once, on the same load, on loads of one night, and on different nights."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path

import pytest

from mmlora.warehouse.backends.base import alone_by_file
from mmlora.warehouse.warehouse import Warehouse
from tests.faults import needs_fork, run_all
from tests.warehouse.conftest import Desk, Row

pytestmark = needs_fork


@pytest.fixture(params=[2, pytest.param(8, marks=pytest.mark.slow)])
def processes(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def publishing(url: str, load_id: str, files: Iterable[Path]) -> Callable[[], object]:
    def publish() -> None:
        with Warehouse.open(url) as warehouse:
            warehouse.publish(warehouse.load(load_id), list(files))

    return publish


def while_polled(desk: Desk, actions: list[Callable[[], object]]) -> list[list[Row]]:
    """Run actions at once, each in a process of its own, and return what a reader saw meanwhile."""
    seen: list[list[Row]] = []
    run_all(actions, lambda: seen.append(desk.seen_by_sql()))
    return seen


def test_one_load_is_published_once(desk: Desk, url: str, processes: int) -> None:
    desk.publish(desk.rows(1))
    load, files = desk.stage(desk.rows(2))
    seen = while_polled(desk, [publishing(url, load.load_id, files)] * processes)
    assert all(rows in (desk.rows(1), desk.rows(2)) for rows in seen)
    assert desk.seen() == desk.rows(2)
    assert desk.sql("SELECT count(*) FROM scores") == [(24,)]


def test_of_loads_of_one_night_the_newest_stays(desk: Desk, url: str, processes: int) -> None:
    staged = [desk.stage(desk.rows(n % 4)) for n in range(processes)]
    seen = while_polled(desk, [publishing(url, load.load_id, files) for load, files in staged])
    assert all(rows in [[], *(desk.rows(n) for n in range(4))] for rows in seen)
    assert desk.warehouse.publication("books").load_id == staged[-1][0].load_id
    assert desk.seen() == desk.rows((processes - 1) % 4)
    assert {load.state for load in desk.warehouse.loads()} == {"published", "superseded"}


def test_different_nights_are_published_side_by_side(desk: Desk, url: str, processes: int) -> None:
    nights = [(f"d{n % 4}", desk.day + timedelta(days=n // 4)) for n in range(processes)]
    staged = [desk.stage(desk.rows(n % 4), *night) for n, night in enumerate(nights)]
    run_all([publishing(url, load.load_id, files) for load, files in staged])
    for n, (domain, day) in enumerate(nights):
        assert desk.seen(domain, day) == desk.rows(n % 4)


def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    """Its file is removed after each use, which must not let two others hold one each."""
    inside, most = 0, 0

    def use() -> None:
        nonlocal inside, most
        for _ in range(100):
            with alone_by_file(tmp_path / "warehouse.db", "publish-1"):
                inside += 1
                most = max(most, inside)
                os.sched_yield()
                inside -= 1

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1 and list(tmp_path.iterdir()) == []
