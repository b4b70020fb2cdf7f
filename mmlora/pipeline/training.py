"""``mmlora train``: training set -> backbone -> experts -> gate -> evaluation -> a registered bundle.

A run's id follows from what was asked and from the data, and each step leaves its parts in the registry and a
record in the run's folder; so the same request finds its finished steps, whoever runs them.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from mmlora.errors import UsageError
from mmlora.pipeline.runs import Run
from mmlora.pipeline.training_set import build_training_set
from mmlora.pipeline.validation import verdicts_as_of
from mmlora.pipeline.workspace import Progress, Workspace, open_workspace, silent
from mmlora.schema import Id, fingerprint
from mmlora.settings import TrainingSettings

if TYPE_CHECKING:
    from mmlora.models.spec import ModelSpec
    from mmlora.training.dataset import TrainingSet
    from mmlora.training.loop import TrainingOptions
    from mmlora.training.observer import EpochRecord, Observer, PhaseName, PhaseReport
    from mmlora.training.phases import Expert, PhaseResult

_OPTIMISATION = (
    *("batch_size", "learning_rate", "expert_learning_rate", "gate_learning_rate", "weight_decay"),
    *("max_epochs", "patience", "seed", "threads"),
)
_SHAPE = ("embedding_dim", "hidden_units", "dropout", "rank", "alpha", "experts_per_domain", "gate")


def prepare(as_of: date, *, progress: Progress = silent, **choices: Any) -> str:
    """Build the training set and open a run for it.

    Args:
        as_of: train on what was known at this day's 00:00 UTC.
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
        **settings.model_dump(mode="json", exclude={"threads"}),
    }
    run_id = fingerprint(config)[:12]
    run = _run(workspace, run_id)
    run.record("config", config)
    spec_of(workspace, run)  # a combination that no model can have is refused before anything is trained
    return run_id


def train_backbone(run_id: str, *, progress: Progress = silent) -> str:
    """Phase 1."""
    from mmlora.training.phases import train_backbone as phase

    workspace, run = open_run(run_id)
    if run.result("backbone") is None:
        data, spec = data_of(workspace, run), spec_of(workspace, run)
        result = phase(spec, data, _options(workspace, run), _observer(data, progress))
        _keep(workspace, run, "backbone", result)
    return run_id


def expert_domains(run_id: str) -> list[str]:
    """Return the domains that train experts of their own: those with rows whose verdict is ``rich``."""
    workspace, run = open_run(run_id)
    if run.config["adaptation"] == "none":
        return []
    verdicts = verdicts_as_of(workspace, date.fromisoformat(run.config["as_of"]))
    rich = {domain for domain, verdict in verdicts.items() if verdict.verdict == "rich"}
    return [str(domain) for domain in data_of(workspace, run).domains if domain in rich]


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
    for slot in range(run.config["experts_per_domain"]):
        if run.result(f"expert-{index:05d}-{slot}") is None:
            result = phase(
                spec_of(workspace, run),
                _part(workspace, run, "backbone"),
                data,
                domain=index,
                slot=slot,
                options=_options(workspace, run),
                observer=_observer(data, progress),
            )
            _keep(workspace, run, f"expert-{index:05d}-{slot}", result)
    return run_id


def train_gate(run_id: str, *, progress: Progress = silent) -> str:
    """Phase 3, where the adaptation has a gate and there are experts to mix."""
    from mmlora.training.phases import train_gate as phase

    workspace, run = open_run(run_id)
    if run.config["adaptation"] == "moe_mlora" and run.result("gate") is None:
        experts = _experts(workspace, run)
        if experts:
            data = data_of(workspace, run)
            result = phase(
                spec_of(workspace, run),
                _part(workspace, run, "backbone"),
                experts,
                data,
                _options(workspace, run),
                _observer(data, progress),
            )
            _keep(workspace, run, "gate", result)
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
    for phase, model in _models(workspace, run):
        calibration = fit_calibration(model, data)
        raw = measure(model, data, "test", calibration).to_dict()
        by_domain = {str(data.domains[int(index)]): row for index, row in raw["by_domain"].items()}
        metrics[phase] = {"wauc": raw["wauc"], "pooled": raw["pooled"], "by_domain": by_domain}
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

    run_id = prepare(as_of, progress=progress, **choices)
    train_backbone(run_id, progress=progress)
    if phase != "backbone":
        for name in [domain] if domain else expert_domains(run_id):
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
                    "seconds": round(report["seconds"], 1),
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
    if chosen.split_file and not chosen.split_file.is_file():
        raise UsageError(f"training: split_file {chosen.split_file} is no file")
    return chosen


def _run(workspace: Workspace, run_id: str) -> Run:
    return Run(workspace.home / "runs" / run_id)


def open_run(run_id: str) -> tuple[Workspace, Run]:
    """Open the workspace and a run in it (``UsageError`` when there is no such run)."""
    workspace = open_workspace()
    run = _run(workspace, run_id)
    run.config  # noqa: B018  says when there is no such run
    return workspace, run


def data_of(workspace: Workspace, run: Run) -> TrainingSet:
    """Open a run's training set."""
    from mmlora.training.dataset import TrainingSet

    return TrainingSet.open(workspace.training_set_folder(run.config["training_set_id"]))


def spec_of(workspace: Workspace, run: Run) -> ModelSpec:
    """Return a run's model specification (``UsageError`` when no model can have it)."""
    from mmlora.models.spec import FieldShape, ModelSpec

    data, config = data_of(workspace, run), run.config
    fields = tuple(FieldShape(*shape) for shape in data.encoder.field_shapes())
    shape = {name: config[name] for name in _SHAPE}
    return ModelSpec(
        backbone=config["backbone"],
        adaptation=config["adaptation"],
        fields=fields,
        num_domains=data.num_domains,
        **{**shape, "hidden_units": tuple(shape["hidden_units"])},
    )


def _options(workspace: Workspace, run: Run) -> TrainingOptions:
    from mmlora.training.loop import TrainingOptions

    config = {**run.config, "threads": workspace.settings.training.threads}
    return TrainingOptions(**{name: config[name] for name in _OPTIMISATION})


def _keep(workspace: Workspace, run: Run, step: str, result: PhaseResult) -> None:
    part = workspace.parts.put_tensors(result.state)
    run.record(step, {"part": part, "report": result.report.to_dict()})


def _part(workspace: Workspace, run: Run, step: str) -> dict[str, Any]:
    record = run.result(step)
    if record is None:
        raise UsageError(f"run {run.run_id} has no {step} yet: train the phases in order")
    return workspace.parts.tensors(record["part"])


def expert_records(run: Run) -> list[tuple[int, int, str]]:
    """Return (domain index, slot, part) of every trained expert, in the gate's order."""
    records = run.steps("expert-")
    return [(r["report"]["domain"], r["report"]["slot"], r["part"]) for r in records]


def _experts(workspace: Workspace, run: Run) -> list[Expert]:
    from mmlora.training.phases import Expert

    return [Expert(domain, slot, workspace.parts.tensors(part)) for domain, slot, part in expert_records(run)]


def _models(workspace: Workspace, run: Run) -> Iterator[tuple[str, Any]]:
    """Yield the model of each phase that was trained, in order."""
    from dataclasses import replace

    from mmlora.models.builder import assemble_model

    spec, backbone = spec_of(workspace, run), _part(workspace, run, "backbone")
    yield "backbone", assemble_model(replace(spec, adaptation="none"), backbone=backbone)
    experts = [(expert.domain, expert.state) for expert in _experts(workspace, run)]
    if experts:
        yield "experts", assemble_model(replace(spec, adaptation="mlora"), backbone=backbone, experts=experts)
    if run.result("gate"):
        gate = _part(workspace, run, "gate")
        yield "gate", assemble_model(spec, backbone=backbone, experts=experts, gate=gate)


class _ProgressObserver:
    """Turns epochs into progress."""

    def __init__(self, names: list[Id], progress: Progress) -> None:
        self.names, self.progress, self.max_epochs = names, progress, 1

    def phase_start(self, phase: PhaseName, domain: int | None, *, rows: int, max_epochs: int) -> None:
        self.max_epochs = max_epochs

    def epoch(self, phase: PhaseName, domain: int | None, record: EpochRecord) -> None:
        self.progress(self._what(phase, domain), record.epoch, self.max_epochs)

    def phase_end(self, report: PhaseReport) -> None:
        self.progress(self._what(report.phase, report.domain), self.max_epochs, self.max_epochs)

    def _what(self, phase: PhaseName, domain: int | None) -> str:
        return f"train {phase}" if domain is None else f"train {phase} of {self.names[domain]}"


def _observer(data: TrainingSet, progress: Progress) -> Observer:
    return _ProgressObserver(data.domains, progress)
