"""Tune an experiment's settings: try values on validation rows, then test the best beside the untuned.

The test rows are read only for the best trial and for the untuned settings; see
:mod:`mmlora.experiments.study` for how trials are chosen.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mmlora.errors import UsageError
from mmlora.experiments.cell import Cell
from mmlora.experiments.plan import Experiment, read_experiment
from mmlora.experiments.pool import run_jobs
from mmlora.experiments.results import cell_folder, read_result
from mmlora.experiments.run import (
    Failure,
    Log,
    counted,
    experiment_folder,
    explained_interrupt,
    refusal,
    run_cells,
)
from mmlora.experiments.space import Tuning, budget_faults
from mmlora.experiments.study import StudyRun, Trial
from mmlora.records import Record
from mmlora.workspace import Progress, open_workspace, silent

if TYPE_CHECKING:
    from mmlora.experiments.data import PreparedRows


@dataclass(frozen=True)
class Gain(Record):
    """A difference of wauc and its 95% interval; without bounds if there are too few test users."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class TestedSettings(Record):
    """The test wauc of the tuned and the untuned settings.

    Attributes:
        tuned: None if no domain's test rows have both labels, as the other figures.
        untuned: see tuned.
        difference: the gain by tuning.
        cells: the folders of the two cells.
    """

    tuned: float | None
    untuned: float | None
    difference: Gain | None
    cells: Mapping[str, str]


@dataclass(frozen=True)
class TuningOutcome(Record):
    """The outcome of tuning.

    Attributes:
        folder: the study's folder.
        ran: number of trials that this run completed.
        trials: all trials.
        best: the trial with the highest wauc on validation rows.
        test: the figures on test rows; None if one of the two cells failed.
        failures: trials and cells that failed.
    """

    folder: str
    ran: int
    trials: tuple[Trial, ...]
    best: Trial
    test: TestedSettings | None
    failures: tuple[Failure, ...]


def tune_experiment(
    file: Path,
    *,
    trials: int | None = None,
    minutes: float | None = None,
    workers: int = 1,
    progress: Progress = silent,
    log: Log = lambda line: None,
) -> TuningOutcome:
    """Run trials of a file's ``[tune]`` table until its budget is used, then test the best.

    The test rows are read after the last trial, for the best trial and for the untuned settings. The next run
    resumes a trial that was stopped, under its number.

    Args:
        file: the experiment's TOML file.
        trials: maximum number of trials, over all runs; the file's if None.
        minutes: time after which no trial starts, over all runs; the file's if None.
        workers: number of trials at once, which share the cores.
        progress: called with the progress of preparing the data.
        log: called with a line at the start, after each trial, and on an interrupt.

    Raises:
        UsageError: the file is invalid or has no ``[tune]``, there is no budget, or some values of the search
            space cannot be trained.
        DataError: no trial succeeded.
        TransientError: another process runs the same study.
    """
    if find_spec("optuna") is None:
        raise UsageError("tuning needs Optuna: pip install 'mmlora[experiments]'")
    experiment = read_experiment(file)
    tuning = _with_budget(experiment.tuning, file, trials, minutes, workers)
    folder = experiment_folder(open_workspace(), experiment)
    log(f"tuning {', '.join(tuning.space)} of {tuning.untuned}")
    threads = max(1, (os.cpu_count() or 1) // workers)
    with explained_interrupt(log):
        rows = _prepared(experiment, tuning, folder, progress)
        run = StudyRun(experiment, tuning, folder, rows, threads, log)
        with run.alone():
            run.open()
            log(f"{run.budget_text()}, {counted(workers, 'worker')}, folder {run.study_folder}")
            run_jobs(run, workers, on_done=run.add_done, on_failure=run.add_failure)
            run.track_all()
            best = run.best()
            log(f"the trials are done: now testing trial {best.number} and the untuned settings")
            cells = {"tuned": tuning.cell(best.parameters), "untuned": tuning.untuned}
            tally = run_cells(experiment, cells.values(), workers=workers, progress=progress, log=log)
    keys = {name: experiment.key(cell) for name, cell in cells.items()}
    return TuningOutcome(
        folder=str(run.study_folder),
        ran=run.ran,
        trials=tuple(run.trials()),
        best=best,
        test=None if tally.failures else compare(folder, keys),
        failures=(*run.failures, *tally.failures),
    )


def _with_budget(
    tuning: Tuning | None, file: Path, trials: int | None, minutes: float | None, workers: int
) -> Tuning:
    """Return the table with the budget of the command, where it gives one."""
    if tuning is None:
        raise UsageError(f"{file} has no [tune]: add one with what to tune, see experiments/tune.toml")
    faults = budget_faults(trials, minutes)
    if workers < 1:
        faults.append(f"workers {workers}: give 1 or more")
    tuning = replace(
        tuning,
        trials=tuning.trials if trials is None else trials,
        minutes=tuning.minutes if minutes is None else minutes,
    )
    if tuning.trials is None and tuning.minutes is None:
        faults.append(f"{file} has no budget: give trials or minutes, there or as options")
    if faults:
        raise UsageError("; ".join(faults))
    return tuning


def _prepared(experiment: Experiment, tuning: Tuning, folder: Path, progress: Progress) -> PreparedRows:
    """Make the training set, and refuse values that cannot be trained on it (``UsageError``)."""
    from mmlora.experiments.data import prepare_rows, shared_home

    rows = prepare_rows(experiment, tuning.untuned, shared_home(folder), progress)
    reasons = [refusal(cell, rows, experiment.training_settings(cell)) for cell in tuning.probes()]
    distinct = dict.fromkeys(reason for reason in reasons if reason is not None)
    if distinct:
        raise UsageError("[tune] can't be trained:\n  " + "\n  ".join(distinct))
    return rows


def compare(folder: Path, keys: Mapping[str, str]) -> TestedSettings:
    """Return the test wauc of two cells, and their difference with its interval.

    Args:
        folder: the experiment's folder.
        keys: keys of the cells ``tuned`` and ``untuned``.
    """
    from mmlora.experiments.report.reading import read_results
    from mmlora.experiments.report.statistics import Evidence, Term

    planned = {key: Cell.from_json(read_result(cell_folder(folder, key))["cell"]) for key in keys.values()}
    results = read_results(folder, planned)
    by_key = {cell.key: cell for cell in results.cells}
    tuned, untuned = by_key[keys["tuned"]], by_key[keys["untuned"]]
    difference = Evidence(results).estimate([Term(tuned, 1.0), Term(untuned, -1.0)])
    return TestedSettings(
        tuned=tuned.raw["test"]["wauc"],
        untuned=untuned.raw["test"]["wauc"],
        difference=None if difference is None else Gain(difference.value, difference.low, difference.high),
        cells={name: str(cell_folder(folder, key)) for name, key in keys.items()},
    )
