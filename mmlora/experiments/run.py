"""Run the cells of an experiment in parallel processes, except those that are done.

A cell is done if its folder has a ``result.json``. Cells that cannot be trained are reported before the
others start. A cell that fails does not stop the others.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmlora.errors import MmloraError, TransientError, UsageError
from mmlora.experiments.arms import ARMS
from mmlora.experiments.cell import Cell
from mmlora.experiments.plan import Experiment, read_experiment
from mmlora.experiments.pool import CellQueue, run_jobs
from mmlora.experiments.results import cell_folder, is_done, read_result, summary_of
from mmlora.experiments.tracking import open_tracking, track
from mmlora.records import Record
from mmlora.runs.training_set import ROW_SETTINGS
from mmlora.workspace import Progress, Workspace, open_workspace, silent

if TYPE_CHECKING:
    from mmlora.experiments.data import PreparedRows
    from mmlora.experiments.job import Job
    from mmlora.registry.tracking import Tracking
    from mmlora.settings import TrainingSettings

Log = Callable[[str], None]
"""Shows a line of text to the user."""


@dataclass(frozen=True)
class Failure(Record):
    """A cell or trial that failed.

    Attributes:
        cell: the cell, in one line.
        why: the reason.
    """

    cell: str
    why: str


@dataclass(frozen=True)
class ExperimentOutcome(Record):
    """The outcome of a run of an experiment.

    Attributes:
        folder: the experiment's folder.
        cells: number of cells.
        ran: number of cells that this run completed.
        failures: the cells that failed.
        results: :func:`~mmlora.experiments.results.summary_of` every cell that is done.
    """

    folder: str
    cells: int
    ran: int
    failures: tuple[Failure, ...]
    results: tuple[Mapping[str, object], ...]


def experiment_folder(workspace: Workspace, experiment: Experiment) -> Path:
    """Return the folder of an experiment's cells and test rows."""
    return workspace.home / "experiments" / experiment.name


def run_experiment(
    file: Path, *, workers: int = 1, progress: Progress = silent, log: Log = lambda line: None
) -> ExperimentOutcome:
    """Run the cells of a file that are not done.

    Args:
        file: the experiment's TOML file.
        workers: number of processes, which share the cores.
        progress: called with the progress of preparing the data.
        log: called with a line at the start, after each cell, and on an interrupt.

    Raises:
        UsageError: the file is invalid, or ``workers`` is below 1.
    """
    if workers < 1:
        raise UsageError(f"workers is {workers}: give 1 or more")
    experiment, workspace = read_experiment(file), open_workspace()
    if not experiment.cells:
        raise UsageError(
            f"{file} has no [grid] and so no cells to run: add one, or use mmlora experiment tune"
        )
    folder = experiment_folder(workspace, experiment)
    keys = [experiment.key(cell) for cell in experiment.cells]
    done = sum(is_done(cell_folder(folder, key)) for key in keys)
    log(f"{counted(len(keys), 'cell')}, {done} done, {counted(workers, 'worker')}, folder {folder}")
    with explained_interrupt(log):
        tally = run_cells(experiment, experiment.cells, workers=workers, progress=progress, log=log)
    folders = [cell_folder(folder, key) for key in keys]
    return ExperimentOutcome(
        folder=str(folder),
        cells=len(keys),
        ran=tally.ran,
        failures=tuple(tally.failures),
        results=tuple(summary_of(read_result(own)) for own in folders if is_done(own)),
    )


@contextmanager
def explained_interrupt(log: Log) -> Iterator[None]:
    """On a keyboard interrupt, log how to resume."""
    try:
        yield
    except KeyboardInterrupt:
        log("stopped; run the same command again to resume")
        raise


def counted(count: int, noun: str) -> str:
    """Return a count and its noun, in the plural unless it is 1."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def run_cells(
    experiment: Experiment, cells: Iterable[Cell], *, workers: int, progress: Progress, log: Log
) -> CellTally:
    """Run the cells of an experiment that are not done, and track each in MLflow.

    Returns:
        The tally of the cells.
    """
    workspace = open_workspace()
    folder = experiment_folder(workspace, experiment)
    keys = {experiment.key(cell): cell for cell in cells}
    waiting = {key: cell for key, cell in keys.items() if not is_done(cell_folder(folder, key))}
    jobs, failures = _jobs(experiment, folder, waiting, workers, progress)
    tally = CellTally(open_tracking(workspace, experiment.name), folder, total=len(keys), log=log)
    for key in keys:
        if key not in waiting:
            tally.add_earlier(key)
    for failure in failures:
        tally.add_failure(failure)
    run_jobs(
        CellQueue(jobs),
        workers,
        on_done=tally.add_done,
        on_failure=lambda job, why: tally.add_failure(Failure(str(job.cell), why)),
    )
    return tally


def report_experiment(file: Path, output: Path | None = None) -> list[Path]:
    """Write the report of a file's cells, by default to the folder ``report`` of the experiment.

    Returns:
        The files of the report.

    Raises:
        UsageError: the file is invalid, or no cell is done.
    """
    from mmlora.experiments.report.write import write_report

    experiment = read_experiment(file)
    folder = experiment_folder(open_workspace(), experiment)
    target = output or folder / "report"
    planned = {experiment.key(cell): cell for cell in experiment.cells}
    return write_report(folder, experiment.title, experiment.description, target, planned=planned)


class CellTally:
    """Counts cells as they end, and tracks those that are done in MLflow.

    Attributes:
        ran: number of cells that this run completed.
        failures: the cells that failed.
    """

    def __init__(self, tracking: Tracking, folder: Path, *, total: int, log: Log) -> None:
        self.tracking, self.folder, self.total, self.log = tracking, folder, total, log
        self.done, self.ran, self.seconds = 0, 0, 0.0
        self.failures: list[Failure] = []

    def add_earlier(self, key: str) -> None:
        """Count a cell of an earlier run, and track it unless that run did."""
        self.done += 1
        self._track(key)

    def add_done(self, job: Job) -> None:
        """Count a cell that this run completed."""
        result = read_result(job.result_folder)
        self.done, self.ran = self.done + 1, self.ran + 1
        self.seconds += result["seconds"]["cell"]
        wauc, mean = result["test"]["wauc"], self.seconds / self.ran
        figure = "no wauc" if wauc is None else f"wauc {wauc:.4f}"
        seconds = f"{result['seconds']['cell']:.0f} s, mean {mean:.0f} s"
        self.log(f"{self._count()} {job.cell}: {figure} ({seconds})")
        self._track(job.key)

    def add_failure(self, failure: Failure) -> None:
        """Record a cell that failed."""
        self.failures.append(failure)
        self.log(f"{self._count()} {failure.cell}: failed: {failure.why}")

    def _count(self) -> str:
        return f"[{self.done} of {self.total}]"

    def _track(self, key: str) -> None:
        track_or_log(self.tracking, cell_folder(self.folder, key), self.log)


def track_or_log(tracking: Tracking, folder: Path, log: Log) -> None:
    """Track a result in MLflow, or log why that failed: the result is kept, and the next run tracks it."""
    try:
        track(tracking, folder)
    except TransientError as error:
        log(f"not tracked: {error}")


def _jobs(
    experiment: Experiment, folder: Path, waiting: Mapping[str, Cell], workers: int, progress: Progress
) -> tuple[list[Job], list[Failure]]:
    """Make each training set once; return jobs for the cells, and failures of untrainable cells."""
    if not waiting:
        return [], []
    from mmlora.experiments.data import prepare_rows, shared_home
    from mmlora.experiments.job import Job

    threads = max(1, (os.cpu_count() or 1) // workers)
    prepared: dict[str, PreparedRows | str] = {}
    jobs, failures = [], []
    for key, cell in waiting.items():
        settings = experiment.training_settings(cell)
        row_settings = settings.as_kept(only=("features", *ROW_SETTINGS))
        data_key = json.dumps([experiment.definition(cell), row_settings], default=str)
        if data_key not in prepared:
            try:
                prepared[data_key] = prepare_rows(experiment, cell, shared_home(folder), progress)
            except MmloraError as error:
                prepared[data_key] = f"its data: {error}"
        rows = prepared[data_key]
        why = rows if isinstance(rows, str) else refusal(cell, rows, settings)
        if why is not None:
            failures.append(Failure(str(cell), why))
        elif not isinstance(rows, str):
            jobs.append(Job(cell, key, folder, rows, settings, threads))
    return jobs, failures


def refusal(cell: Cell, rows: PreparedRows, settings: TrainingSettings) -> str | None:
    """Return why a cell cannot be trained on its rows; None if it can."""
    from mmlora.experiments.data import open_rows
    from mmlora.runs.training_run import spec_from
    from mmlora.training.controls import trainable_domains
    from mmlora.training.refusals import refuse_impossible

    data = open_rows(rows)
    domains = trainable_domains(data, data.label) if ARMS[cell.arm].experts else []
    try:
        refuse_impossible(spec_from(settings, data), data, domains)
    except MmloraError as error:
        return str(error)
    return None
