"""The last step of training: the judged model's settings, trained on all rows up to the as-of date.

Splitting, choosing epochs, calibrating and judging need rows that were held out, so the judged model has
never seen the newest of them. What is registered is trained again on all rows, each phase for as many epochs
as it had, and each expert with the step that was decided; the figures stay those of the model before, and its
calibration is kept.
"""

from __future__ import annotations

import logging
from datetime import date
from functools import partial
from typing import TYPE_CHECKING

from mmlora.errors import UsageError
from mmlora.pipeline.runs import Run
from mmlora.pipeline.training_run import (
    data_of,
    do_step,
    experts_of,
    observe,
    open_run,
    options_of,
    part_of,
    refitted,
    spec_of,
)
from mmlora.pipeline.training_set import build_training_set
from mmlora.pipeline.workspace import Progress, Workspace, silent
from mmlora.settings import TrainingSettings

if TYPE_CHECKING:
    from mmlora.training.checkpoint import Checkpoint
    from mmlora.training.phases import PhaseResult

logger = logging.getLogger(__name__)


def refit(run_id: str, *, progress: Progress = silent) -> str:
    """Train a run's model on all rows, where the setting ``refit`` asks for it and it has no base.

    Args:
        run_id: the run, whose phases are done.
        progress: told how far it is.

    Raises:
        UsageError: a phase is not done yet.
    """
    workspace, run = open_run(run_id)
    final = refitted(run)
    if final is run:
        return run_id
    if final.result("config") is None:
        final.record("config", _config(workspace, run, progress))
        final.record("machine", run.result("machine") or {})
    if final.config["crosses"]:
        do_step(
            workspace,
            final,
            "crosses",
            partial(_crosses, workspace, final, progress),
            label="all rows, crosses",
        )
    do_step(
        workspace,
        final,
        "backbone",
        partial(_backbone, workspace, final, progress),
        label="all rows, backbone",
    )
    for step in sorted(step for step in final.config["epochs"] if step.startswith("expert-")):
        compute = partial(_expert, workspace, final, progress, step)
        do_step(workspace, final, step, compute, label=f"all rows, {step}")
    if "gate" in final.config["epochs"]:
        do_step(workspace, final, "gate", partial(_gate, workspace, final, progress), label="all rows, gate")
    return run_id


def _config(workspace: Workspace, run: Run, progress: Progress) -> dict[str, object]:
    """The judged run's configuration on all rows, with what was chosen for each of its phases."""
    asked = {name: run.config[name] for name in TrainingSettings.model_fields if name in run.config}
    as_of, settings = date.fromisoformat(run.config["as_of"]), TrainingSettings(**asked)
    broken = data_of(workspace, run).manifest.info["broken"]
    everything = build_training_set(workspace, as_of, settings, progress, left_out=broken, held_out=False)
    epochs, steps = {}, {}
    for path in run.folder.glob("*.json"):
        if path.stem in ("backbone", "gate") or path.stem.startswith("expert-"):
            report = (run.result(path.stem) or {})["report"]
            epochs[path.stem] = report["best_epoch"]
            steps[path.stem] = report.get("step", 1.0)
    if "backbone" not in epochs:
        raise UsageError(f"run {run.run_id} has no backbone yet: train the phases in order")
    return {**run.config, "training_set_id": everything, "epochs": epochs, "steps": steps}


def _crosses(workspace: Workspace, final: Run, progress: Progress, checkpoint: Checkpoint) -> PhaseResult:
    from mmlora.training.phases import train_crosses

    data = data_of(workspace, final)
    spec, options = spec_of(workspace, final), options_of(workspace, final)
    return train_crosses(spec, data, options, observe(data, progress), checkpoint, refit=True)


def _backbone(workspace: Workspace, final: Run, progress: Progress, checkpoint: Checkpoint) -> PhaseResult:
    from mmlora.training.phases import train_backbone

    data = data_of(workspace, final)
    crosses = part_of(workspace, final, "crosses") if final.config["crosses"] else None
    return train_backbone(
        spec_of(workspace, final),
        data,
        options_of(workspace, final),
        observe(data, progress),
        checkpoint,
        crosses,
        epochs=final.config["epochs"]["backbone"],
    )


def _expert(
    workspace: Workspace, final: Run, progress: Progress, step: str, checkpoint: Checkpoint
) -> PhaseResult:
    from mmlora.training.phases import train_expert

    data = data_of(workspace, final)
    _, domain, slot = step.split("-")
    return train_expert(
        spec_of(workspace, final),
        part_of(workspace, final, "backbone"),
        data,
        domain=int(domain),
        slot=int(slot),
        options=options_of(workspace, final),
        observer=observe(data, progress),
        checkpoint=checkpoint,
        epochs=final.config["epochs"][step],
        step=final.config["steps"][step],
    )


def _gate(workspace: Workspace, final: Run, progress: Progress, checkpoint: Checkpoint) -> PhaseResult:
    from mmlora.training.phases import train_gate

    data = data_of(workspace, final)
    return train_gate(
        spec_of(workspace, final),
        part_of(workspace, final, "backbone"),
        experts_of(workspace, final),
        data,
        options_of(workspace, final),
        observe(data, progress),
        checkpoint,
        epochs=final.config["epochs"]["gate"],
    )
