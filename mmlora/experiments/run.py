"""Running an experiment: its cells in parallel processes, each once, whatever was done before.

A cell's folder that has a ``result.json`` is done. One that fails is named at the end, and doesn't stop the
others.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlora.errors import MmloraError, TransientError, UsageError
from mmlora.experiments.cell import Cell
from mmlora.experiments.plan import Experiment, read_experiment
from mmlora.experiments.pool import Failure, run_jobs
from mmlora.experiments.tracking import track
from mmlora.pipeline.training_set import ROW_SETTINGS
from mmlora.pipeline.workspace import Progress, Workspace, open_workspace, silent

if TYPE_CHECKING:
    from mmlora.experiments.data import Rows
    from mmlora.experiments.job import Job

Tell = Callable[[str], None]


def experiment_folder(workspace: Workspace, experiment: Experiment) -> Path:
    """Return where an experiment's cells and their test rows are."""
    return workspace.home / "experiments" / experiment.name


def run_experiment(
    file: Path, *, workers: int = 1, progress: Progress = silent, tell: Tell = lambda line: None
) -> dict[str, Any]:
    """Run the cells of a file that aren't done.

    Args:
        file: the experiment's TOML file.
        workers: processes; the machine's cores are divided among them.
        progress: told how far the data is.
        tell: told, in a line, of each cell that ends.

    Returns:
        ``folder``, ``cells`` (how many there are), ``ran``, ``failures`` and ``results``, one of
        :func:`summary_of` for each cell that is done.

    Raises:
        UsageError: the file is wrong, or there are fewer than one worker.
    """
    if workers < 1:
        raise UsageError(f"workers is {workers}: give 1 or more")
    experiment, workspace = read_experiment(file), open_workspace()
    folder = experiment_folder(workspace, experiment)
    keys = {experiment.key(cell): cell for cell in experiment.cells}
    waiting = {key: cell for key, cell in keys.items() if not result_file(folder, key).exists()}
    jobs, failures = _jobs(experiment, folder, waiting, workers, progress)
    board = _Board(workspace, experiment, folder, total=len(keys), tell=tell)
    for key in keys:
        if key not in waiting:
            board.keep(key)
    for failure in failures:
        board.failed(failure)
    run_jobs(jobs, workers, on_done=board.ended, on_failure=board.failed)
    done = [key for key in keys if result_file(folder, key).exists()]
    return {
        "folder": str(folder),
        "cells": len(keys),
        "ran": board.ran,
        "failures": [{"cell": failure.cell, "why": failure.why} for failure in board.failures],
        "results": [summary_of(read_result(folder, key)) for key in done],
    }


def report_experiment(file: Path, output: Path | None = None) -> list[Path]:
    """Write the report of a file's cells; to the experiment's folder unless told otherwise.

    Returns:
        The pages.

    Raises:
        UsageError: the file is wrong, or no cell is done.
    """
    from mmlora.reporting.experiment import write_report

    experiment = read_experiment(file)
    folder = experiment_folder(open_workspace(), experiment)
    target = output or folder / "report"
    planned = planned_cells(experiment)
    return write_report(folder, experiment.title, experiment.description, target, planned=planned)


def result_file(folder: Path, key: str) -> Path:
    """Return where a cell's result is; it is there when the cell is done."""
    return folder / "cells" / key / "result.json"


def read_result(folder: Path, key: str) -> dict[str, Any]:
    """Read a cell's result."""
    result: dict[str, Any] = json.loads(result_file(folder, key).read_text(encoding="utf-8"))
    return result


def summary_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a table shows of a cell."""
    cell, test = result["cell"], result["test"]
    shown = {name: value for name, value in cell.items() if name != "settings"}
    figures = {name: test[name] for name in ("wauc", "gauc", "logloss")}
    return {**shown, **cell["settings"], **figures, "seconds": round(result["seconds"]["total"], 1)}


def planned_cells(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """Return every cell that the file asks for, by its key."""
    return {experiment.key(cell): cell.to_dict() for cell in experiment.cells}


class _Board:
    """Keeps count of the cells, and has each tracked once it is done."""

    def __init__(
        self, workspace: Workspace, experiment: Experiment, folder: Path, *, total: int, tell: Tell
    ) -> None:
        self.workspace, self.experiment, self.folder = workspace, experiment, folder
        self.total, self.tell = total, tell
        self.done, self.ran, self.seconds = 0, 0, 0.0
        self.failures: list[Failure] = []

    def keep(self, key: str) -> None:
        """Count a cell that an earlier run did; it is tracked where that run was stopped too early."""
        self.done += 1
        self._track(key)

    def ended(self, job: Job) -> None:
        """Count a cell that has just been done."""
        result = read_result(self.folder, job.key)
        self.done, self.ran = self.done + 1, self.ran + 1
        self.seconds += result["seconds"]["cell"]
        wauc, mean = result["test"]["wauc"], self.seconds / self.ran
        shown = "no wauc" if wauc is None else f"wauc {wauc:.4f}"
        took = f"{result['seconds']['cell']:.0f} s, mean {mean:.0f} s"
        self.tell(f"{self._count()} {job.cell}: {shown} ({took})")
        self._track(job.key)

    def failed(self, failure: Failure) -> None:
        """Remember a cell that didn't come to an end."""
        self.failures.append(failure)
        self.tell(f"{self._count()} {failure.cell}: failed: {failure.why}")

    def _count(self) -> str:
        return f"[{self.done} of {self.total}]"

    def _track(self, key: str) -> None:
        try:
            track(self.workspace, self.experiment.name, result_file(self.folder, key))
        except TransientError as error:  # the cell is safe; the next run tracks it
            self.tell(f"{self._count()} not tracked: {error}")


def _jobs(
    experiment: Experiment, folder: Path, waiting: Mapping[str, Cell], workers: int, progress: Progress
) -> tuple[list[Job], list[Failure]]:
    """Make each cell's training set; cells that have the same share it."""
    if not waiting:
        return [], []
    from mmlora.experiments.data import prepare_rows, shared_home
    from mmlora.experiments.job import Job

    threads = max(1, (os.cpu_count() or 1) // workers)
    made: dict[str, Rows | str] = {}
    jobs, failures = [], []
    for key, cell in waiting.items():
        settings = experiment.training_settings(cell)
        decisive = settings.model_dump(mode="json", include={"features", *ROW_SETTINGS})
        data = json.dumps([experiment.definition(cell), decisive], default=str)
        if data not in made:
            try:
                made[data] = prepare_rows(experiment, cell, shared_home(folder), progress)
            except MmloraError as error:
                made[data] = f"its data: {error}"
        rows = made[data]
        if isinstance(rows, str):
            failures.append(Failure(str(cell), rows))
        else:
            jobs.append(Job(cell, key, folder, rows, settings, threads))
    return jobs, failures
