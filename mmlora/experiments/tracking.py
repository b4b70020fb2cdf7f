"""Track each cell and trial as an MLflow run with its settings and its test or validation metrics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mmlora.experiments.results import Result, read_result, write_result
from mmlora.registry.tracking import Point, Tracking
from mmlora.workspace import Workspace

_TAGS = ("cell_key", "data_key", "study", "trial")


def open_tracking(workspace: Workspace, experiment: str) -> Tracking:
    """Return a workspace's MLflow tracking, under the name of an experiment."""
    return Tracking(workspace.mlflow_url, workspace.home / "mlartifacts", experiment)


def track(tracking: Tracking, folder: Path) -> None:
    """Write a result to MLflow and the id of its run into the result, unless it has one.

    Args:
        tracking: the experiment's tracking.
        folder: the folder of the cell or trial.

    Raises:
        TransientError: MLflow does not answer; the result is unchanged.
    """
    result = read_result(folder)
    if result["mlflow_run_id"] is not None:
        return
    cell, facts = result["cell"], dict[str, object](result)
    name = f"{cell['data']} {cell['backbone']} {cell['arm']} {cell['seed']}"
    run_id = tracking.start_run(
        f"{name}, trial {result['trial']}" if "trial" in result else name,
        params={
            **{n: v for n, v in cell.items() if n != "settings"},
            **result["settings"],
            **cell["settings"],
        },
        tags={tag: str(facts[tag]) for tag in _TAGS if tag in facts},
    )
    tracking.log_points(run_id, _points(result))
    tracking.end_run(run_id)
    result["mlflow_run_id"] = run_id
    write_result(folder, result)


def _points(result: Result) -> Iterator[Point]:
    figures = {name: value for name, value in result.get("test", {}).items() if isinstance(value, float)}
    for name, value in figures.items():
        yield Point("test", name, 0, value)
    for domain, own in result.get("by_domain", {}).items():
        if own["auc"] is not None:
            yield Point("test", "auc", 0, own["auc"], domain)
    if result["validation_wauc"] is not None:
        yield Point("validation", "wauc", 0, result["validation_wauc"])
    for phase, seconds in result["seconds"].items():
        yield Point("seconds", phase, 0, seconds)
