"""``mmlora train --tune``: try other settings on validation rows before the full run.

The search is :mod:`mmlora.training.search`. A trial is a training run up to its gate, so it shares steps with
other runs, and the best trial's run is simply continued: evaluated, judged, trained on all rows and
registered. A trial's result is stored in its run's folder, where a repeated search finds it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mmlora.errors import DataError, UsageError
from mmlora.runs.choices import choose
from mmlora.runs.starting import COLD
from mmlora.runs.state import Run, RunConfig
from mmlora.runs.steps import open_training, train_backbone, train_expert, train_gate
from mmlora.runs.training_run import models_of, open_run, run_of
from mmlora.runs.tuning_record import Trial, TuningRecord
from mmlora.training.search import OF_EXPERTS, OF_TREES, TUNED, Step, TrialSettings, climb
from mmlora.workspace import Progress, Workspace, silent

logger = logging.getLogger(__name__)

_TRIAL = "validation"


def refuse_tuning(minutes: float | None, *, phase: str, base: str | None) -> None:
    """Reject a budget that isn't positive, and tuning of anything but a whole model."""
    if minutes is None:
        return
    if not minutes > 0:
        raise UsageError(f"tuning for {minutes:g} minutes: give more than 0")
    if base is not None or phase != "all":
        target = "the experts on a base" if base else f"`train {phase}`"
        raise UsageError(f"only a whole model is tuned, not {target}: leave out --tune, or train all of it")


def tune(run_id: str, *, tune_minutes: float | None = None, progress: Progress = silent) -> str:
    """Try variations of a run's settings on validation rows, and return the run of the best.

    Args:
        run_id: the run of the initial settings, which are tried first.
        tune_minutes: time for all trials, earlier calls included; None returns the run itself. When the time
            is up, a trial is stopped after its epoch and doesn't count, except the first.
        progress: called as each trial advances.

    Returns:
        The id of the run with the best settings, with trained phases.

    Raises:
        UsageError: the run has a base, or the time isn't positive.
        DataError: the validation rows have only one class of label.
    """
    if tune_minutes is None:
        return run_id
    workspace, run = open_run(run_id)
    refuse_tuning(tune_minutes, phase="all", base=run.config.base)
    if run.config.settings.start != COLD:
        raise UsageError(
            f"tuning tries models of other shapes, which can't begin with {run.config.settings.start}: "
            "leave out --tune, or train with --start cold"
        )
    trials = _Trials(workspace, run, tune_minutes * 60, progress)
    steps = climb(trials.own, trials.names, trials.measure)
    best = trials.run_id({**trials.own, **_last(steps)})
    record = trials.record(steps, tune_minutes)
    run_of(workspace, best).record("tuning", record.to_json())
    logger.info("tuning: %s", record.sentence)
    return best


def tuning_of(run: Run) -> TuningRecord | None:
    """Return the tuning record of a run whose settings were tuned; None for any other."""
    stored = run.result("tuning")
    return None if stored is None else TuningRecord.from_json(stored)


class _TimeIsUp(Exception):
    """A trial exceeded the budget."""


class _Trials:
    """The trials of one search, trained or reused from an earlier search."""

    def __init__(self, workspace: Workspace, run: Run, seconds: float, progress: Progress) -> None:
        self._workspace, self._run, self._budget, self._progress = workspace, run, seconds, progress
        config = run.config
        self.names = _read_by(config)
        self.own = {name: getattr(config.settings, name) for name in TUNED}
        self._done: list[Trial] = []
        self._spent = 0.0
        self._time_is_up = False

    def run_id(self, settings: TrialSettings, progress: Progress = silent) -> str:
        """Return the id of the run with these settings instead of the initial ones."""
        config = self._run.config
        chosen = choose(config.settings, {**settings, **(self._run.result("machine") or {})})
        # If the run trains only one domain's experts, so does the trial.
        domain = config.expert_domains[0] if len(config.expert_domains) == 1 else None
        return open_training(self._workspace, config.as_of, chosen, domain=domain, progress=progress)

    def measure(self, settings: TrialSettings) -> float | None:
        """Return the validation wauc of a model with these settings, or None when the time is up."""
        left = self._budget - self._spent
        if self._done and left <= 0:
            self._time_is_up = True
            return None
        changed = {name: value for name, value in settings.items() if value != self.own[name]}
        named = ", ".join(f"{name} {_shown(value)}" for name, value in changed.items()) or "your own settings"
        wauc, seconds, run_id = self._train(settings, left if self._done else None)
        self._spent += seconds
        if wauc is None:
            self._time_is_up = True
            logger.info("tuning, trial %d (%s): stopped, the time is up", len(self._done) + 1, named)
            return None
        self._done.append(Trial(changed, wauc, seconds, run_id))
        logger.info("tuning, trial %d (%s): validation wauc %.4f", len(self._done), named, wauc)
        return wauc

    def record(self, steps: Sequence[Step], minutes: float) -> TuningRecord:
        """Return the record of the trials, within a budget of ``minutes``."""
        own = self._done[0].wauc
        return TuningRecord(
            minutes=minutes,
            own_run=self._run.run_id,
            seconds=round(self._spent),
            trials=tuple(self._done),
            steps=tuple(steps),
            own_wauc=own,
            best_wauc=steps[-1].metric_after if steps else own,
            lines=tuple(_as_toml(_last(steps))),
            sentence=self._sentence([_change(step) for step in steps]),
        )

    def _sentence(self, changes: Sequence[str]) -> str:
        """Return a sentence about the changes and their gains."""
        trials, own = len(self._done), self._done[0].wauc
        count = f"{trials} {'trial' if trials == 1 else 'trials'} in {self._spent / 60:.1f} minutes"
        end = "then the time was up" if self._time_is_up else "no further step was better"
        result = "; ".join(changes) or f"your own settings are kept: validation wauc {own:.4f}"
        return f"{result} ({count}, {end})"

    def _train(self, settings: TrialSettings, left: float | None) -> tuple[float | None, float, str]:
        """Train a trial and store its result, or return a stored result.

        A trial that was stopped earlier is resumed.

        Args:
            settings: the trial's settings.
            left: seconds that it may take; None for no limit.

        Returns:
            The validation wauc (None until the trial is done), the seconds of all attempts, and the run's id.
        """
        began, label = time.monotonic(), f"trial {len(self._done) + 1}"
        taken = 0.0

        def report(step: str, done: int, total: int) -> None:
            self._progress(f"{label}: {step}", done, total)

        def report_within_budget(step: str, done: int, total: int) -> None:
            report(step, done, total)
            if left is not None and taken + time.monotonic() - began > left:
                raise _TimeIsUp

        run_id = self.run_id(settings, report)
        run = run_of(self._workspace, run_id)
        stored = run.result(_TRIAL) or {"wauc": None, "seconds": 0.0}
        wauc, taken = stored["wauc"], stored["seconds"]
        if wauc is not None or (left is not None and taken >= left):
            return wauc, taken, run_id
        try:
            train_backbone(run_id, progress=report_within_budget)
            for domain in run.config.expert_domains:
                train_expert(run_id, domain, progress=report_within_budget)
            train_gate(run_id, progress=report_within_budget)
            wauc = _validation_wauc(self._workspace, run)
        except _TimeIsUp:
            pass
        seconds = taken + time.monotonic() - began
        run.record(_TRIAL, {"wauc": wauc, "seconds": seconds, "run_id": run_id})
        return wauc, seconds, run_id


def _validation_wauc(workspace: Workspace, run: Run) -> float:
    from mmlora.training.controls import WithoutTest
    from mmlora.training.deciding import Validation

    data = WithoutTest.open(workspace.training_set_folder(run.config.training_set_id))
    validation = Validation.choose(data, "wauc", domain=None)
    if validation.metric != "wauc":
        raise DataError("tuning", f"{validation.note}: there is no wauc to tune by; choose other days")
    *_, (_, model) = models_of(workspace, run)
    return validation.measure(model)


def _read_by(config: RunConfig) -> tuple[str, ...]:
    """Return the tunable settings that affect a run's model."""
    if config.settings.backbone == "gbdt":
        return OF_TREES
    return tuple(name for name in TUNED if config.expert_domains or name not in OF_EXPERTS)


def _change(step: Step) -> str:
    gain = f"validation wauc {step.metric_before:.4f} -> {step.metric_after:.4f}"
    return f"{step.setting} {_shown(step.before)} -> {_shown(step.after)}: {gain}"


def _last(steps: Sequence[Step]) -> TrialSettings:
    """Return the settings after the given steps."""
    return {step.setting: step.after for step in steps}


def _as_toml(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as lines of ``mmlora.toml``."""
    import tomlkit

    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
    return tomlkit.dumps(plain).splitlines()


def _shown(value: Any) -> str:
    """Format a setting's value for a sentence."""
    return str(list(value)) if isinstance(value, tuple | list) else f"{value:g}"
