"""Shared parts of the steps of a training run: data, specification, parts, and running a step once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast, get_args

from mmlora.errors import UsageError
from mmlora.files import locked
from mmlora.hyperparameters import SETTINGS, ModelShape, Optimisation, read_by
from mmlora.hyperparameters.setting import TrainedPart
from mmlora.names import Device
from mmlora.runs.datasets import training_sets
from mmlora.runs.exchange import exchanged
from mmlora.runs.state import Run
from mmlora.runs.step_record import StepRecord
from mmlora.schema import Id, fingerprint
from mmlora.settings import TrainingSettings
from mmlora.telemetry import work
from mmlora.training import TRAINING_REVISION
from mmlora.workspace import Progress, Workspace, open_workspace

if TYPE_CHECKING:
    from mmlora.models.ctr import State
    from mmlora.models.spec import ModelSpec
    from mmlora.registry.bundle import Bundle, Manifest
    from mmlora.registry.manifest import TrainingFacts
    from mmlora.training.checkpoint import Checkpoint
    from mmlora.training.dataset import TrainingSet
    from mmlora.training.epoch import TrainingData
    from mmlora.training.loop import TrainingOptions
    from mmlora.training.observer import EpochRecord, Observer, PhaseName, PhaseReport
    from mmlora.training.phases import Expert, PhaseResult

logger = logging.getLogger(__name__)

_PARTS: tuple[TrainedPart, ...] = get_args(TrainedPart)


def ignored_by(step: str) -> set[str]:
    """Return the settings that a step ignores, so that runs that differ only in them share its result.

    A step depends on what it and the earlier steps read. Cross terms depend only on the training set, whose
    settings are covered by its id.
    """
    phase = cast(TrainedPart, step.partition("-")[0])
    parts = (phase,) if phase == "crosses" else _PARTS[: _PARTS.index(phase) + 1]
    ignored = set(SETTINGS).difference(read_by(*parts))
    return ignored if phase == "gate" else ignored | {"expert_domains"}


def run_of(workspace: Workspace, run_id: str) -> Run:
    """Return a run by its id, even if it does not exist."""
    return Run(workspace.home / "runs" / run_id)


def open_run(run_id: str) -> tuple[Workspace, Run]:
    """Open the workspace and a run in it; raise ``UsageError`` if the run does not exist."""
    workspace = open_workspace()
    run = run_of(workspace, run_id)
    run.require()
    return workspace, run


def data_of(workspace: Workspace, run: Run) -> TrainingSet:
    """Open a run's training set."""
    from mmlora.training.dataset import TrainingSet

    return TrainingSet.open(workspace.training_set_folder(run.config.training_set_id))


def forgetful(workspace: Workspace, run: Run) -> TrainingData:
    """Return a run's training data, with ids made unknown by :mod:`mmlora.training.unknown_ids`."""
    from mmlora.training.unknown_ids import ForgetfulData

    data, shares = data_of(workspace, run), forgotten(workspace, run)
    return ForgetfulData(data, shares) if shares else data


def forgotten(workspace: Workspace, run: Run) -> dict[str, float]:
    """Return the share of training rows in which each field is made unknown.

    A run on all rows has no validation rows to measure it, so it uses the judged run's shares.
    """
    from mmlora.training.unknown_ids import unknown_shares

    if not run.config.settings.id_dropout:
        return {}
    if (known := run.result("forgotten")) is None:
        known = unknown_shares(data_of(workspace, run))
        run.record("forgotten", known)
    return known


def spec_of(workspace: Workspace, run: Run) -> ModelSpec:
    """Return a run's model specification."""
    return spec_from(run.config.settings, data_of(workspace, run))


def spec_from(settings: TrainingSettings, data: TrainingSet) -> ModelSpec:
    """Return the model specification of the settings; raise ``UsageError`` if it is impossible."""
    from mmlora.models.spec import FieldShape, ModelSpec

    return ModelSpec(
        backbone=settings.backbone,
        adaptation=settings.adaptation,
        fields=tuple(FieldShape(*shape) for shape in data.encoder.field_shapes()),
        num_domains=data.num_domains,
        **settings.of(ModelShape),
    )


def options_of(workspace: Workspace, run: Run) -> TrainingOptions:
    """Return a run's optimisation options; threads and device are those of the present machine."""
    machine = run.result("machine") or {}
    return options_from(run.config.settings, workspace, device=machine.get("device"))


def options_from(
    settings: TrainingSettings, workspace: Workspace, device: Device | None = None
) -> TrainingOptions:
    """Return the optimisation options of some settings, with the workspace's threads and default device."""
    from mmlora.training.loop import TrainingOptions

    defaults = workspace.settings.training
    machine = {"threads": defaults.threads, "device": device or defaults.device}
    return TrainingOptions(**{**settings.of(Optimisation), **machine})


def do_step(
    workspace: Workspace,
    run: Run,
    step: str,
    compute: Callable[[Checkpoint], PhaseResult],
    *,
    label: str = "",
    domain: str | None = None,
    ignoring: Collection[str] = (),
    inputs: Mapping[str, Any] | None = None,
) -> None:
    """Do a step unless it is done, in this run or another that differs only in settings that it ignores.

    If several processes reach the same step, one does it and the others wait for its result. A killed step
    resumes from its checkpoint. ``inputs`` determine its result in addition to the configuration.
    """
    if run.result(step) is not None:
        return
    decisive = {name: value for name, value in run.config.to_json().items() if name not in ignoring}
    decisive |= inputs or {}
    if (start := run.result("start")) is not None:
        decisive["start"] = start
    job = f"train_{step.partition('-')[0]}"
    with work(job, domain=domain, date=run.config.as_of, reads=[training_sets(workspace)]):
        record = shared_step(workspace, {"step": step, **decisive}, compute, label or step)
    run.record(step, record.to_json())


def shared_step(
    workspace: Workspace,
    decisive: Mapping[str, object],
    compute: Callable[[Checkpoint], PhaseResult],
    label: str,
) -> StepRecord:
    """Return the record of a shared step, and do the step if necessary; see :func:`do_step`.

    Args:
        workspace: the workspace of the record, the checkpoint and the part.
        decisive: everything that determines the result, except the training code.
        compute: does the step.
        label: the step's name in the log.
    """
    from mmlora.training.checkpoint import FileCheckpoint

    key = fingerprint({**decisive, "training_revision": TRAINING_REVISION})[:24]
    shared = run_of(workspace, "steps")
    waiting = f"{label}: another process trains it; waiting for its result"
    with locked(shared.folder / f"{key}.lock", waiting=waiting):
        checkpoint = FileCheckpoint(shared.folder / f"{key}.checkpoint")
        stored = shared.result(key)
        if stored is None:
            result = compute(checkpoint)
            record = StepRecord(workspace.parts.put_tensors(result.state), result.report)
            shared.record(key, record.to_json())
            _log(label, result.report)
        else:
            record = StepRecord.from_json(stored)
        checkpoint.clear()
    return record


def step_records(run: Run, *prefixes: str) -> Iterator[StepRecord]:
    """Yield what the steps of these names left, in order."""
    for prefix in prefixes:
        yield from map(StepRecord.from_json, run.steps(prefix))


def _log(label: str, report: PhaseReport) -> None:
    logger.info(
        "%s: %s %s -> %s in %d epochs, %.0f s%s",
        label,
        report.metric,
        rounded(report.start_metric),
        rounded(report.best_metric),
        report.epochs,
        report.seconds,
        "" if report.helped else "; it didn't help, so the start is kept",
    )


def rounded(value: float | None) -> str:
    """Format a metric for the log."""
    return "-" if value is None else f"{value:.4f}"


def refitted(run: Run) -> Run:
    """Return the run of the registered model: the one on all rows, or the judged run itself."""
    final = Run(run.folder / "final")
    return final if run.config.settings.refit and run.config.base is None else run


def part_of(workspace: Workspace, run: Run, step: str) -> State:
    """Load the tensors of a step, with a base's own backbone; raise ``UsageError`` if the step isn't done."""
    base = base_of(workspace, run)
    if step == "backbone" and base is not None:
        return workspace.parts.tensors(base.manifest.backbone)
    record = run.result(step)
    if record is None:
        raise UsageError(f"run {run.run_id} has no {step} yet: train the phases in order")
    return workspace.parts.tensors(StepRecord.from_json(record).part)


def expert_records(run: Run) -> list[tuple[int, int, str]]:
    """Return (domain index, slot, part) of every trained expert, in the gate's order."""
    return [
        (step.report.domain, step.report.slot, step.part)
        for step in step_records(run, "expert-")
        if step.report.domain is not None  # an expert has one
    ]


def base_of(workspace: Workspace, run: Run) -> Bundle | None:
    """Return the bundle on which a run trains one domain's experts; None for a whole model."""
    version = run.config.base
    return None if version is None else workspace.bundles.load(version)


def composed(workspace: Workspace, run: Run, base: Bundle, facts: TrainingFacts | None = None) -> Manifest:
    """Return a base's manifest with the experts trained by a run, and with the run's facts if given.

    A domain keeps its mixture if its new experts don't help, so that they change no score.
    """
    from dataclasses import replace

    from mmlora.models.ctr import is_zero
    from mmlora.registry.manifest import ExpertPart

    names = data_of(workspace, run).domains
    trained = [ExpertPart(names[domain], slot, part) for domain, slot, part in expert_records(run)]
    manifest = exchanged(base.manifest, trained, facts)
    if all(is_zero(workspace.parts.tensors(expert.part)) for expert in trained):
        return replace(manifest, mixtures=base.manifest.mixtures)
    return manifest


def versions_on_base(workspace: Workspace, run: Run) -> dict[str, Bundle]:
    """Return a run's base as ``before``, and with the new experts as ``after``; empty without a base."""
    from dataclasses import replace

    base = base_of(workspace, run)
    if base is None:
        return {}
    return {"before": base, "after": replace(base, manifest=composed(workspace, run, base))}


def experts_of(workspace: Workspace, run: Run) -> list[Expert]:
    """Load the trained experts, in the gate's order."""
    from mmlora.training.phases import Expert

    return [Expert(domain, slot, workspace.parts.tensors(part)) for domain, slot, part in expert_records(run)]


def models_of(workspace: Workspace, run: Run) -> Iterator[tuple[str, Any]]:
    """Yield the model of each trained phase in order; with a base, the model before and after."""
    from dataclasses import replace

    from mmlora.models.builder import assemble_model, stored_model

    if run.config.base is not None:
        for phase, bundle in versions_on_base(workspace, run).items():
            yield phase, bundle.model_by_domain()
        return
    spec, backbone = spec_of(workspace, run), part_of(workspace, run, "backbone")
    yield "backbone", stored_model(replace(spec, adaptation="none"), backbone=backbone)
    experts = [(expert.domain, expert.state) for expert in experts_of(workspace, run)]
    if experts:
        yield "experts", assemble_model(replace(spec, adaptation="mlora"), backbone=backbone, experts=experts)
    if run.result("gate"):
        gate = part_of(workspace, run, "gate")
        yield "gate", assemble_model(spec, backbone=backbone, experts=experts, gate=gate)


class _ProgressObserver:
    def __init__(self, names: list[Id], progress: Progress) -> None:
        self.names, self.progress, self.max_epochs = names, progress, 1

    def phase_start(self, phase: PhaseName, domain: int | None, *, rows: int, max_epochs: int) -> None:
        self.max_epochs = max_epochs

    def epoch(self, phase: PhaseName, domain: int | None, record: EpochRecord) -> None:
        self.progress(self._label(phase, domain), record.epoch, self.max_epochs)

    def phase_end(self, report: PhaseReport) -> None:
        self.progress(self._label(report.phase, report.domain), self.max_epochs, self.max_epochs)

    def _label(self, phase: PhaseName, domain: int | None) -> str:
        return f"train {phase}" if domain is None else f"train {phase} of {self.names[domain]}"


def observe(data: TrainingSet, progress: Progress) -> Observer:
    """Return an observer that reports epochs as progress."""
    return _ProgressObserver(data.domains, progress)
