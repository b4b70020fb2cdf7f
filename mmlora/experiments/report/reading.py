"""Read an experiment's folder: its cells (one trained and tested arm each) and the test rows they share.

::

    cells/<cell_key>/result.json, scores.npy       the cell, and its probabilities of the test rows
    data/<data_key>/label.npy, domain.npy, user.npy, domains.json       the test rows, and their domains

A cell that cannot be used is left out and listed among the problems; the report covers the others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmlora.errors import DataError, UsageError
from mmlora.experiments.cell import Cell
from mmlora.experiments.results import Result, is_done, read_result

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Domain:
    """A domain of a data set, in the split of one seed.

    Attributes:
        name: the domain.
        train_rows: number of training rows.
        test_rows: number of test rows.
        users: number of users in the training rows.
        items: number of items in the training rows.
        density: training rows over users times items.
    """

    name: str
    train_rows: int
    test_rows: int
    users: int
    items: int
    density: float


@dataclass(frozen=True, eq=False)
class ScoredRows:
    """The test rows of cells with the same data key.

    Attributes:
        label: 0/1, ``[N]``.
        domain: index into ``domains``, ``[N]``.
        user: user code, ``[N]``; a code is the same user in every ``ScoredRows`` of a data set.
        domains: the domains, by index.
    """

    label: Array
    domain: Array
    user: Array
    domains: tuple[Domain, ...]


@dataclass(frozen=True, eq=False)
class CellResult:
    """A cell that was trained and tested.

    Attributes:
        key: name of its folder.
        cell: the cell.
        data_key: key of its test rows.
        scores: probabilities of the test rows, ``[N]``.
        raw: the content of its ``result.json``.
    """

    key: str
    cell: Cell
    data_key: str
    scores: Array
    raw: Result

    @property
    def best_reachable(self) -> float | None:
        """The wauc of the true probability on the test rows; None for data that is not synthetic."""
        best = self.raw.get("best_reachable")
        return None if best is None else best["wauc"]


@dataclass(frozen=True)
class Problem:
    """A cell that is not in the report.

    Attributes:
        cell: the cell, or its key.
        why: the reason.
    """

    cell: str
    why: str


@dataclass(frozen=True, eq=False)
class Results:
    """The results of an experiment.

    Attributes:
        cells: the usable cells, sorted by key.
        rows: test rows by data key.
        problems: cells that cannot be used, and cells that have not been run.
    """

    cells: tuple[CellResult, ...]
    rows: Mapping[str, ScoredRows]
    problems: tuple[Problem, ...]


def read_results(folder: Path, planned: Mapping[str, Cell] | None = None) -> Results:
    """Return the results in a folder.

    Args:
        folder: the experiment's folder.
        planned: every cell of the grid by key. Cells that have not been run are listed as problems, and cells
            of other grids are left out. None takes all cells of the folder.

    Raises:
        UsageError: the folder has no finished cell.
    """
    cells: list[CellResult] = []
    rows: dict[str, ScoredRows] = {}
    problems: list[Problem] = []
    present = sorted(path for path in (folder / "cells").glob("*") if path.is_dir())
    if planned is None:
        planned = {}
    else:
        present = [path for path in present if path.name in planned]
    for path in present:
        try:
            cell = _read_cell(path)
            if cell.data_key not in rows:
                rows[cell.data_key] = _read_rows(folder / "data" / cell.data_key)
            _check(cell, rows[cell.data_key])
        except (OSError, KeyError, ValueError, TypeError, DataError) as error:
            name = str(planned[path.name]) if path.name in planned else path.name
            problems.append(Problem(name, _reason(path, error)))
        else:
            cells.append(cell)
    names = {path.name for path in present}
    problems += [Problem(str(cell), "not yet run") for key, cell in planned.items() if key not in names]
    if not cells:
        first = "; ".join(f"{problem.cell}: {problem.why}" for problem in problems[:5])
        raise UsageError(
            f"{folder} has no finished cell to report on; run the experiment first "
            f"({len(problems)} cells not run or not readable{f', such as {first}' if first else ''})"
        )
    return Results(tuple(cells), rows, tuple(problems))


def _reason(path: Path, error: Exception) -> str:
    if not is_done(path):
        return "no result yet: it failed, was stopped, or is still running"
    return f"can't be read: {error!r}" if isinstance(error, KeyError) else f"can't be read: {error}"


def _read_cell(path: Path) -> CellResult:
    result = read_result(path)
    cell = Cell.from_json(result["cell"])
    return CellResult(path.name, cell, result["data_key"], np.load(path / "scores.npy"), result)


def _read_rows(path: Path) -> ScoredRows:
    raw = json.loads((path / "domains.json").read_text(encoding="utf-8"))["domains"]
    fields = Domain.__dataclass_fields__
    domains = tuple(Domain(**{name: domain[name] for name in fields}) for domain in raw)
    label, domain, user = (np.load(path / f"{name}.npy") for name in ("label", "domain", "user"))
    return ScoredRows(label, domain, user, domains)


def _check(cell: CellResult, rows: ScoredRows) -> None:
    """Raise if the scores do not fit the rows."""
    if cell.scores.shape != rows.label.shape:
        raise ValueError(f"{cell.scores.shape} scores for {rows.label.shape} test rows")
    if np.isnan(cell.scores).any():
        raise ValueError(f"{int(np.isnan(cell.scores).sum()):,} scores are NaN")
