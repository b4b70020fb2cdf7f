"""Resuming an experiment: finished cells are kept, and the others are run."""

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
import torch

from mmlora.experiments.data import workspace_at
from mmlora.runs import training_run
from mmlora.training.observer import PhaseReport
from mmlora.training.phases import PhaseResult

pytestmark = pytest.mark.timeout(900)  # processes that each import torch, on a machine that may be busy


@pytest.fixture
def copied(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A copy of the tiny experiment that a test may change."""
    shutil.copytree(tiny.home, tmp_path / "var")
    shutil.copy(tiny.file, tmp_path)
    monkeypatch.setenv("MMLORA_HOME", str(tmp_path / "var"))
    return type(tiny)(tmp_path / "tiny.toml", tmp_path / "var", {})


@pytest.mark.slow
def test_only_a_lost_cell_is_run_again(copied: Any, run_cli: Callable[..., Any]) -> None:
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


def test_a_phase_is_trained_again_after_changes_of_training_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = PhaseReport("backbone", None, 0, "wauc", 0.5, 0.6, 1, 1, True, (), 1.0, 10)
    trained: list[int] = []

    def compute(checkpoint: object) -> PhaseResult:
        trained.append(1)
        return PhaseResult({"weight": torch.zeros(1)}, report)

    workspace = workspace_at(tmp_path)
    for revision in (1, 1, 2):
        monkeypatch.setattr("mmlora.runs.training_run.TRAINING_REVISION", revision)
        training_run.shared_step(workspace, {"step": "backbone"}, compute, "backbone")
    assert len(trained) == 2


@pytest.mark.slow
def test_a_cell_that_was_not_tracked_is_tracked_by_the_next_run(
    copied: Any, run_cli: Callable[..., Any]
) -> None:
    untracked = {**copied.result("joint"), "mlflow_run_id": None}
    file = copied.folder / "cells" / untracked["cell_key"] / "result.json"
    file.write_text(json.dumps(untracked))
    done = run_cli("run", copied.file, "--json")
    assert json.loads(done.stdout)["ran"] == 0
    assert json.loads(file.read_text())["mlflow_run_id"]


def test_a_cell_that_cannot_be_trained_is_refused_before_the_others_start(
    copied: Any, run_cli: Callable[..., Any]
) -> None:
    grid = '[[grids]]\nbackbone = "wdl"\n'
    copied.file.write_text(
        copied.file.read_text().replace("[grid]", "[[grids]]", 1)
        # Keeps more experts than there are; arms without a trained gate ignore this.
        + f'{grid}arm = ["mlora", "moe_mlora"]\nsettings = {{gate_top_k = [9]}}\n'
        # Every domain has fewer clicks.
        + f'{grid}arm = ["mlora", "uniform_gate"]\nexperts_per_domain = 200\n'
    )
    text = copied.file.read_text()
    head, settings, tail = text.partition("\n[settings]")
    own, _, grids = tail.partition("[[grids]]")
    copied.file.write_text(f"{head}\n[[grids]]{grids}{settings}{own}")
    done = run_cli("run", copied.file, "--json")
    assert done.exit_code == 1, done.output
    outcome = json.loads(done.stdout)
    assert outcome["ran"] == 0 and len(outcome["results"]) == 15
    why = {failure["cell"].split(", ")[3]: failure["why"] for failure in outcome["failures"]}
    assert why.keys() == {"moe_mlora", "uniform_gate"}
    assert "gate_top_k" in why["moe_mlora"]
    assert "experts_per_domain is 200, and each expert needs" in why["uniform_gate"]
    assert len(list((copied.folder / "cells").iterdir())) == 15  # nothing was begun


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_killed_run_leaves_no_process_and_resumes(tiny: Any, tmp_path: Path) -> None:
    text = tiny.file.read_text()
    data, settings = text[: text.index("[grid]")], text[text.index("[settings]") :]
    grid = '[grid]\nbackbone = "wdl"\narm = ["pooled_domain", "mlora", "moe_mlora"]\nseed = [0, 1]\n'
    longer = (data + grid + settings).replace("rows = 1500", "rows = 20000")
    (file := tmp_path / "killed.toml").write_text(longer.replace("max_epochs = 2", "max_epochs = 8"))
    home = tmp_path / "var"
    command = [
        sys.executable,
        "-m",
        "mmlora_cli.main",
        "experiment",
        "run",
        str(file),
        "--workers",
        "2",
        "--json",
    ]
    environment = {**os.environ, "MMLORA_HOME": str(home), "PYTHONPATH": str(Path.cwd())}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    cells = home / "experiments" / "killed" / "cells"
    _until(lambda: bool(list(cells.glob("*/result.json"))), 240)
    workers = _children(process.pid)
    assert workers
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 60)
    done = {path: path.stat().st_mtime_ns for path in cells.glob("*/scores.npy")}

    rest = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert rest.returncode == 0, rest.stderr
    outcome = json.loads(rest.stdout)
    assert len(outcome["results"]) == outcome["cells"] == 6
    finished = [path for path in done if (path.parent / "result.json").exists()]
    assert outcome["ran"] == 6 - len(finished)
    assert all(path.stat().st_mtime_ns == done[path] for path in finished)


def _children(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children]


def _until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.2)
