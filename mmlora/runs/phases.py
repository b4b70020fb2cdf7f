"""Run the training phases with a run's rows, specification, options and earlier parts.

The judged model and the model on all rows are trained by the same calls: the first chooses the number of
epochs on validation rows, the second is given it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlora.errors import UsageError
from mmlora.runs.starting import begun_with
from mmlora.runs.state import Run
from mmlora.runs.training_run import (
    data_of,
    experts_of,
    forgetful,
    observe,
    options_of,
    part_of,
    spec_of,
)
from mmlora.workspace import Progress, Workspace

if TYPE_CHECKING:
    from mmlora.models.spec import ModelSpec
    from mmlora.training.checkpoint import Checkpoint
    from mmlora.training.epoch import TrainingData
    from mmlora.training.loop import TrainingOptions
    from mmlora.training.observer import Observer
    from mmlora.training.phases import PhaseResult
    from mmlora.training.warm import WarmStart


def crosses(
    workspace: Workspace,
    run: Run,
    progress: Progress,
    checkpoint: Checkpoint,
    *,
    refit: bool = False,
    history_weight: float = 0.0,
) -> PhaseResult:
    """Run phase 0: fit the cross terms alone."""
    from mmlora.training.phases import train_crosses

    common = _common(workspace, run, progress)
    warm = _warm_start(workspace, run)
    return train_crosses(*common, checkpoint, refit=refit, history_weight=history_weight, warm=warm)


def backbone(
    workspace: Workspace,
    run: Run,
    progress: Progress,
    checkpoint: Checkpoint,
    *,
    epochs: int | None = None,
    step: float = 1.0,
) -> PhaseResult:
    """Run phase 1: train the backbone, on the cross terms if the model has them."""
    from mmlora.training.phases import train_backbone

    fitted = part_of(workspace, run, "crosses") if run.config.settings.crosses else None
    warm = _warm_start(workspace, run) if step else None
    return train_backbone(*_common(workspace, run, progress), checkpoint, fitted, epochs=epochs, warm=warm)


def expert(
    workspace: Workspace,
    run: Run,
    progress: Progress,
    checkpoint: Checkpoint,
    *,
    domain: int,
    slot: int,
    epochs: int | None = None,
    step: float = 1.0,
) -> PhaseResult:
    """Run phase 2 for one expert of one domain."""
    from mmlora.training.phases import train_expert

    spec, data, options, observer = _common(workspace, run, progress)
    return train_expert(
        spec,
        part_of(workspace, run, "backbone"),
        data,
        domain=domain,
        slot=slot,
        options=options,
        observer=observer,
        checkpoint=checkpoint,
        epochs=epochs,
        step=step,
    )


def gate(
    workspace: Workspace, run: Run, progress: Progress, checkpoint: Checkpoint, *, epochs: int | None = None
) -> PhaseResult:
    """Run phase 3: train the gate on the results of the earlier phases."""
    from mmlora.training.phases import train_gate

    data = data_of(workspace, run)
    return train_gate(
        spec_of(workspace, run),
        part_of(workspace, run, "backbone"),
        experts_of(workspace, run),
        data,
        options_of(workspace, run),
        observe(data, progress),
        checkpoint,
        epochs=epochs,
    )


def _common(
    workspace: Workspace, run: Run, progress: Progress
) -> tuple[ModelSpec, TrainingData, TrainingOptions, Observer]:
    """Return the specification, the training data, the options and the observer."""
    observer = observe(data_of(workspace, run), progress)
    return spec_of(workspace, run), forgetful(workspace, run), options_of(workspace, run), observer


def _warm_start(workspace: Workspace, run: Run) -> WarmStart | None:
    """Return the weights that a run begins with; None for a cold start.

    Raises:
        UsageError: they have no place in the run's model.
    """
    from mmlora.training.warm import WarmStart, changed_inputs

    if (begun := begun_with(workspace, run)) is None:
        return None
    spec = begun.model_spec()
    if changed := changed_inputs(spec, spec_of(workspace, run)):
        raise UsageError(
            f"start {begun.manifest.model_version}: the weights of {', '.join(changed)} have another shape "
            "now: train with --start cold"
        )
    backbone = workspace.parts.tensors(begun.manifest.backbone)
    return WarmStart.of(spec, backbone, begun.encoder(), data_of(workspace, run).encoder)
