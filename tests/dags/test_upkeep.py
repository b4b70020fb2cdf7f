"""The DAGs `maintenance` and `backfill`, run for real by ``dag.test()`` on the made-up workspace.

In a process of its own: Airflow reads its settings once, and changes logging for good.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from mmlora.workspace import open_workspace

pytestmark = pytest.mark.slow
MAINTENANCE = ("evaluate", "share", "restate", "gc", "verify")


def states(run: dict[str, Any]) -> dict[tuple[str, str], str]:
    return {(task["task_id"], task["label"]): task["state"] for task in run["tasks"]}


def test_nights_are_filled_and_kept_sound(trained_workspace: Path, tmp_path: Path) -> None:
    script = Path(__file__).with_name("run_upkeep.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "airflow")],
        env={**os.environ, "PYTHONPATH": str(script.parents[2])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    results, log = json.loads(done.stdout.splitlines()[-1]), done.stdout + done.stderr
    runs = results["runs"]
    assert {name: run["state"] for name, run in runs.items()} == {
        "nothing published": "success",
        "plan": "success",
        "filled": "success",
        "healthy": "success",
        "poor": "failed",
        "refused": "failed",
    }, log[-5000:]
    assert states(runs["filled"]) == {
        ("domains", ""): "success",
        ("fill", "news"): "success",
        ("fill", "sport"): "success",
    }
    with open_workspace().open_warehouse() as warehouse:
        nights = {(night.domain_id, night.score_date) for night in warehouse.publications()}
    assert nights == {(domain, date(2001, 4, day)) for domain in ("news", "sport") for day in (8, 9)}
    expected = {(task, ""): "success" for task in MAINTENANCE}
    poor = states(runs["poor"])
    assert poor.pop(("all_succeeded", "")) == "upstream_failed"
    assert poor == {**expected, ("evaluate", ""): "failed"}, "the others run all the same"
    assert "is below 0.99" in log
    (alert,) = results["alerts"]
    assert {(night["domain"], night["date"]) for night in alert["nights"]} == {
        ("sport", "2001-04-08"),
        ("sport", "2001-04-09"),
    }
    assert "no sport tonight" in alert["text"]
    assert alert["command"] == (
        "mmlora backfill --domain sport --start 2001-04-08 --end 2001-04-09 --top-k 4"
    )
