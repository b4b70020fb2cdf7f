"""Faults to turn on: a process that dies at any of its steps, or at any moment."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from mmlora.workspace import open_workspace

PAUSE_SECONDS = 0.03
"""Pause between two looks at a running process, which needs the processor too."""
KILLED = -signal.SIGKILL
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
_TOUCHES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}


@dataclass(frozen=True)
class Kill:
    """When a process dies by SIGKILL, so that it cleans up nothing.

    Attributes:
        step: before this step, counted from 0: an SQL statement, a commit, or a change of a file.
        seconds: after this time.
    """

    step: int | None = None
    seconds: float | None = None


def run_and_kill(
    action: Callable[[], object],
    kill: Kill,
    home: Path,
    meanwhile: Callable[[], object] = lambda: None,
) -> bool:
    """Run an action in a forked process that dies; return False if it was done before it could.

    Args:
        action: what to run; it opens its own connections.
        kill: when it dies.
        home: the folder under which changes of files count as steps.
        meanwhile: called over and over while it runs.
    """

    def armed() -> None:
        _arm(kill, home)
        action()

    (code,) = _run_all([armed], meanwhile)
    assert code in (0, KILLED), f"the process ended with {code}: see its traceback on standard error"
    return code == KILLED


def run_all(actions: Sequence[Callable[[], object]], meanwhile: Callable[[], object] = lambda: None) -> None:
    """Run actions at once, each in a forked process; all must succeed."""
    assert set(_run_all(actions, meanwhile)) == {0}, "see the tracebacks on standard error"


def _run_all(actions: Sequence[Callable[[], object]], meanwhile: Callable[[], object]) -> list[int]:
    codes: dict[int, int | None] = {}
    for action in actions:
        child = os.fork()
        if child == 0:
            _end(action)
        codes[child] = None
    while None in codes.values():
        meanwhile()
        time.sleep(PAUSE_SECONDS)
        for child in [child for child, code in codes.items() if code is None]:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                codes[child] = os.waitstatus_to_exitcode(status)
    return [code for code in codes.values() if code is not None]


def _end(action: Callable[[], object]) -> None:
    """Run an action and end the process, whatever happens: it must not go on as a second pytest."""
    code = 1
    try:
        action()
        code = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def die() -> None:
    """End this process as the kernel would."""
    os.kill(os.getpid(), signal.SIGKILL)


def _arm(kill: Kill, home: Path) -> None:
    if kill.seconds is not None:
        signal.signal(signal.SIGALRM, lambda *_: die())
        signal.setitimer(signal.ITIMER_REAL, max(kill.seconds, 1e-6))
    if kill.step is None:
        return
    left = kill.step

    def step(*_: Any) -> None:
        nonlocal left
        if left == 0:
            die()
        left -= 1

    def touched(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _TOUCHES and (event != "open" or _writes(arguments)) and str(home) in str(arguments[0]):
            step()

    for event in ("before_cursor_execute", "commit"):
        sa.event.listen(sa.Engine, event, step)
    sys.addaudithook(touched)


def _writes(arguments: tuple[Any, ...]) -> bool:
    """Whether an ``open`` may write: by its mode, or its flags where there is none."""
    mode, flags = arguments[1], arguments[2]
    return any(letter in mode for letter in "wax+") if isinstance(mode, str) else bool(flags & 0b11)


def let_time_pass() -> None:
    """Have the loads of killed processes be silent for long."""
    with open_workspace().open_warehouse() as warehouse, warehouse.database.writing() as connection:
        loads = warehouse.tables.score_loads
        long_ago = datetime.now(UTC) - timedelta(hours=1)
        connection.execute(sa.update(loads).where(loads.c.state == "running").values(heartbeat_at=long_ago))
