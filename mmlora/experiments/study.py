"""A study: the trials of an experiment's ``[tune]`` table, chosen by Optuna and kept in its journal.

Trials are chosen by Optuna's tree-structured Parzen estimator (Bergstra et al., "Algorithms for
hyper-parameter optimization", 2011). The random numbers of trial n follow from the seed and n, so with one
worker a study that was stopped continues as if it had not been. A study's name follows from everything but
its budget: another search space makes another study.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmlora.errors import DataError
from mmlora.experiments.cell import setting_texts
from mmlora.experiments.plan import Experiment
from mmlora.experiments.results import RESULT, Result, is_done, read_result
from mmlora.experiments.run import Failure, Log, counted, track_or_log
from mmlora.experiments.space import Tuning, suggest
from mmlora.experiments.tracking import open_tracking
from mmlora.files import locked
from mmlora.records import Record
from mmlora.schema import fingerprint
from mmlora.workspace import open_workspace

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from mmlora.experiments.data import PreparedRows
    from mmlora.experiments.job import Job

_STUDY = "study"  # the name in Optuna's journal, which holds one study
_SECONDS = "seconds"


@dataclass(frozen=True)
class Trial(Record):
    """A trial.

    Attributes:
        number: number in the study.
        parameters: the values that were tried.
        validation_wauc: wauc on validation rows; None for a failed trial.
        seconds: time that it took; None for a trial that did not end.
        mlflow_run_id: its MLflow run; None before it is tracked.
    """

    number: int
    parameters: Mapping[str, object]
    validation_wauc: float | None
    seconds: float | None
    mlflow_run_id: str | None


class StudyRun:
    """Runs a study's trials: a queue of jobs for :func:`~mmlora.experiments.pool.run_jobs`.

    Args:
        experiment: the experiment.
        tuning: its ``[tune]`` table, with the budget that applies.
        folder: the experiment's folder.
        rows: the training set.
        threads: number of torch threads per trial.
        log: called with a line after each trial.

    Attributes:
        study_folder: the study's folder.
        ran: number of trials that ended in this run.
        failures: the trials that failed in this run.
    """

    def __init__(
        self,
        experiment: Experiment,
        tuning: Tuning,
        folder: Path,
        rows: PreparedRows,
        threads: int,
        log: Log,
    ) -> None:
        from mmlora.experiments.job import study_folder

        self.experiment, self.tuning, self.folder, self.rows = experiment, tuning, folder, rows
        self.threads, self.log = threads, log
        self.name = fingerprint(
            {
                "untuned": experiment.key(tuning.untuned),
                "space": {name: repr(axis) for name, axis in tuning.space.items()},
            }
        )[:12]
        self.study_folder = study_folder(folder, self.name)
        self.tracking = open_tracking(open_workspace(), experiment.name)
        self.ran, self.failures = 0, list[Failure]()
        self._running: list[Job] = []
        self._began = time.monotonic()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the study's lock.

        Raises:
            TransientError: another process holds it.
        """
        busy = f"another process runs the trials of {self.study_folder}: wait for it"
        with locked(self.study_folder / ".lock", wait=0, busy=busy):
            yield

    def open(self) -> None:
        """Open the study or create it, and record results of trials that were killed before they did."""
        import optuna
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        journal = self.study_folder / "journal.log"
        self.storage = optuna.storages.JournalStorage(JournalFileBackend(str(journal)))
        self.study = optuna.create_study(
            storage=self.storage, study_name=_STUDY, direction="maximize", load_if_exists=True
        )
        self._earlier_seconds: float = self.study.user_attrs.get(_SECONDS, 0.0)
        self._stopped = []
        for trial in self._frozen():
            if trial.state.is_finished():
                continue
            if (result := self._result(trial.number)) is not None:
                self.study.tell(trial.number, result["validation_wauc"])
            else:
                self._stopped.append(trial.number)

    def budget_text(self) -> str:
        """Return the budget and how much of it is used, in one line."""
        trials, minutes, used = self.tuning.trials, self.tuning.minutes, self._earlier_seconds / 60
        limits = [] if trials is None else [counted(trials, "trial")]
        limits += [] if minutes is None else [f"{minutes:g} minutes ({used:.1f} used)"]
        return f"at most {' or '.join(limits)}, {len(self._ended())} done"

    # The queue of jobs.

    def __bool__(self) -> bool:
        return bool(self._running) or self._has_budget()

    def take(self) -> Job | None:
        """Return a stopped trial or a new one; None while the first, which trains the backbone, runs."""
        if not self._has_budget() or (self._running and not self._ended()):
            return None
        job = self._job(self._stopped.pop(0) if self._stopped else None)
        self._running.append(job)
        return job

    def release(self, job: Job) -> None:
        """Take note that a trial has ended."""
        self._running.remove(job)

    def give_up(self) -> list[Job]:
        """Return the trials that were running."""
        lost, self._running = self._running, []
        return lost

    def _has_budget(self) -> bool:
        started = len(self._ended()) + len(self._running)
        if self.tuning.trials is not None and started >= self.tuning.trials:
            return False
        return self.tuning.minutes is None or self._seconds() < self.tuning.minutes * 60

    def _seconds(self) -> float:
        return self._earlier_seconds + time.monotonic() - self._began

    def _job(self, stopped: int | None) -> Job:
        """Return the job of a stopped trial, or of a new one."""
        import optuna

        from mmlora.experiments.job import Job

        number = len(self._frozen()) if stopped is None else stopped
        seed = int(fingerprint([self.tuning.untuned.seed, number])[:8], 16)
        self.study.sampler = optuna.samplers.TPESampler(seed=seed)
        if stopped is None:
            trial = self.study.ask()
        else:
            study_id = self.storage.get_study_id_from_name(_STUDY)
            trial_id = self.storage.get_trial_id_from_study_id_trial_number(study_id, stopped)
            trial = optuna.Trial(self.study, trial_id)
        space = self.tuning.space
        cell = self.tuning.cell({name: suggest(trial, name, values) for name, values in space.items()})
        settings = self.experiment.training_settings(cell)
        return Job(cell, str(trial.number), self.folder, self.rows, settings, self.threads, self.name)

    # The outcome of trials.

    def add_done(self, job: Job) -> None:
        """Record the result of a trial."""
        result = self._result(int(job.key))
        assert result is not None  # it has just been written
        self.study.tell(int(job.key), result["validation_wauc"])
        self._add_ended()
        track_or_log(self.tracking, job.result_folder, self.log)
        best, wauc = self.best(), result["validation_wauc"]
        parameters = ", ".join(setting_texts(self._frozen()[int(job.key)].params))
        self.log(
            f"{self._count()} trial {job.key}, {parameters}: validation wauc {wauc:.4f} "
            f"(best {best.validation_wauc:.4f}, trial {best.number}; {result['seconds']['cell']:.0f} s)"
        )

    def add_failure(self, job: Job, why: str) -> None:
        """Record a trial that failed; it counts against the budget."""
        from optuna.trial import TrialState

        self.study.tell(int(job.key), state=TrialState.FAIL)
        self.failures.append(Failure(f"trial {job.key}: {job.cell}", why))
        self._add_ended()
        self.log(f"{self._count()} {self.failures[-1].cell}: failed: {why}")

    def _add_ended(self) -> None:
        self.ran += 1
        self.study.set_user_attr(_SECONDS, self._seconds())

    def track_all(self) -> None:
        """Track the trials that earlier runs did not track."""
        for file in sorted(self.study_folder.glob(f"trials/*/{RESULT}")):
            track_or_log(self.tracking, file.parent, self.log)

    def best(self) -> Trial:
        """Return the trial with the highest wauc on validation rows.

        Raises:
            DataError: no trial succeeded.
        """
        judged = [
            (trial.validation_wauc, trial) for trial in self.trials() if trial.validation_wauc is not None
        ]
        if not judged:
            why = "; ".join(dict.fromkeys(failure.why for failure in self.failures)) or "they were stopped"
            raise DataError("tuning", f"no trial succeeded: {why}")
        return max(judged, key=lambda pair: pair[0])[1]

    def trials(self) -> list[Trial]:
        """Return the trials, in order."""
        return [self._trial(trial) for trial in self._frozen()]

    def _trial(self, trial: FrozenTrial) -> Trial:
        result = self._result(trial.number)
        seconds, run_id = (result["seconds"]["cell"], result["mlflow_run_id"]) if result else (None, None)
        return Trial(trial.number, trial.params, trial.value, seconds, run_id)

    def _result(self, number: int) -> Result | None:
        folder = self.study_folder / "trials" / str(number)
        return read_result(folder) if is_done(folder) else None

    def _frozen(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _ended(self) -> list[FrozenTrial]:
        return [trial for trial in self._frozen() if trial.state.is_finished()]

    def _count(self) -> str:
        of = "" if self.tuning.trials is None else f" of {self.tuning.trials}"
        return f"[{len(self._ended())}{of}]"
