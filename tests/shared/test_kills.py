"""A push or a pull killed at each of its steps: others see the old or the new, and it can be run again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from mmlora.shared.remote import Remote
from tests.faults import Kill, needs_fork, run_and_kill
from tests.shared.conftest import Machine, files_of, write

pytestmark = needs_fork

OLD = {"changes": "0", "goes": "0", "stays": "0", "offline/manifest": "0", "training_sets/s/data": "0"}
NEW = {"changes": "1", "stays": "0", "comes/here": "1", "offline/manifest": "1", "training_sets/s/data": "0"}


@pytest.fixture
def machines(tmp_path: Path) -> Callable[[int, str], Machine]:
    """Makes the machines of a step, which share a folder: a process that has talked to S3 must not be forked.

    The steps on S3 are the same, and each is as whole.
    """

    def make(step: int, name: str) -> Machine:
        (tmp_path / f"{name}{step}").mkdir(exist_ok=True)
        return Machine(tmp_path / f"{name}{step}", f"file://{tmp_path}/shared{step}")

    return make


def write_all(machine: Machine, files: dict[str, str]) -> None:
    """Run a command after which the files are these."""
    with machine.work() as home:
        write(home, **{name.replace("/", "__"): text for name, text in files.items()})
        for name in set(OLD).difference(files):
            (home / name).unlink(missing_ok=True)


def everything(machine: Machine) -> dict[str, str]:
    """Return what a machine without anything gets."""
    session = machine.begin()
    for folder in (machine.home / "training_sets").glob("*"):
        session.fetch(f"training_sets/{folder.name}")
    return files_of(machine.home)


def test_a_killed_push_shares_all_or_nothing(machines: Callable[[int, str], Machine], tmp_path: Path) -> None:
    shared, died, step = [], True, 0
    while died:
        a = machines(step, "a")
        write_all(a, OLD)
        died = run_and_kill(partial(write_all, a, NEW), Kill(step=step), tmp_path)
        seen = everything(machines(step, "b"))
        assert seen in (OLD, NEW)
        shared.append(seen == NEW)
        write_all(a, NEW)
        assert everything(machines(step, "c")) == NEW
        Remote(a.url).sweep(datetime.now(UTC) + timedelta(days=1))
        assert everything(machines(step, "d")) == NEW
        step += 1
    assert shared == sorted(shared) and shared.count(False) >= 8, "once it is shared it stays"


def test_a_killed_pull_is_completed_by_the_next(
    machines: Callable[[int, str], Machine], tmp_path: Path
) -> None:
    died, step = True, 0
    while died:
        a, b = machines(step, "a"), machines(step, "b")
        write_all(a, OLD)
        b.seen()
        write_all(a, NEW)
        died = run_and_kill(b.seen, Kill(step=step), tmp_path)
        with a.work() as home:
            write(home, changes="2")
            (home / "comes/here").unlink()
        assert b.seen() == {"changes": "2", "stays": "0", "offline/manifest": "1"}
        assert Remote(a.url).newest_number() == 3, "what a killed pull has left is no change of this machine"
        step += 1
    assert step >= 8
