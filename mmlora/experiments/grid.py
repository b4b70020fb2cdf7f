"""The grids of an experiment's file: every combination of their axes is a cell."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from mmlora import hyperparameters
from mmlora.experiments.cell import Cell
from mmlora.experiments.source import Source
from mmlora.experiments.tables import AXES, File, Grid, listed, read
from mmlora.hyperparameters import read_by
from mmlora.schema import fingerprint

# What a cell or the command says itself; files of splits name one data set's rows.
_NOT_SETTINGS = {*AXES, "adaptation", "split_file", "id_dropout", *read_by("refit", "machine")}
SETTINGS = tuple(name for name in hyperparameters.SETTINGS if name not in _NOT_SETTINGS)


def read_cells(file: File, sources: Mapping[str, Source], faults: list[str]) -> tuple[Cell, ...]:
    """Return the cells of ``[grid]``, or of several ``[[grid]]``, each once; faults go to ``faults``.

    They are in order of their seeds, so that a run that is stopped leaves whole tables of the first ones.
    """
    found: dict[str, Cell] = {}
    for where, raw in _grids(file, faults):
        for cell in _cells(where, raw, sources, list(file.data), faults):
            found.setdefault(fingerprint(cell.to_json()), cell)
    return tuple(sorted(found.values(), key=lambda cell: cell.seed))


def _grids(file: File, faults: list[str]) -> list[tuple[str, Mapping[str, Any]]]:
    grids = [
        (f"[[{name}]] {number}" if isinstance(given, list) else f"[{name}]", grid)
        for name, given in (("grid", file.grid), ("grids", file.grids))
        if given is not None
        for number, grid in enumerate(listed(given), 1)
    ]
    if not grids and file.tune is None:
        faults.append("there is no [grid]: say which backbones and arms")
    faults += [f"{where} is no table" for where, grid in grids if not isinstance(grid, dict)]
    return [(where, grid) for where, grid in grids if isinstance(grid, dict)]


def _cells(
    where: str, raw: Mapping[str, Any], sources: Mapping[str, Source], named: list[str], faults: list[str]
) -> Iterator[Cell]:
    given = raw.get("settings")
    further = {name: listed(value) for name, value in given.items()} if isinstance(given, dict) else {}
    check_names(f"{where} settings: ", further, SETTINGS, faults)
    grid = read(Grid, raw, where, faults)
    if grid is None:
        return
    chosen = named if grid.data is None else grid.data
    faults += [f"{where} data{fault}" for fault in wrong_data(chosen, named)]
    faults += [
        f"{where} settings: {n} is empty: give some values" for n, found in further.items() if not found
    ]
    if faults:
        return
    axes = {name: getattr(grid, name) for name in AXES if name != "data"} | further
    for data in chosen:
        for variant, values in itertools.product(sources[data].variants(), itertools.product(*axes.values())):
            cell = dict(zip(axes, values, strict=True))
            more = {name: cell.pop(name) for name in further}
            yield Cell(data=data, **cell, settings={**variant, **more}).canonical()


def wrong_data(values: Collection[str], named: list[str]) -> Iterator[str]:
    """Yield what is wrong with names of data sets; nothing where the file has none, which is said once."""
    if named and not values:
        yield f" is missing: give some of {', '.join(named)}"
    for value in values:
        if named and value not in named:
            yield f" {value!r} is unknown: use some of {', '.join(named)}"


def check_names(where: str, table: Mapping[str, Any], valid: tuple[str, ...], faults: list[str]) -> None:
    """Note the names of a table that mean nothing."""
    faults += [
        f"{where}{name!r} is unknown: valid are {', '.join(valid)}" for name in table if name not in valid
    ]
