"""The steps of a training run, called by ``mmlora train`` and the DAG `training`.

A run's id is derived from its configuration and data. Each step stores its parts in the registry and a record
in the run's folder, so that repeating a request reuses the finished steps.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from functools import partial
from typing import TYPE_CHECKING

import mmlora
from mmlora.errors import UsageError
from mmlora.runs import phases
from mmlora.runs.choices import choose, choose_base, choose_expert_domains, choose_on_base
from mmlora.runs.datasets import sources, training_sets
from mmlora.runs.evaluation import PhaseMetrics, RunEvaluation
from mmlora.runs.retraining import forget_lost
from mmlora.runs.starting import COLD, choose_start
from mmlora.runs.state import Run, RunConfig
from mmlora.runs.training_run import (
    data_of,
    do_step,
    expert_records,
    ignored_by,
    models_of,
    open_run,
    rounded,
    run_of,
    spec_from,
    versions_on_base,
)
from mmlora.runs.training_set import build_training_set, rows_and_split
from mmlora.schema import fingerprint
from mmlora.settings import TrainingSettings
from mmlora.telemetry import work
from mmlora.training import TRAINING_REVISION
from mmlora.workspace import Progress, Workspace, open_workspace, silent

if TYPE_CHECKING:
    from mmlora.registry.bundle import Bundle

logger = logging.getLogger(__name__)


def prepare(
    as_of: date,
    *,
    domain: str | None = None,
    base: str | None = None,
    progress: Progress = silent,
    **choices: object,
) -> str:
    """Build the training set and open a run for it.

    Args:
        as_of: train on what was known at this day's 00:00 UTC.
        domain: train only this domain's experts; None trains those of all rich domains.
        base: train the experts on this model version (or ``champion``), whose other parts stay.
        progress: called as the training set is built.
        choices: training settings by name; None leaves a setting unchanged.

    Returns:
        The ``run_id``.

    Raises:
        UsageError: a choice is unknown or out of range, or the combination is impossible.
        DataError: there are no training rows, or only one class of label.
        ContractError: the base's features are no longer available.
    """
    workspace = open_workspace()
    settings, bundle = workspace.settings.training, None
    if base is None:
        settings = choose(settings, choices)
    else:
        bundle = choose_base(workspace, base, domain)
        settings = choose_on_base(settings, choices, bundle)
    return open_training(workspace, as_of, settings, domain=domain, base=bundle, progress=progress)


def open_training(
    workspace: Workspace,
    as_of: date,
    settings: TrainingSettings,
    *,
    domain: str | None = None,
    base: Bundle | None = None,
    progress: Progress = silent,
) -> str:
    """Build the training set of the given settings and open a run for it; see :func:`prepare`."""
    from mmlora.training.dataset import TrainingSet
    from mmlora.training.refusals import refuse_impossible

    with work("prepare", date=as_of, reads=sources(workspace), writes=[training_sets(workspace)]):
        start = None
        if settings.start != COLD:
            start = choose_start(
                workspace, as_of, settings, *rows_and_split(workspace, as_of, settings, progress)
            )
            settings = settings.model_copy(update={"start": start.version if start else COLD})
        training_set_id = build_training_set(
            workspace,
            as_of,
            settings,
            progress,
            base=base,
            start=start if start and start.moves_rows else None,
        )
    data = TrainingSet.open(workspace.training_set_folder(training_set_id))
    domains = choose_expert_domains(workspace, as_of, settings, data, domain)
    config = RunConfig(
        as_of=as_of,
        training_set_id=training_set_id,
        expert_domains=tuple(domains),
        settings=settings,
        code_version=mmlora.__version__,
        training_revision=TRAINING_REVISION,
        base=base.manifest.model_version if base else None,
    ).to_json()
    names, spec = [str(name) for name in data.domains], spec_from(settings, data)
    if base is not None:  # the base's gate mixes more experts than are trained now
        spec = replace(spec, gate_top_k=None)
    refuse_impossible(spec, data, [names.index(name) for name in domains])
    run_id = fingerprint(config)[:12]
    run = run_of(workspace, run_id)
    forget_lost(workspace, run)
    if start is not None:
        run.record("start", start.to_json())
    run.record("config", config)
    run.record("machine", {"device": settings.device})
    return run_id


def train_backbone(run_id: str, *, progress: Progress = silent) -> str:
    """Run phases 0 and 1, cross terms and backbone, unless the run has a base."""
    workspace, run = open_run(run_id)
    if run.config.base is not None:
        return run_id
    if run.config.settings.crosses:
        fit = partial(phases.crosses, workspace, run, progress)
        do_step(workspace, run, "crosses", fit, ignoring=ignored_by("crosses"))
    compute = partial(phases.backbone, workspace, run, progress)
    do_step(workspace, run, "backbone", compute, ignoring=ignored_by("backbone"))
    return run_id


def expert_domains(run_id: str) -> list[str]:
    """Return the domains that train their own experts in a run, as decided when it was prepared."""
    _, run = open_run(run_id)
    return list(run.config.expert_domains)


def train_expert(run_id: str, domain: str, *, progress: Progress = silent) -> str:
    """Run phase 2 for one domain: train each of its experts in turn.

    Raises:
        UsageError: the domain trains no expert; those that do are listed.
    """
    workspace, run = open_run(run_id)
    if domain not in (rich := expert_domains(run_id)):
        raise UsageError(f"domain {domain!r} trains no expert in run {run_id}; these do: {', '.join(rich)}")
    index = [str(name) for name in data_of(workspace, run).domains].index(domain)
    for slot in range(run.config.settings.experts_per_domain):
        compute = partial(phases.expert, workspace, run, progress, domain=index, slot=slot)
        step = f"expert-{index:05d}-{slot}"
        label = f"expert of {domain}" + (f", {slot + 1}" if slot else "")
        do_step(workspace, run, step, compute, label=label, domain=domain, ignoring=ignored_by(step))
    return run_id


def train_gate(run_id: str, *, progress: Progress = silent) -> str:
    """Run phase 3 if the adaptation has a gate, there are experts, and the run has no base."""
    workspace, run = open_run(run_id)
    wanted = run.config.settings.adaptation == "moe_mlora" and run.config.base is None
    if wanted and expert_records(run):
        do_step(workspace, run, "gate", partial(phases.gate, workspace, run, progress))
    return run_id


def evaluate(run_id: str) -> Mapping[str, PhaseMetrics]:
    """Calibrate on the validation split, then evaluate the model of each phase on the test split, once.

    With a base, its calibration stays, and the two models are the base (``before``) and the base with the new
    experts (``after``).

    Returns:
        Metrics by phase (``backbone``, ``experts``, ``gate``).
    """
    from mmlora.training.calibration import fit_calibration
    from mmlora.training.evaluation import evaluate as measure

    workspace, run = open_run(run_id)
    if (done := evaluation_of(run)) is not None:
        return done.metrics
    on_base = versions_on_base(workspace, run)
    data, metrics, calibration = data_of(workspace, run), dict[str, PhaseMetrics](), None
    for phase, model in models_of(workspace, run):
        if phase in on_base:
            calibration = on_base[phase].calibration_by_domain.of_sample
        else:
            calibration = fit_calibration(model, data)
        measured = measure(model, data, "test", calibration, user=data.user).metrics
        metrics[phase] = PhaseMetrics.of(measured, [str(name) for name in data.domains])
        logger.info("test split, %s: wauc %s", phase, rounded(measured.wauc))
    assert calibration is not None  # there is always a backbone
    part = workspace.parts.put_json(calibration.to_json())
    run.record("evaluation", RunEvaluation(metrics, part).to_json())
    return metrics


def evaluation_of(run: Run) -> RunEvaluation | None:
    """Return a run's evaluation; None when it isn't evaluated yet."""
    stored = run.result("evaluation")
    return None if stored is None else RunEvaluation.from_json(stored)
