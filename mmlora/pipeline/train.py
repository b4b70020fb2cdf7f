"""``mmlora train``: training set, backbone, experts, gate, evaluation, judgement, and a registered bundle.

A run's id follows from the request and the data. Each step stores its parts in the registry and a record in
the run's folder, so the same request reuses the steps that are done, whoever runs them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date

from mmlora.errors import UsageError
from mmlora.pipeline.training_summary import PhaseRow, TrainingSummary
from mmlora.runs.datasets import models, sources
from mmlora.runs.exchange import exchange_report
from mmlora.runs.judging import judge, judgement_of
from mmlora.runs.state import Run
from mmlora.runs.steps import (
    evaluate,
    evaluation_of,
    expert_domains,
    prepare,
    train_backbone,
    train_expert,
    train_gate,
)
from mmlora.runs.training_run import base_of, data_of, open_run, step_records
from mmlora.runs.tuning import refuse_tuning, tune, tuning_of
from mmlora.telemetry import note, work
from mmlora.workspace import Progress, open_workspace, silent

logger = logging.getLogger(__name__)


def train(
    as_of: date,
    *,
    phase: str = "all",
    domain: str | None = None,
    base: str | None = None,
    accept_below_baseline: bool = False,
    tune_minutes: float | None = None,
    progress: Progress = silent,
    **choices: object,
) -> TrainingSummary:
    """Run the steps up to ``phase`` (``backbone``, ``experts``, ``gate`` or ``all``) and return a summary.

    Args:
        as_of: see :func:`prepare`.
        phase: the last phase; ``all`` also evaluates, judges, trains on all rows and registers the model.
        domain: train only this domain's experts.
        base: train them on this model version (or ``champion``); needs the phase ``experts``, and also
            evaluates, judges and registers the model, because nothing else has to be trained.
        accept_below_baseline: see :func:`~mmlora.runs.registering.register`.
        tune_minutes: see :func:`~mmlora.runs.tuning.tune`; needs the phase ``all`` and no base.
        progress: called with the progress of each step.
        choices: see :func:`prepare`.

    Raises:
        UsageError: ``base`` with another phase than ``experts``; see also :func:`prepare`.
    """
    from mmlora.runs.refitting import refit
    from mmlora.runs.registering import register

    refuse_tuning(tune_minutes, phase=phase, base=base)
    if base is not None and phase != "experts":
        raise UsageError(f"--base trains experts only, not {phase}: mmlora train experts --base ...")
    workspace = open_workspace()
    with work("train", date=as_of, reads=sources(workspace), writes=[models(workspace)]):
        run_id = prepare(as_of, domain=domain, base=base, progress=progress, **choices)
        run_id = tune(run_id, tune_minutes=tune_minutes, progress=progress)
        train_backbone(run_id, progress=progress)
        if phase != "backbone":
            for name in expert_domains(run_id):
                train_expert(run_id, name, progress=progress)
        if phase in ("gate", "all"):
            train_gate(run_id, progress=progress)
        if phase == "all" or base is not None:
            evaluate(run_id)
            judge(run_id, progress=progress)
            refit(run_id, progress=progress)
            version = register(run_id, accept_below_baseline=accept_below_baseline)
            note(model_version=version)
    return summary(run_id)


def summary(run_id: str) -> TrainingSummary:
    """Return the outcome of a run's steps so far."""
    workspace, run = open_run(run_id)
    evaluation, registered = evaluation_of(run), run.result("registered") or {}
    outcome = TrainingSummary(
        run_id=run_id,
        phases=tuple(_phases(run, [str(name) for name in data_of(workspace, run).domains])),
        metrics=evaluation.metrics if evaluation else {},
        judgement=judgement_of(run),
        tuning=tuning_of(run),
        start=(run.result("start") or {}).get("version"),
        **registered,
    )
    base = base_of(workspace, run)
    if base is None or outcome.model_version is None:
        return outcome
    (domain,) = run.config.expert_domains
    after = workspace.bundles.load(outcome.model_version)
    return replace(outcome, exchange=exchange_report(base, after, workspace.domain(domain)))


def _phases(run: Run, names: Sequence[str]) -> Iterator[PhaseRow]:
    for step in step_records(run, "crosses", "backbone", "expert-", "gate"):
        domain = step.report.domain
        yield PhaseRow.of(step.report, "all" if domain is None else names[domain])
