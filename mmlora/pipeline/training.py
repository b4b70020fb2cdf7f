"""``mmlora train``: training set -> backbone -> experts -> gate -> evaluation -> a registered bundle.

A run's id follows from what was asked and from the data, and each step leaves its parts in the registry and a
record in the run's folder; so the same request finds its finished steps, whoever runs them.
"""

from __future__ import annotations

import logging
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

import mmlora
from mmlora.errors import UsageError
from mmlora.pipeline.training_run import (
    data_of,
    do_step,
    expert_records,
    experts_of,
    models_of,
    observe,
    open_run,
    options_of,
    part_of,
    rounded,
    run_of,
    spec_of,
)
from mmlora.pipeline.training_set import build_training_set
from mmlora.pipeline.validation import verdicts_as_of
from mmlora.pipeline.workspace import Progress, Workspace, open_workspace, silent
from mmlora.schema import fingerprint
from mmlora.settings import TrainingSettings

if TYPE_CHECKING:
    from mmlora.training.phases import PhaseResult

logger = logging.getLogger(__name__)

# What a phase doesn't depend on, so that runs which differ in nothing else share it.
_GATE_ONLY = ("adaptation", "gate", "gate_learning_rate", "experts_per_domain", "expert_domains")
_EXPERTS_ONLY = ("rank", "alpha", "expert_learning_rate")


def prepare(as_of: date, *, domain: str | None = None, progress: Progress = silent, **choices: Any) -> str:
    """Build the training set and open a run for it.

    Args:
        as_of: train on what was known at this day's 00:00 UTC.
        domain: train only this domain's experts; those of all rich domains when None.
        progress: told how far the training set is.
        choices: training settings by name; None leaves the setting as it is.

    Returns:
        The ``run_id``.

    Raises:
        UsageError: a choice is unknown or out of range.
        DataError: there is nothing to train on.
    """
    workspace = open_workspace()
    settings = _choose(workspace.settings.training, choices)
    training_set_id = build_training_set(workspace, as_of, settings, progress)
    config = {
        "as_of": as_of.isoformat(),
        "training_set_id": training_set_id,
        "expert_domains": _expert_domains(workspace, as_of, settings, training_set_id, domain),
        "code_version": mmlora.__version__,
        **settings.model_dump(mode="json", exclude={"threads"}),
    }
    run_id = fingerprint(config)[:12]
    run = run_of(workspace, run_id)
    run.record("config", config)
    spec_of(workspace, run)  # a combination that no model can have is refused before anything is trained
    return run_id


def train_backbone(run_id: str, *, progress: Progress = silent) -> str:
    """Phase 1."""
    from mmlora.training.phases import train_backbone as phase

    workspace, run = open_run(run_id)

    def compute() -> PhaseResult:
        data = data_of(workspace, run)
        return phase(spec_of(workspace, run), data, options_of(workspace, run), observe(data, progress))

    do_step(workspace, run, "backbone", compute, ignoring=(*_EXPERTS_ONLY, *_GATE_ONLY))
    return run_id


def expert_domains(run_id: str) -> list[str]:
    """Return the domains that train experts of their own in a run, as decided when it was prepared."""
    _, run = open_run(run_id)
    return list(run.config["expert_domains"])


def train_expert(run_id: str, domain: str, *, progress: Progress = silent) -> str:
    """Phase 2 for one domain: each of its experts, one after the other.

    Raises:
        UsageError: the domain trains no expert; those that do are listed.
    """
    from mmlora.training.phases import train_expert as phase

    workspace, run = open_run(run_id)
    if domain not in (rich := expert_domains(run_id)):
        raise UsageError(f"domain {domain!r} trains no expert in run {run_id}; these do: {', '.join(rich)}")
    data = data_of(workspace, run)
    index = [str(name) for name in data.domains].index(domain)

    def compute(slot: int) -> PhaseResult:
        return phase(
            spec_of(workspace, run),
            part_of(workspace, run, "backbone"),
            data,
            domain=index,
            slot=slot,
            options=options_of(workspace, run),
            observer=observe(data, progress),
        )

    for slot in range(run.config["experts_per_domain"]):
        step = f"expert-{index:05d}-{slot}"
        label = f"expert of {domain}" + (f", {slot + 1}" if slot else "")
        do_step(workspace, run, step, partial(compute, slot), label=label, ignoring=_GATE_ONLY)
    return run_id


def train_gate(run_id: str, *, progress: Progress = silent) -> str:
    """Phase 3, where the adaptation has a gate and there are experts to mix."""
    from mmlora.training.phases import train_gate as phase

    workspace, run = open_run(run_id)

    def compute() -> PhaseResult:
        data = data_of(workspace, run)
        return phase(
            spec_of(workspace, run),
            part_of(workspace, run, "backbone"),
            experts_of(workspace, run),
            data,
            options_of(workspace, run),
            observe(data, progress),
        )

    if run.config["adaptation"] == "moe_mlora" and expert_records(run):
        do_step(workspace, run, "gate", compute)
    return run_id


def evaluate(run_id: str) -> dict[str, Any]:
    """Calibrate on the validation split; then read the test split, once, for the model of each phase.

    Returns:
        Metrics by phase (``backbone``, ``experts``, ``gate``), each pooled and by domain name.
    """
    from mmlora.training.calibration import fit_calibration
    from mmlora.training.evaluation import evaluate as measure

    workspace, run = open_run(run_id)
    if (done := run.result("evaluation")) is not None:
        metrics: dict[str, Any] = done["metrics"]
        return metrics
    data, metrics, calibration = data_of(workspace, run), {}, None
    for phase, model in models_of(workspace, run):
        calibration = fit_calibration(model, data)
        raw = measure(model, data, "test", calibration).to_dict()
        by_domain = {str(data.domains[int(index)]): row for index, row in raw["by_domain"].items()}
        metrics[phase] = {"wauc": raw["wauc"], "pooled": raw["pooled"], "by_domain": by_domain}
        logger.info("test split, %s: wauc %s", phase, rounded(raw["wauc"]))
    assert calibration is not None  # there is always a backbone
    part = workspace.parts.put_json(calibration.to_dict())
    run.record("evaluation", {"metrics": metrics, "calibration": part})
    return metrics


def train(
    as_of: date, *, phase: str = "all", domain: str | None = None, progress: Progress = silent, **choices: Any
) -> dict[str, Any]:
    """Run the steps up to ``phase`` (``backbone``, ``experts``, ``gate`` or ``all``) and sum them up.

    Args:
        as_of: see :func:`prepare`.
        phase: the last phase; ``all`` also evaluates and registers.
        domain: train only this domain's experts.
        progress: told how far each step is.
        choices: see :func:`prepare`.
    """
    from mmlora.pipeline.registering import register

    run_id = prepare(as_of, domain=domain, progress=progress, **choices)
    train_backbone(run_id, progress=progress)
    if phase != "backbone":
        for name in expert_domains(run_id):
            train_expert(run_id, name, progress=progress)
    if phase in ("gate", "all"):
        train_gate(run_id, progress=progress)
    if phase == "all":
        evaluate(run_id)
        register(run_id)
    return summary(run_id)


def summary(run_id: str) -> dict[str, Any]:
    """Return what a run's steps came to: phases, test metrics by phase and domain, the registered version."""
    workspace, run = open_run(run_id)
    names = data_of(workspace, run).domains
    phases = []
    for step in ("backbone", "expert-", "gate"):
        for record in run.steps(step):
            report = record["report"]
            phases.append(
                {
                    "phase": report["phase"],
                    "domain": "all" if report["domain"] is None else str(names[report["domain"]]),
                    "metric": report["metric"],
                    "start": report["start_metric"],
                    "best": report["best_metric"],
                    "epochs": report["epochs"],
                    "helped": report["helped"],
                    "seconds": round(report["seconds"]),
                }
            )
    evaluation, registered = run.result("evaluation"), run.result("registered")
    return {
        "run_id": run_id,
        "phases": phases,
        "test": _test_table(evaluation["metrics"]) if evaluation else [],
        **(registered or {}),
    }


def _test_table(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a domain, one column a phase; the last row is wauc."""
    domains = sorted({domain for phase in metrics.values() for domain in phase["by_domain"]})
    last = list(metrics)[-1]
    table = []
    for domain in domains:
        row: dict[str, Any] = {"domain": domain}
        row["rows"] = metrics[last]["by_domain"].get(domain, {}).get("rows")
        for phase, values in metrics.items():
            row[phase] = values["by_domain"].get(domain, {}).get("auc")
        table.append(row)
    pooled = {"domain": "all (wauc)", "rows": metrics[last]["pooled"]["rows"]}
    return [*table, {**pooled, **{phase: values["wauc"] for phase, values in metrics.items()}}]


def _expert_domains(
    workspace: Workspace, as_of: date, settings: TrainingSettings, training_set_id: str, only: str | None
) -> list[str]:
    """Return the domains with training rows whose verdict is ``rich``; of them, the one asked for."""
    from mmlora.training.dataset import TrainingSet

    if settings.adaptation == "none":
        return []
    verdicts = verdicts_as_of(workspace, as_of)
    rich = {domain for domain, verdict in verdicts.items() if verdict.verdict == "rich"}
    trained = TrainingSet.open(workspace.training_set_folder(training_set_id)).domains
    names = [str(domain) for domain in trained if domain in rich]
    if only is not None and only not in names:
        raise UsageError(
            f"domain {only!r} trains no expert as of {as_of}; these do: {', '.join(names) or 'none'}"
        )
    return names if only is None else [only]


def _choose(settings: TrainingSettings, choices: dict[str, Any]) -> TrainingSettings:
    given = {name: value for name, value in choices.items() if value is not None}
    try:
        chosen = TrainingSettings(**{**settings.model_dump(), **given})
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']} (got {fault['input']!r})"
            for fault in error.errors()
        )
        raise UsageError(f"training: {faults}") from None
    if (chosen.split == "file") != (chosen.split_file is not None):
        raise UsageError("training: the split `file` and a split_file go together; give both or neither")
    if chosen.split == "random" and chosen.features == "all":
        raise UsageError(
            "training: with the split `random`, activity features carry test labels into training rows, so "
            "its metrics would flatter; use the split `time` or `user`, or the features `ids` or `profiles`"
        )
    if chosen.split_file and not chosen.split_file.is_file():
        raise UsageError(f"training: split_file {chosen.split_file} is no file")
    return chosen
