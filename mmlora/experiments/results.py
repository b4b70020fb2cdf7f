"""Results: the ``result.json`` in the folder of a cell or a trial, which is there once that is done."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmlora.files import write_atomically

RESULT = "result.json"


def cell_folder(folder: Path, key: str) -> Path:
    """Return where an experiment keeps a cell."""
    return folder / "cells" / key


def is_done(place: Path) -> bool:
    """Return whether the cell or trial of a folder has a result."""
    return (place / RESULT).exists()


def read_result(place: Path) -> dict[str, Any]:
    """Read the result in a cell's or trial's folder."""
    result: dict[str, Any] = json.loads((place / RESULT).read_text(encoding="utf-8"))
    return result


def write_result(place: Path, result: Mapping[str, Any]) -> None:
    """Write a result into a cell's or trial's folder, whole or not at all."""
    write_atomically(place / RESULT, (json.dumps(result, indent=1, allow_nan=False) + "\n"))


def summary_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a table shows of a cell."""
    cell, test = result["cell"], result["test"]
    shown = {name: value for name, value in cell.items() if name != "settings"}
    figures = {name: test[name] for name in ("wauc", "gauc", "logloss")}
    return {**shown, **cell["settings"], **figures, "seconds": round(result["seconds"]["total"])}
