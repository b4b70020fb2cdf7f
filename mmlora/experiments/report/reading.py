"""Read an experiment's folder: its cells (one trained and tested arm each) and the test rows they share.

::

    cells/<cell_key>/result.json, scores.npy       the cell, and its probabilities of the test rows
    data/<data_key>/label.npy, domain.npy, user.npy, domains.json       those rows, and what their domains are

A cell that can't be used is left out and named among the problems: a report of what there is beats none.
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
        name: its name.
        train_rows: rows it was trained on.
        test_rows: rows it is tested on.
        users: users it has.
        items: items it has.
        density: share of its user-item pairs that have a row.
    """

    name: str
    train_rows: int
    test_rows: int
    users: int
    items: int
    density: float


@dataclass(frozen=True, eq=False)
class ScoredRows:
    """The test rows that cells of one data key share.

    Attributes:
        label: 0/1, ``[N]``.
        domain: index into ``domains``, ``[N]``.
        user: user code, ``[N]``; one code is one user in every ``ScoredRows`` of a data set.
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
        key: names it.
        cell: what was trained, on what.
        data_key: names its test rows.
        scores: probabilities of the test rows, ``[N]``.
        raw: the whole of its ``result.json``.
    """

    key: str
    cell: Cell
    data_key: str
    scores: Array
    raw: Result

    @property
    def best_reachable(self) -> float | None:
        """What the true probability of made-up data scores on the test rows; None where nobody knows it."""
        found = self.raw.get("best_reachable")
        return None if found is None else found["wauc"]


@dataclass(frozen=True)
class Problem:
    """A cell that the report is without.

    Attributes:
        cell: its key or what it would be.
        why: what is wrong with it.
    """

    cell: str
    why: str


@dataclass(frozen=True, eq=False)
class Results:
    """All that was read of an experiment.

    Attributes:
        cells: the usable cells, in the order of their keys.
        rows: test rows by data key.
        problems: cells that can't be used, and those still to be run.
    """

    cells: tuple[CellResult, ...]
    rows: Mapping[str, ScoredRows]
    problems: tuple[Problem, ...]


def read_results(folder: Path, planned: Mapping[str, Cell] | None = None) -> Results:
    """Return the cells under a folder.

    Args:
        folder: the experiment's folder.
        planned: every cell of the grid by its key: those not yet run are named, and
            what else the folder has, from another grid, is left out. None takes what the folder has.

    Raises:
        UsageError: there is no finished cell in the folder.
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
            what = str(planned[path.name]) if path.name in planned else path.name
            problems.append(Problem(what, _why(path, error)))
        else:
            cells.append(cell)
    names = {path.name for path in present}
    problems += [Problem(str(cell), "not yet run") for key, cell in planned.items() if key not in names]
    if not cells:
        first = "; ".join(f"{problem.cell}: {problem.why}" for problem in problems[:5])
        raise UsageError(
            f"{folder} has no finished cell to report on; run the experiment first. "
            f"{len(problems)} not run or not readable{f', such as {first}' if first else ''}"
        )
    return Results(tuple(cells), rows, tuple(problems))


def _why(path: Path, error: Exception) -> str:
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
    domains = tuple(Domain(**{name: each[name] for name in fields}) for each in raw)
    label, domain, user = (np.load(path / f"{name}.npy") for name in ("label", "domain", "user"))
    return ScoredRows(label, domain, user, domains)


def _check(cell: CellResult, rows: ScoredRows) -> None:
    """Raise where the scores aren't ones of the rows."""
    if cell.scores.shape != rows.label.shape:
        raise ValueError(f"{cell.scores.shape} scores for {rows.label.shape} test rows")
    if np.isnan(cell.scores).any():
        raise ValueError(f"{int(np.isnan(cell.scores).sum()):,} scores are NaN")
