"""Running an experiment: its cells in parallel processes, each once, whatever was done before.

A cell's folder that has a ``result.json`` is done. One that can't be trained is named before the others
start, one that fails when it does; neither stops the others.
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

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Failure(Record):
    """A cell or a trial that didn't come to an end.

    Attributes:
        cell: the cell, in a line.
        why: what happened.
    """

    cell: str
    why: str


@dataclass(frozen=True)
class ExperimentOutcome(Record):
    """The outcome of a run of an experiment.

    Attributes:
        folder: the experiment's.
        cells: how many there are.
        ran: how many were run now.
        failures: those that didn't come to an end.
        results: :func:`~mmlora.experiments.results.summary_of` each cell that is done.
    """

    folder: str
    cells: int
    ran: int
    failures: tuple[Failure, ...]
    results: tuple[Mapping[str, object], ...]


def experiment_folder(workspace: Workspace, experiment: Experiment) -> Path:
    """Return where an experiment's cells and their test rows are."""
    return workspace.home / "experiments" / experiment.name


def run_experiment(
    file: Path, *, workers: int = 1, progress: Progress = silent, tell: Tell = lambda line: None
) -> ExperimentOutcome:
    """Run the cells of a file that aren't done.

    Args:
        file: the experiment's TOML file.
        workers: processes; the machine's cores are divided among them.
        progress: told how far the data is.
        tell: told, in a line, what there is to do, of each cell that ends, and of an interrupt.

    Raises:
        UsageError: the file is wrong, or there are fewer than one worker.
    """
    if workers < 1:
        raise UsageError(f"workers is {workers}: give 1 or more")
    experiment, workspace = read_experiment(file), open_workspace()
    if not experiment.cells:
        raise UsageError(f"{file} has no [grid], so no cells to run: give one, or use mmlora experiment tune")
    folder = experiment_folder(workspace, experiment)
    keys = [experiment.key(cell) for cell in experiment.cells]
    done = sum(is_done(cell_folder(folder, key)) for key in keys)
    tell(f"{many(len(keys), 'cell')}, {done} done, {many(workers, 'worker')}, folder {folder}")
    with told_of_a_stop(tell):
        board = run_cells(experiment, experiment.cells, workers=workers, progress=progress, tell=tell)
    places = [cell_folder(folder, key) for key in keys]
    return ExperimentOutcome(
        folder=str(folder),
        cells=len(keys),
        ran=board.ran,
        failures=tuple(board.failures),
        results=tuple(summary_of(read_result(place)) for place in places if is_done(place)),
    )


@contextmanager
def told_of_a_stop(tell: Tell) -> Iterator[None]:
    """Say how to go on where a person interrupts what runs inside."""
    try:
        yield
    except KeyboardInterrupt:
        tell("stopped; the same command goes on where it was")
        raise


def many(count: int, what: str) -> str:
    """Return a number of things, in words."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def run_cells(
    experiment: Experiment, cells: Iterable[Cell], *, workers: int, progress: Progress, tell: Tell
) -> Board:
    """Run cells of an experiment unless they are done, and have each tracked.

    Returns:
        What came of them.
    """
    workspace = open_workspace()
    folder = experiment_folder(workspace, experiment)
    keys = {experiment.key(cell): cell for cell in cells}
    waiting = {key: cell for key, cell in keys.items() if not is_done(cell_folder(folder, key))}
    jobs, failures = _jobs(experiment, folder, waiting, workers, progress)
    board = Board(open_tracking(workspace, experiment.name), folder, total=len(keys), tell=tell)
    for key in keys:
        if key not in waiting:
            board.keep(key)
    for failure in failures:
        board.failed(failure)
    run_jobs(
        CellQueue(jobs),
        workers,
        on_done=board.ended,
        on_failure=lambda job, why: board.failed(Failure(str(job.cell), why)),
    )
    return board


def report_experiment(file: Path, output: Path | None = None) -> list[Path]:
    """Write the report of a file's cells; to the experiment's folder unless told otherwise.

    Returns:
        The pages.

    Raises:
        UsageError: the file is wrong, or no cell is done.
    """
    from mmlora.experiments.report.write import write_report

    experiment = read_experiment(file)
    folder = experiment_folder(open_workspace(), experiment)
    target = output or folder / "report"
    planned = {experiment.key(cell): cell for cell in experiment.cells}
    return write_report(folder, experiment.title, experiment.description, target, planned=planned)


class Board:
    """Keeps count of the cells, and has each tracked once it is done.

    Attributes:
        ran: cells that were done now.
        failures: cells that weren't, and why.
    """

    def __init__(self, tracking: Tracking, folder: Path, *, total: int, tell: Tell) -> None:
        self.tracking, self.folder, self.total, self.tell = tracking, folder, total, tell
        self.done, self.ran, self.seconds = 0, 0, 0.0
        self.failures: list[Failure] = []

    def keep(self, key: str) -> None:
        """Count a cell that an earlier run did; it is tracked where that run was stopped too early."""
        self.done += 1
        self._track(key)

    def ended(self, job: Job) -> None:
        """Count a cell that has just been done."""
        result = read_result(job.place)
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
        track_or_tell(self.tracking, cell_folder(self.folder, key), self.tell)


def track_or_tell(tracking: Tracking, place: Path, tell: Tell) -> None:
    """Track a result; where MLflow doesn't answer, say so: the result is safe, and the next run tracks it."""
    try:
        track(tracking, place)
    except TransientError as error:
        tell(f"not tracked: {error}")


def _jobs(
    experiment: Experiment, folder: Path, waiting: Mapping[str, Cell], workers: int, progress: Progress
) -> tuple[list[Job], list[Failure]]:
    """Make each cell's training set, which cells that have the same share; refuse what can't be trained."""
    if not waiting:
        return [], []
    from mmlora.experiments.data import prepare_rows, shared_home
    from mmlora.experiments.job import Job

    threads = max(1, (os.cpu_count() or 1) // workers)
    made: dict[str, PreparedRows | str] = {}
    jobs, failures = [], []
    for key, cell in waiting.items():
        settings = experiment.training_settings(cell)
        decisive = settings.as_kept(only=("features", *ROW_SETTINGS))
        data = json.dumps([experiment.definition(cell), decisive], default=str)
        if data not in made:
            try:
                made[data] = prepare_rows(experiment, cell, shared_home(folder), progress)
            except MmloraError as error:
                made[data] = f"its data: {error}"
        rows = made[data]
        why = rows if isinstance(rows, str) else refusal(cell, rows, settings)
        if why is not None:
            failures.append(Failure(str(cell), why))
        elif not isinstance(rows, str):
            jobs.append(Job(cell, key, folder, rows, settings, threads))
    return jobs, failures


def refusal(cell: Cell, rows: PreparedRows, settings: TrainingSettings) -> str | None:
    """Return why a cell can't be trained on its rows; None where it can."""
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
