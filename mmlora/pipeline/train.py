"""``mmlora train``: training set -> backbone -> experts -> gate -> evaluation -> judgement -> a
registered bundle.

A run's id follows from what was asked and from the data, and each step leaves its parts in the registry and a
record in the run's folder; so the same request finds its finished steps, whoever runs them.
"""

from __future__ import annotations

import logging
from datetime import date
from typing import Any

from mmlora.errors import UsageError
from mmlora.runs.exchange import exchange_report
from mmlora.runs.steps import evaluate, expert_domains, prepare, train_backbone, train_expert, train_gate
from mmlora.runs.training_run import base_of, data_of, open_run
from mmlora.workspace import Progress, silent

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
    **choices: Any,
) -> dict[str, Any]:
    """Run the steps up to ``phase`` (``backbone``, ``experts``, ``gate`` or ``all``) and sum them up.

    Args:
        as_of: see :func:`prepare`.
        phase: the last phase; ``all`` also evaluates, judges, trains on all rows and registers.
        domain: train only this domain's experts.
        base: train them on this model version (or ``champion``); goes with the phase ``experts``, and also
            evaluates, judges and registers, as nothing else is to be trained.
        accept_below_baseline: see :func:`~mmlora.runs.registering.register`.
        tune_minutes: see :func:`~mmlora.runs.tuning.tune`; goes with ``all`` and without a base.
        progress: told how far each step is.
        choices: see :func:`prepare`.
    """
    from mmlora.runs.judging import judge
    from mmlora.runs.refitting import refit
    from mmlora.runs.registering import register
    from mmlora.runs.tuning import refuse_tuning, tune

    refuse_tuning(tune_minutes, phase=phase, base=base)
    if base is not None and phase != "experts":
        raise UsageError(f"on a base only experts are trained, not {phase}: mmlora train experts --base ...")
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
        register(run_id, accept_below_baseline=accept_below_baseline)
    return summary(run_id)


def summary(run_id: str) -> dict[str, Any]:
    """Return the outcome of a run's steps: phases, test metrics by phase and domain, judgement, version."""
    workspace, run = open_run(run_id)
    names = data_of(workspace, run).domains
    phases = []
    for step in ("crosses", "backbone", "expert-", "gate"):
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
    metrics = evaluation["metrics"] if evaluation else {}
    result = {
        "run_id": run_id,
        "phases": phases,
        "test": _test_table(metrics),
        "metrics": metrics,
        "judgement": run.result("judgement"),
        "tuning": run.result("tuning"),
        **(registered or {}),
    }
    base = base_of(workspace, run)
    if base is not None and registered:
        (domain,) = run.config.expert_domains
        after = workspace.bundles.load(registered["model_version"])
        result["exchange"] = exchange_report(base, after, workspace.domain(domain))
    return result


def _test_table(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a domain, one column a phase; the last row is wauc."""
    if not metrics:
        return []
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
