"""Stopped and started again: what is done stays, what isn't is done."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def copied(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The tiny experiment as it was left, to be changed."""
    shutil.copytree(tiny.home, tmp_path / "var")
    shutil.copy(tiny.file, tmp_path)
    monkeypatch.setenv("MMLORA_HOME", str(tmp_path / "var"))
    return type(tiny)(tmp_path / "tiny.toml", tmp_path / "var", {})


def test_a_lost_cell_is_done_again_and_no_other(copied: Any, run_cli: Callable[..., Any]) -> None:
    lost = copied.result("moe_mlora", 2, "domain")
    shutil.rmtree(copied.folder / "cells" / lost["cell_key"])
    kept = {p: p.stat().st_mtime_ns for p in copied.folder.rglob("*") if p.suffix in (".json", ".npy")}
    done = run_cli("run", copied.file, "--json")
    assert done.exit_code == 0, done.output
    assert (json.loads(done.stdout)["ran"], json.loads(done.stdout)["cells"]) == (1, 15)
    again = copied.result("moe_mlora", 2, "domain")
    assert again["test"] == lost["test"] and again["parts"] == lost["parts"]
    assert again["mlflow_run_id"] != lost["mlflow_run_id"]
    assert {p: p.stat().st_mtime_ns for p in kept} == kept  # phases and data included


def test_a_cell_that_was_not_tracked_is_tracked_by_the_next_run(
    copied: Any, run_cli: Callable[..., Any]
) -> None:
    untracked = {**copied.result("joint"), "mlflow_run_id": None}
    file = copied.folder / "cells" / untracked["cell_key"] / "result.json"
    file.write_text(json.dumps(untracked))
    done = run_cli("run", copied.file, "--json")
    assert json.loads(done.stdout)["ran"] == 0
    assert json.loads(file.read_text())["mlflow_run_id"]


def test_a_cell_that_fails_is_named_and_the_others_go_on(copied: Any, run_cli: Callable[..., Any]) -> None:
    text = (
        copied.file.read_text()
        .replace("[grid]", "[[grids]]", 1)
        .replace('gate = ["domain", "sample"]', "settings = {gate_top_k = [9]}")
    )
    copied.file.write_text(text)
    done = run_cli("run", copied.file, "--json")
    assert done.exit_code == 1
    said = json.loads(done.stdout)
    # More experts to keep than there are; arms without a trained gate don't ask.
    assert {failure["cell"].split(", ")[3] for failure in said["failures"]} == {"moe_mlora"}
    assert "gate_top_k" in said["failures"][0]["why"]
    assert len(said["results"]) == said["cells"] - len(said["failures"])


@pytest.mark.slow
def test_a_killed_run_leaves_no_process_and_goes_on(tiny: Any, tmp_path: Path) -> None:
    text = (
        tiny.file.read_text()
        .replace("rows = 3000", "rows = 60000")
        .replace("max_epochs = 4", "max_epochs = 12")
    )
    (file := tmp_path / "killed.toml").write_text(
        text.replace("learning_rate = 0.01", "learning_rate = 0.001")
    )
    home = tmp_path / "var"
    command = [sys.executable, "-m", "cli.main", "experiment", "run", str(file), "--workers", "2", "--json"]
    environment = {**os.environ, "MMLORA_HOME": str(home), "PYTHONPATH": str(Path.cwd())}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    cells = home / "experiments" / "killed" / "cells"
    _until(lambda: bool(list(cells.glob("*/result.json"))), 120)
    workers = _children(process.pid)
    assert workers
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 10)
    done = {path: path.stat().st_mtime_ns for path in cells.glob("*/scores.npy")}

    rest = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert rest.returncode == 0, rest.stderr
    said = json.loads(rest.stdout)
    assert len(said["results"]) == said["cells"] == 15
    finished = [path for path in done if (path.parent / "result.json").exists()]
    assert said["ran"] <= 15 - len(finished) + 1
    assert all(path.stat().st_mtime_ns == done[path] for path in finished)


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def _until(true: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.2)
