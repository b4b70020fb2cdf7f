"""Registration: a finished run becomes a bundle, a champion or challenger, and a run in MLflow."""

from __future__ import annotations

import getpass
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import mmlora
from mmlora.errors import UsageError
from mmlora.judgement import Judgement, below_baseline
from mmlora.names import Alias
from mmlora.runs.champions import ACCEPTED, CHALLENGER, CHAMPION, mirror
from mmlora.runs.datasets import models, training_sets
from mmlora.runs.evaluation import PhaseMetrics, RunEvaluation
from mmlora.runs.feature_profile import put_profile
from mmlora.runs.judged_points import judgement_points
from mmlora.runs.judging import judgement_of
from mmlora.runs.starting import COLD
from mmlora.runs.state import Run
from mmlora.runs.steps import evaluation_of
from mmlora.runs.training_run import (
    base_of,
    composed,
    data_of,
    expert_records,
    open_run,
    refitted,
    spec_of,
    step_records,
)
from mmlora.runs.tuning import tuning_of
from mmlora.runs.tuning_record import TuningRecord
from mmlora.schema import Id
from mmlora.telemetry import note, work
from mmlora.workspace import Workspace

if TYPE_CHECKING:
    from mmlora.registry.bundle import Manifest
    from mmlora.registry.manifest import TrainingFacts
    from mmlora.registry.tracking import Point
    from mmlora.training.observer import PhaseReport

logger = logging.getLogger(__name__)

_MEANS = ("wauc", "macro_auc")
_MEASURES = ("auc", "gauc", "logloss", "ne", "calibration", "ece")


def register(run_id: str, *, accept_below_baseline: bool = False) -> str:
    """Store a run's bundle; the first becomes champion, a later one challenger.

    A model below its best baseline becomes champion where there is none, and otherwise neither of the two.

    Args:
        run_id: a judged run.
        accept_below_baseline: make it the challenger even if it is below its best baseline.

    Returns:
        The model version, which is the same for the same run.

    Raises:
        UsageError: the run isn't evaluated or judged yet.
    """
    workspace, run = open_run(run_id)
    done = run.result("registered")
    if done is not None and (done["alias"] or not accept_below_baseline):
        return str(done["model_version"])
    reads, writes = [training_sets(workspace)], [models(workspace)]
    with work("register", date=run.config.as_of, reads=reads, writes=writes):
        version = workspace.bundles.save(_manifest(workspace, run))
        note(model_version=version)
        alias = _decide(workspace, run, version, accept_below_baseline)
        if alias is not None:
            mirror(workspace, version, alias)
        if run.result("tracked") is None:
            run.record("tracked", {"mlflow_run_id": _track(workspace, run, version)})
        run.record("registered", {"model_version": version, "alias": alias})
    return version


def _decide(workspace: Workspace, run: Run, version: str, accept_below_baseline: bool) -> Alias | None:
    """Make a version champion or challenger; None if it is below its best baseline and not accepted."""
    metrics = {phase: values.wauc for phase, values in _evaluation(run).metrics.items()}
    below = below_baseline(_judgement(run))
    with workspace.open_warehouse() as warehouse:
        decision = warehouse.register(
            version,
            who=getpass.getuser(),
            metrics=metrics,
            only_first=below is not None and not accept_below_baseline,
            note=ACCEPTED if below and accept_below_baseline else "",
        )
    if decision is None:
        logger.warning(
            "registered %s as neither champion nor challenger, because %s; --accept-below-baseline makes it "
            "the challenger",
            version,
            below,
        )
        return None
    logger.info("registered %s as the %s", version, decision.alias)
    return CHAMPION if decision.alias == CHAMPION else CHALLENGER


def _evaluation(run: Run) -> RunEvaluation:
    evaluation = evaluation_of(run)
    if evaluation is None:
        raise UsageError(f"run {run.run_id} isn't evaluated yet: evaluate it before registering")
    return evaluation


def _judgement(run: Run) -> Judgement:
    judgement = judgement_of(run)
    if judgement is None:
        raise UsageError(f"run {run.run_id} isn't judged yet: judge it before registering")
    return judgement


def _manifest(workspace: Workspace, run: Run) -> Manifest:
    evaluation, judgement, final = _evaluation(run), _judgement(run), refitted(run)
    if final.result("config") is None:
        raise UsageError(f"run {run.run_id} is not trained on all rows yet: refit it before registering")
    facts: TrainingFacts = {
        "as_of": run.config.as_of,
        "data_fingerprint": data_of(workspace, final).manifest.fingerprint,
        "metrics": {phase: metrics.to_json() for phase, metrics in evaluation.metrics.items()},
        "judgement": judgement,
        "tuning": run.result("tuning"),
        "code_version": mmlora.__version__,
    }
    seen_until = judgement.seen_until or None
    base = base_of(workspace, run)
    if base is not None:
        return replace(composed(workspace, run, base, facts), seen_until=seen_until)
    manifest, data = _whole(workspace, final, evaluation, facts), data_of(workspace, final)
    profile = put_profile(workspace, data.encoder, run.config.as_of, data.domains)
    manifest = replace(manifest, profile=profile)
    if final is run:
        return replace(manifest, seen_until=seen_until)
    unsaid: TrainingFacts = {**facts, "metrics": {}, "judgement": None, "tuning": None}
    judged = replace(_whole(workspace, run, evaluation, unsaid), seen_until=seen_until)
    return replace(manifest, judged=workspace.bundles.save_judged(judged))


def _whole(workspace: Workspace, run: Run, evaluation: RunEvaluation, facts: TrainingFacts) -> Manifest:
    """Return the manifest of a model without a base, of the judged run or of the one on all rows."""
    from mmlora.registry.bundle import ExpertPart, Manifest, put_encoder

    data, gate, backbone = data_of(workspace, run), run.result("gate"), run.result("backbone")
    if backbone is None:
        raise UsageError(f"run {run.run_id} is not trained on all rows yet: refit it before registering")
    return Manifest(
        **facts,
        spec=spec_of(workspace, run).to_dict(),
        contract=data.manifest.contract,
        encoder=put_encoder(workspace.parts, data.encoder),
        backbone=backbone["part"],
        calibration=_calibration(workspace, run, evaluation),
        experts=tuple(ExpertPart(data.domains[d], slot, part) for d, slot, part in expert_records(run)),
        gate=gate["part"] if gate else None,
        training_domains=tuple(data.domains),
        ids=workspace.ids,
        block_rows=workspace.settings.scoring.block_rows,
        start=None if run.config.settings.start == COLD else run.config.settings.start,
    )


def _calibration(workspace: Workspace, run: Run, evaluation: RunEvaluation) -> str:
    """Return the part of a run's calibration, corrected for the sampling of negatives."""
    from mmlora.models.calibration import Calibration

    negatives = run.config.settings.negatives_per_row
    if negatives == 1.0:
        return evaluation.calibration
    fitted = Calibration.from_json(workspace.parts.json(evaluation.calibration))
    return workspace.parts.put_json(replace(fitted, negatives=negatives).to_json())


def _track(workspace: Workspace, run: Run, version: str) -> str:
    """Copy the run to MLflow: its configuration, the curves of each phase and domain, the test metrics."""
    names = data_of(workspace, run).domains
    tracking = workspace.tracking
    judgement, tuning = _judgement(run), tuning_of(run)
    tags = {"model_version": version, "verdict": judgement.verdict, "judgement": judgement.sentence}
    tags |= {"tuning": tuning.sentence} if tuning else {}
    mlflow_run = tracking.start_run(run.run_id, params=run.config.to_json(), tags=tags)
    for step in step_records(run, "backbone", "expert-", "gate"):
        tracking.log_points(mlflow_run, _curves(step.report, names))
    tracking.log_points(mlflow_run, _test_points(_evaluation(run).metrics))
    tracking.log_points(mlflow_run, judgement_points(judgement))
    if tuning:
        tracking.log_points(mlflow_run, _trial_points(tuning))
    tracking.end_run(mlflow_run)
    return mlflow_run


def _curves(report: PhaseReport, names: list[Id]) -> Iterator[Point]:
    from mmlora.registry.tracking import Point

    domain = None if report.domain is None else names[report.domain]
    phase = report.phase if not report.slot else f"{report.phase}{report.slot}"
    if report.start_metric is not None:
        yield Point(phase, report.metric, 0, report.start_metric, domain)
    for epoch in report.history:
        yield Point(phase, "train_loss", epoch.epoch, epoch.train_loss, domain)
        if epoch.metric is not None:
            yield Point(phase, report.metric, epoch.epoch, epoch.metric, domain)


def _test_points(metrics: Mapping[str, PhaseMetrics]) -> Iterator[Point]:
    from mmlora.registry.tracking import Point

    for phase, measured in metrics.items():
        for name in _MEANS:
            if (mean := getattr(measured, name)) is not None:
                yield Point(f"test/{phase}", name, 0, mean, None)
        for group, figures in ((None, measured.pooled), *measured.by_domain.items()):
            for name in _MEASURES:
                if (value := getattr(figures, name)) is not None:
                    yield Point(f"test/{phase}", name, 0, value, group)


def _trial_points(tuning: TuningRecord) -> Iterator[Point]:
    from mmlora.registry.tracking import Point

    for number, trial in enumerate(tuning.trials, 1):
        yield Point("tune", "wauc", number, trial.wauc)
