"""Read and write ``result.json``, which is in the folder of a cell or trial once that is done."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from mmlora.files import write_atomically

RESULT = "result.json"


class PhasesHelped(TypedDict):
    """How many experts helped, out of how many, and whether the gate did; None without a gate."""

    experts: int
    of: int
    gate: bool | None


class ExpertSlot(TypedDict):
    """A domain and the number of one of its experts."""

    domain: str
    slot: int


class GateWeights(TypedDict):
    """The mean weight of each expert over the rows of each domain."""

    experts: list[ExpertSlot]
    rows: dict[str, list[float]]


class BestOnTest(TypedDict):
    """The AUC of the true click probability on the test rows."""

    wauc: float | None
    by_domain: dict[str, float | None]


class TrainedFacts(TypedDict):
    """How a model was trained, in a result."""

    phases: list[dict[str, object]]
    helped: PhasesHelped
    parameters: Mapping[str, int]
    parts: Mapping[str, object]
    seconds: Mapping[str, float]
    settings: Mapping[str, object]
    code_version: str
    training_revision: int
    mlflow_run_id: str | None


class Result(TrainedFacts):
    """The content of ``result.json``; only a cell's has figures of test rows."""

    cell: Mapping[str, Any]
    validation_wauc: float | None
    study: NotRequired[str]
    trial: NotRequired[int]
    cell_key: NotRequired[str]
    data_key: NotRequired[str]
    test: NotRequired[Mapping[str, Any]]
    by_domain: NotRequired[Mapping[str, Mapping[str, float | None]]]
    gate_weights: NotRequired[GateWeights | None]
    best_reachable: NotRequired[BestOnTest | None]


def cell_folder(experiment: Path, key: str) -> Path:
    """Return the folder of a cell in the folder of its experiment."""
    return experiment / "cells" / key


def is_done(folder: Path) -> bool:
    """Return whether the folder of a cell or trial has a result."""
    return (folder / RESULT).exists()


def read_result(folder: Path) -> Result:
    """Read the result in the folder of a cell or trial."""
    result: Result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    return result


def write_result(folder: Path, result: Result) -> None:
    """Write a result atomically into the folder of a cell or trial."""
    write_atomically(folder / RESULT, (json.dumps(result, indent=1, allow_nan=False) + "\n"))


def summary_of(result: Result) -> dict[str, object]:
    """Return a cell's row in a table of results."""
    cell, test = result["cell"], result["test"]
    axes = {name: value for name, value in cell.items() if name != "settings"}
    figures = {name: test[name] for name in ("wauc", "gauc", "logloss")}
    return {**axes, **cell["settings"], **figures, "seconds": round(result["seconds"]["total"])}
