"""The last step of training: train the judged model again on all rows up to the as-of date.

Splitting, choosing epochs, calibrating and judging need held-out rows, so the judged model has never seen the
newest rows. The registered model is trained again on all rows, each phase for the same number of epochs, and
each expert with the step that was chosen. The figures and the calibration are those of the judged model.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from mmlora.errors import UsageError
from mmlora.records import Record
from mmlora.runs import phases
from mmlora.runs.state import Run
from mmlora.runs.step_record import StepRecord
from mmlora.runs.training_run import (
    data_of,
    do_step,
    forgotten,
    ignored_by,
    open_run,
    part_of,
    refitted,
)
from mmlora.runs.training_set import build_training_set
from mmlora.workspace import Progress, Workspace, silent

if TYPE_CHECKING:
    from mmlora.training.checkpoint import Checkpoint
    from mmlora.training.phases import PhaseResult

logger = logging.getLogger(__name__)

HISTORY_WEIGHT = "crosses.history_weight"
"""The name of the item history's weight among the cross terms' tensors."""


def refit(run_id: str, *, progress: Progress = silent) -> str:
    """Train a run's model on all rows, if the setting ``refit`` is on and the run has no base.

    Args:
        run_id: a run whose phases are done.
        progress: called as training advances.

    Raises:
        UsageError: a phase is not done yet.
    """
    workspace, run = open_run(run_id)
    final = refitted(run)
    if final is run:
        return run_id
    if final.result("config") is None:
        final.record("chosen", _chosen(workspace, run).to_json())
        final.record("forgotten", forgotten(workspace, run))
        if (start := run.result("start")) is not None:
            final.record("start", start)
        final.record("machine", run.result("machine") or {})
        final.record("config", _config(workspace, run, progress))
    chosen = Chosen.from_json(final.result("chosen") or {})  # recorded before the configuration
    arguments = workspace, final, progress
    steps: dict[str, Callable[[Checkpoint], PhaseResult]] = {}
    if final.config.settings.crosses:
        steps["crosses"] = partial(
            phases.crosses, *arguments, refit=True, history_weight=chosen.history_weight or 0.0
        )
    own = chosen.phases["backbone"]
    steps["backbone"] = partial(phases.backbone, *arguments, epochs=own.epochs, step=own.step)
    for step in sorted(step for step in chosen.phases if step.startswith("expert-")):
        _, domain, slot = step.split("-")
        own = chosen.phases[step]
        expert = partial(phases.expert, domain=int(domain), slot=int(slot), epochs=own.epochs, step=own.step)
        steps[step] = partial(expert, *arguments)
    if "gate" in chosen.phases:
        steps["gate"] = partial(phases.gate, *arguments, epochs=chosen.phases["gate"].epochs)
    decided = chosen.to_json()
    for step, compute in steps.items():
        ignored = ignored_by(step)
        inputs = {"all rows": decided.get(step, True), "forgotten": final.result("forgotten")}
        do_step(workspace, final, step, compute, label=f"all rows, {step}", ignoring=ignored, inputs=inputs)
    return run_id


def _config(workspace: Workspace, run: Run, progress: Progress) -> dict[str, object]:
    """Return the judged run's configuration with a training set of all rows."""
    config = run.config
    broken = data_of(workspace, run).manifest.info["broken"]
    everything = build_training_set(
        workspace, config.as_of, config.settings, progress, left_out=broken, held_out=False
    )
    return replace(config, training_set_id=everything).to_json()


@dataclass(frozen=True)
class ChosenPhase(Record):
    """A phase's epochs, and the share of its step that was taken: see ``PhaseReport.step``."""

    epochs: int
    step: float


@dataclass(frozen=True)
class Chosen(Record):
    """The choices of the judged run.

    Attributes:
        phases: by step: ``backbone``, ``expert-DOMAIN-SLOT``, ``gate``.
        history_weight: the item history's among the cross terms; None where they have none.
    """

    phases: Mapping[str, ChosenPhase]
    history_weight: float | None = None

    def to_json(self) -> dict[str, object]:
        """Return a JSON-ready mapping by step."""
        weight = {} if self.history_weight is None else {"crosses": {"history_weight": self.history_weight}}
        return {**{step: phase.to_json() for step, phase in self.phases.items()}, **weight}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Chosen:
        """Read back what :meth:`to_json` returned."""
        phases = {step: ChosenPhase.from_json(own) for step, own in raw.items() if step != "crosses"}
        return cls(phases, raw.get("crosses", {}).get("history_weight"))


def _chosen(workspace: Workspace, run: Run) -> Chosen:
    """Return the choices of the judged run: epochs per phase, experts' steps, the item history's weight."""
    chosen: dict[str, ChosenPhase] = {}
    for path in run.folder.glob("*.json"):
        if path.stem in ("backbone", "gate") or path.stem.startswith("expert-"):
            report = StepRecord.from_json(run.result(path.stem) or {}).report
            chosen[path.stem] = ChosenPhase(report.best_epoch, report.step)
    crosses = part_of(workspace, run, "crosses") if run.config.settings.crosses else {}
    weight = float(crosses[HISTORY_WEIGHT]) if HISTORY_WEIGHT in crosses else None
    if "backbone" not in chosen:
        raise UsageError(f"run {run.run_id} has no backbone yet: train the phases in order")
    return Chosen(chosen, weight)
