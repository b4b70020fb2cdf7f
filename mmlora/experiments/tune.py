"""Tuning: trials that validation rows judge, and test rows for the best of them alone, beside the untuned.

Trials are chosen by Optuna's tree-structured Parzen estimator (Bergstra et al., "Algorithms for
hyper-parameter optimization", 2011). Trial n's random numbers follow from the seed and n, so with one worker
a study that was stopped goes on as if it hadn't been. A study's name follows from all but its budget: other
values to choose from make another study.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mmlora.errors import DataError, UsageError
from mmlora.experiments.cell import Cell, described
from mmlora.experiments.plan import Experiment, read_experiment
from mmlora.experiments.pool import run_jobs
from mmlora.experiments.results import RESULT, Result, cell_folder, is_done, read_result
from mmlora.experiments.run import (
    Failure,
    Tell,
    experiment_folder,
    many,
    refusal,
    run_cells,
    told_of_a_stop,
    track_or_tell,
)
from mmlora.experiments.space import Tuning, suggest, wrong_budget
from mmlora.experiments.tracking import open_tracking
from mmlora.files import locked
from mmlora.records import Record
from mmlora.schema import fingerprint
from mmlora.workspace import Progress, open_workspace, silent

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from mmlora.experiments.data import PreparedRows
    from mmlora.experiments.job import Job

_STUDY = "study"  # a journal holds one
_SECONDS = "seconds"


@dataclass(frozen=True)
class Trial(Record):
    """A trial.

    Attributes:
        number: its number in the study.
        parameters: the values that were tried.
        validation_wauc: what validation rows said; None of a failed trial.
        seconds: taken; None of a trial that didn't come to an end.
        mlflow_run_id: its run; None before it is tracked.
    """

    number: int
    parameters: Mapping[str, object]
    validation_wauc: float | None
    seconds: float | None
    mlflow_run_id: str | None


@dataclass(frozen=True)
class Gain(Record):
    """A difference of wauc and its 95% interval; without bounds where there are too few test users."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class TestedSettings(Record):
    """The test wauc of the tuned and the untuned settings.

    Attributes:
        tuned: None where no domain's test rows hold both classes, like the others.
        untuned: see tuned.
        difference: what tuning brought.
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
        folder: the study's.
        ran: trials that were run now.
        trials: all of them.
        best: the one that validation rows like best.
        test: None where one of the two cells failed.
        failures: trials and cells that didn't come to an end.
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
    tell: Tell = lambda line: None,
) -> TuningOutcome:
    """Run the trials of a file's ``[tune]`` table that its budget still has, then test the best.

    The test rows are read when the trials have ended, for the best one and for the untuned settings; a trial
    that is stopped goes on in the next run, under its number.

    Args:
        file: the experiment's TOML file.
        trials: all runs together; the file's when None.
        minutes: all runs together, after which no trial begins; the file's when None.
        workers: trials at once; the cores are divided among them.
        progress: told how far the data is.
        tell: told, in a line, what there is to do, of each trial that ends, and of an interrupt.

    Raises:
        UsageError: the file is wrong or has no ``[tune]``, there is no budget, or some values to choose from
            can't be trained.
        DataError: no trial came to an end.
        TransientError: another process tunes the same.
    """
    if find_spec("optuna") is None:
        raise UsageError("tuning needs Optuna: pip install 'mmlora[experiments]'")
    experiment = read_experiment(file)
    tuning = _within(experiment.tuning, file, trials, minutes, workers)
    folder = experiment_folder(open_workspace(), experiment)
    tell(f"tuning {', '.join(tuning.space)} of {tuning.untuned}")
    threads = max(1, (os.cpu_count() or 1) // workers)
    with told_of_a_stop(tell):
        rows = _prepared(experiment, tuning, folder, progress)
        run = StudyRun(experiment, tuning, folder, rows, threads, tell)
        with run.alone():
            run.open()
            tell(f"{run.outlook()}, {many(workers, 'worker')}, folder {run.place}")
            run_jobs(run, workers, on_done=run.done, on_failure=run.failed)
            run.track_all()
            best = run.best()
            tell(f"the trials are done: trial {best.number} and the untuned settings are tested")
            cells = {"tuned": tuning.cell(best.parameters), "untuned": tuning.untuned}
            board = run_cells(experiment, cells.values(), workers=workers, progress=progress, tell=tell)
    keys = {name: experiment.key(cell) for name, cell in cells.items()}
    return TuningOutcome(
        folder=str(run.place),
        ran=run.ran,
        trials=tuple(run.trials()),
        best=best,
        test=None if board.failures else compare(folder, keys),
        failures=(*run.failures, *board.failures),
    )


def _within(
    tuning: Tuning | None, file: Path, trials: int | None, minutes: float | None, workers: int
) -> Tuning:
    """Return the table with the command's budget in place of its own."""
    if tuning is None:
        raise UsageError(f"{file} has no [tune]: say what to tune, see experiments/tune.toml")
    faults = list(wrong_budget(trials, minutes))
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
    """Make the training set, and refuse values that nothing can be trained with."""
    from mmlora.experiments.data import prepare_rows, shared_home

    rows = prepare_rows(experiment, tuning.untuned, shared_home(folder), progress)
    refusals = {
        why: None
        for cell in tuning.probes()
        if (why := refusal(cell, rows, experiment.training_settings(cell))) is not None
    }
    if refusals:
        raise UsageError("[tune] can't be trained:\n  " + "\n  ".join(refusals))
    return rows


class StudyRun:
    """A study's trials: which comes next, and what came of each."""

    def __init__(
        self,
        experiment: Experiment,
        tuning: Tuning,
        folder: Path,
        rows: PreparedRows,
        threads: int,
        tell: Tell,
    ) -> None:
        from mmlora.experiments.job import study_folder

        self.experiment, self.tuning, self.folder, self.rows = experiment, tuning, folder, rows
        self.threads, self.tell = threads, tell
        self.name = fingerprint(
            {
                "untuned": experiment.key(tuning.untuned),
                "space": {name: repr(axis) for name, axis in tuning.space.items()},
            }
        )[:12]
        self.place = study_folder(folder, self.name)
        self.tracking = open_tracking(open_workspace(), experiment.name)
        self.ran, self.failures = 0, list[Failure]()
        self._running: list[Job] = []
        self._began = time.monotonic()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes off the study."""
        busy = f"another process runs the trials of {self.place}: wait for it"
        with locked(self.place / ".lock", wait=0, busy=busy):
            yield

    def open(self) -> None:
        """Open the study, or begin it; trials that were stopped before they told of their end tell it now."""
        import optuna
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.storage = optuna.storages.JournalStorage(JournalFileBackend(str(self.place / "journal.log")))
        self.study = optuna.create_study(
            storage=self.storage, study_name=_STUDY, direction="maximize", load_if_exists=True
        )
        self._spent: float = self.study.user_attrs.get(_SECONDS, 0.0)
        self._stopped = []
        for trial in self._frozen():
            if trial.state.is_finished():
                continue
            if (result := self._result(trial.number)) is not None:
                self.study.tell(trial.number, result["validation_wauc"])
            else:
                self._stopped.append(trial.number)

    def outlook(self) -> str:
        """Return, in a line, what the budget is and what of it is spent."""
        trials, minutes, spent = self.tuning.trials, self.tuning.minutes, self._spent / 60
        limits = [] if trials is None else [many(trials, "trial")]
        limits += [] if minutes is None else [f"{minutes:g} minutes ({spent:.1f} spent)"]
        return f"at most {' or '.join(limits)}, {len(self._ended())} done"

    # What the pool asks.

    def __bool__(self) -> bool:
        return bool(self._running) or self._more()

    def take(self) -> Job | None:
        """Return a stopped trial or a new one; others wait for the first, which may train their backbone."""
        ended = len(self._ended())
        if not self._more() or (self._running and not ended):
            return None
        number = self._stopped.pop(0) if self._stopped else None
        job = self._job(number)
        self._running.append(job)
        return job

    def ended(self, job: Job) -> None:
        """Learn that a trial has ended."""
        self._running.remove(job)

    def give_up(self) -> list[Job]:
        """Return the trials that were running."""
        lost, self._running = self._running, []
        return lost

    def _more(self) -> bool:
        begun = len(self._ended()) + len(self._running)
        if self.tuning.trials is not None and begun >= self.tuning.trials:
            return False
        return self.tuning.minutes is None or self._seconds() < self.tuning.minutes * 60

    def _seconds(self) -> float:
        return self._spent + time.monotonic() - self._began

    def _job(self, number: int | None) -> Job:
        import optuna

        from mmlora.experiments.job import Job

        coming = len(self._frozen()) if number is None else number
        seed = int(fingerprint([self.tuning.untuned.seed, coming])[:8], 16)
        self.study.sampler = optuna.samplers.TPESampler(seed=seed)
        if number is None:
            trial = self.study.ask()
        else:
            study_id = self.storage.get_study_id_from_name(_STUDY)
            trial_id = self.storage.get_trial_id_from_study_id_trial_number(study_id, number)
            trial = optuna.Trial(self.study, trial_id)
        space = self.tuning.space
        cell = self.tuning.cell({name: suggest(trial, name, values) for name, values in space.items()})
        settings = self.experiment.training_settings(cell)
        return Job(cell, str(trial.number), self.folder, self.rows, settings, self.threads, self.name)

    # What came of trials.

    def done(self, job: Job) -> None:
        """Take a trial's result down."""
        result = self._result(int(job.key))
        assert result is not None  # it has just been written
        self.study.tell(int(job.key), result["validation_wauc"])
        self.ran += 1
        self._took_time()
        track_or_tell(self.tracking, job.place, self.tell)
        best, wauc = self.best(), result["validation_wauc"]
        parameters = ", ".join(described(self._frozen()[int(job.key)].params))
        self.tell(
            f"{self._count()} trial {job.key}, {parameters}: validation wauc {wauc:.4f} "
            f"(best {best.validation_wauc:.4f}, trial {best.number}; {result['seconds']['cell']:.0f} s)"
        )

    def failed(self, job: Job, why: str) -> None:
        """Remember a trial that didn't come to an end; it counts."""
        from optuna.trial import TrialState

        self.study.tell(int(job.key), state=TrialState.FAIL)
        self.failures.append(Failure(f"trial {job.key}: {job.cell}", why))
        self.ran += 1
        self._took_time()
        self.tell(f"{self._count()} {self.failures[-1].cell}: failed: {why}")

    def track_all(self) -> None:
        """Track trials that earlier runs left untracked."""
        for file in sorted(self.place.glob(f"trials/*/{RESULT}")):
            track_or_tell(self.tracking, file.parent, self.tell)

    def best(self) -> Trial:
        """Return the trial that validation rows like best.

        Raises:
            DataError: no trial came to an end.
        """
        ended = [
            (trial.validation_wauc, trial) for trial in self.trials() if trial.validation_wauc is not None
        ]
        if not ended:
            why = "; ".join(dict.fromkeys(failure.why for failure in self.failures)) or "they were stopped"
            raise DataError("tuning", f"no trial came to an end: {why}")
        return max(ended, key=lambda judged: judged[0])[1]

    def trials(self) -> list[Trial]:
        """Return the trials, in order."""
        return [self._trial(trial) for trial in self._frozen()]

    def _trial(self, trial: FrozenTrial) -> Trial:
        result = self._result(trial.number)
        seconds, run_id = (result["seconds"]["cell"], result["mlflow_run_id"]) if result else (None, None)
        return Trial(trial.number, trial.params, trial.value, seconds, run_id)

    def _result(self, number: int) -> Result | None:
        place = self.place / "trials" / str(number)
        return read_result(place) if is_done(place) else None

    def _frozen(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _ended(self) -> list[FrozenTrial]:
        return [trial for trial in self._frozen() if trial.state.is_finished()]

    def _count(self) -> str:
        of = "" if self.tuning.trials is None else f" of {self.tuning.trials}"
        return f"[{len(self._ended())}{of}]"

    def _took_time(self) -> None:
        self.study.set_user_attr(_SECONDS, self._seconds())


def compare(folder: Path, keys: Mapping[str, str]) -> TestedSettings:
    """Return the test wauc of two cells, and what tuning brought, with its interval.

    Args:
        folder: the experiment's.
        keys: of the cells: ``tuned`` and ``untuned``.
    """
    from mmlora.experiments.report.reading import read_results
    from mmlora.experiments.report.statistics import Evidence, Term

    planned = {key: Cell.from_json(read_result(cell_folder(folder, key))["cell"]) for key in keys.values()}
    found = read_results(folder, planned)
    by_key = {cell.key: cell for cell in found.cells}
    tuned, untuned = by_key[keys["tuned"]], by_key[keys["untuned"]]
    difference = Evidence(found).estimate([Term(tuned, 1.0), Term(untuned, -1.0)])
    return TestedSettings(
        tuned=tuned.raw["test"]["wauc"],
        untuned=untuned.raw["test"]["wauc"],
        difference=None if difference is None else Gain(difference.value, difference.low, difference.high),
        cells={name: str(cell_folder(folder, key)) for name, key in keys.items()},
    )
