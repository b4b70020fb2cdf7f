"""Results: the ``result.json`` in the folder of a cell or a trial, which is there once that is done."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from mmlora.files import write_atomically

RESULT = "result.json"


class PhasesHelped(TypedDict):
    """How many experts helped, of how many, and whether the gate did; None without one."""

    experts: int
    of: int
    gate: bool | None


class ExpertSlot(TypedDict):
    """Which of a domain's experts it is."""

    domain: str
    slot: int


class GateWeights(TypedDict):
    """Mean weight of each expert over the rows of each domain."""

    experts: list[ExpertSlot]
    rows: dict[str, list[float]]


class BestOnTest(TypedDict):
    """The auc of the true probability on the test rows."""

    wauc: float | None
    by_domain: dict[str, float | None]


class TrainedFacts(TypedDict):
    """What a result says of how it came about."""

    phases: list[dict[str, Any]]
    helped: PhasesHelped
    parameters: Mapping[str, int]
    parts: Mapping[str, object]
    seconds: Mapping[str, float]
    settings: Mapping[str, object]
    code_version: str
    training_revision: int
    mlflow_run_id: str | None


class Result(TrainedFacts):
    """What ``result.json`` holds; a cell has test rows, a trial has none."""

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


def cell_folder(folder: Path, key: str) -> Path:
    """Return where an experiment keeps a cell."""
    return folder / "cells" / key


def is_done(place: Path) -> bool:
    """Return whether the cell or trial of a folder has a result."""
    return (place / RESULT).exists()


def read_result(place: Path) -> Result:
    """Read the result in a cell's or trial's folder."""
    result: Result = json.loads((place / RESULT).read_text(encoding="utf-8"))
    return result


def write_result(place: Path, result: Result) -> None:
    """Write a result into a cell's or trial's folder, whole or not at all."""
    write_atomically(place / RESULT, (json.dumps(result, indent=1, allow_nan=False) + "\n"))


def summary_of(result: Result) -> dict[str, object]:
    """Return what a table shows of a cell."""
    cell, test = result["cell"], result["test"]
    shown = {name: value for name, value in cell.items() if name != "settings"}
    figures = {name: test[name] for name in ("wauc", "gauc", "logloss")}
    return {**shown, **cell["settings"], **figures, "seconds": round(result["seconds"]["total"])}
