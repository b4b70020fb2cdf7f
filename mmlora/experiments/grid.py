"""Read the grids of an experiment's file: every combination of their axes is a cell."""

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

# Set by a cell itself or by the command. A file of splits is for the rows of one data set only.
_NOT_SETTINGS = {*AXES, "adaptation", "split_file", "id_dropout", *read_by("refit", "machine")}
SETTINGS = tuple(name for name in hyperparameters.SETTINGS if name not in _NOT_SETTINGS)


def read_cells(file: File, sources: Mapping[str, Source], faults: list[str]) -> tuple[Cell, ...]:
    """Return the distinct cells of ``[grid]``, or of several ``[[grids]]``; faults are added to ``faults``.

    They are sorted by seed, so that a run that is stopped leaves complete tables of the first seeds.
    """
    cells: dict[str, Cell] = {}
    for where, raw in _grids(file, faults):
        for cell in _cells(where, raw, sources, list(file.data), faults):
            cells.setdefault(fingerprint(cell.to_json()), cell)
    return tuple(sorted(cells.values(), key=lambda cell: cell.seed))


def _grids(file: File, faults: list[str]) -> list[tuple[str, Mapping[str, Any]]]:
    grids = [
        (f"[[{name}]] {number}" if isinstance(given, list) else f"[{name}]", grid)
        for name, given in (("grid", file.grid), ("grids", file.grids))
        if given is not None
        for number, grid in enumerate(listed(given), 1)
    ]
    if not grids and file.tune is None:
        faults.append("there is no [grid]: give one with the backbones and arms")
    faults += [f"{where} is not a table" for where, grid in grids if not isinstance(grid, dict)]
    return [(where, grid) for where, grid in grids if isinstance(grid, dict)]


def _cells(
    where: str,
    raw: Mapping[str, Any],
    sources: Mapping[str, Source],
    data_names: list[str],
    faults: list[str],
) -> Iterator[Cell]:
    settings = raw.get("settings")
    extra_axes = (
        {name: listed(value) for name, value in settings.items()} if isinstance(settings, dict) else {}
    )
    check_names(f"{where} settings: ", extra_axes, SETTINGS, faults)
    grid = read(Grid, raw, where, faults)
    if grid is None:
        return
    chosen = data_names if grid.data is None else grid.data
    faults += [f"{where} data{fault}" for fault in data_faults(chosen, data_names)]
    faults += [
        f"{where} settings: {name} is empty: give some values"
        for name, values in extra_axes.items()
        if not values
    ]
    if faults:
        return
    axes = {name: getattr(grid, name) for name in AXES if name != "data"} | extra_axes
    for data in chosen:
        for variant, values in itertools.product(sources[data].variants(), itertools.product(*axes.values())):
            cell = dict(zip(axes, values, strict=True))
            extra = {name: cell.pop(name) for name in extra_axes}
            yield Cell(data=data, **cell, settings={**variant, **extra}).canonical()


def data_faults(values: Collection[str], data_names: list[str]) -> Iterator[str]:
    """Yield the faults in names of data sets; a file without data sets is reported elsewhere."""
    if data_names and not values:
        yield f" is missing: give some of {', '.join(data_names)}"
    for value in values:
        if data_names and value not in data_names:
            yield f" {value!r} is unknown: use some of {', '.join(data_names)}"


def check_names(where: str, table: Mapping[str, Any], valid: tuple[str, ...], faults: list[str]) -> None:
    """Add a fault for each name of a table that is not valid."""
    faults += [
        f"{where}{name!r} is unknown: valid are {', '.join(valid)}" for name in table if name not in valid
    ]
