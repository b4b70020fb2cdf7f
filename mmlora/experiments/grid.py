"""The grids of an experiment's file: every combination of their axes is a cell."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from mmlora.experiments.arms import ArmName
from mmlora.experiments.cell import Cell
from mmlora.experiments.source import Source
from mmlora.names import BackboneName, FeatureGroup, GateInput, SplitName
from mmlora.schema import fingerprint, valid_names
from mmlora.settings import TrainingSettings

AXES: dict[str, tuple[str, ...]] = {
    "data": (),
    "features": valid_names(FeatureGroup),
    "backbone": tuple(name for name in valid_names(BackboneName) if name != "gbdt"),  # which nothing adapts
    "arm": valid_names(ArmName),
    "experts_per_domain": (),
    "gate": valid_names(GateInput),
    "split": tuple(name for name in valid_names(SplitName) if name != "file"),
    "seed": (),
}
"""Valid names of each axis; numbers and the names of data sets are looked at apart."""
DEFAULTS: dict[str, list[Any]] = {
    "features": ["ids"],
    "experts_per_domain": [1],
    "gate": ["domain"],
    "split": ["random"],
    "seed": [0],
}
"""Of axes that a file needn't name."""
# What a cell or the command says itself; files of splits name one data set's rows.
_NOT_SETTINGS = {*AXES, "adaptation", "split_file", "threads", "device", "refit", "id_dropout"}
SETTINGS = tuple(name for name in TrainingSettings.model_fields if name not in _NOT_SETTINGS)


def read_cells(raw: Mapping[str, Any], sources: Mapping[str, Source], faults: list[str]) -> tuple[Cell, ...]:
    """Return the cells of ``[grid]``, or of several ``[[grid]]``, each once; faults go to ``faults``.

    They are in order of their seeds, so that a run that is stopped leaves whole tables of the first ones.
    """
    named = list(raw["data"]) if isinstance(raw.get("data"), dict) else []
    found: dict[str, Cell] = {}
    for where, grid in _grids(raw, faults):
        for cell in _cells(where, grid, sources, named, faults):
            found.setdefault(fingerprint(cell.to_dict()), cell)
    return tuple(sorted(found.values(), key=lambda cell: cell.seed))


def _grids(raw: Mapping[str, Any], faults: list[str]) -> list[tuple[str, Mapping[str, Any]]]:
    grids = [
        (f"[[{name}]] {number}" if isinstance(raw[name], list) else f"[{name}]", grid)
        for name in ("grid", "grids")
        if name in raw
        for number, grid in enumerate(listed(raw[name]), 1)
    ]
    if not grids and "tune" not in raw:
        faults.append("there is no [grid]: say which backbones and arms")
    faults += [f"{where} is no table" for where, grid in grids if not isinstance(grid, dict)]
    return [(where, grid) for where, grid in grids if isinstance(grid, dict)]


def _cells(
    where: str, grid: Mapping[str, Any], sources: Mapping[str, Source], named: list[str], faults: list[str]
) -> Iterator[Cell]:
    check_names(f"{where} ", grid, (*AXES, "settings"), faults)
    axes = {**DEFAULTS, "data": named, **{n: listed(v) for n, v in grid.items() if n in AXES}}
    for name in AXES:
        if name == "data" and not named:  # which is said once, of the file
            continue
        faults += [f"{where} {name}{fault}" for fault in wrong_values(name, axes.get(name, []), named)]
    further = {name: listed(v) for name, v in read_table(grid, "settings", faults).items()}
    check_names(f"{where} settings: ", further, SETTINGS, faults)
    faults += [
        f"{where} settings: {n} is empty: give some values" for n, found in further.items() if not found
    ]
    if faults:
        return
    names = [name for name in AXES if name != "data"]
    for data in axes["data"]:
        for variant in sources[data].variants():
            for chosen in itertools.product(*(axes[name] for name in names), *further.values()):
                given = dict(zip(names, chosen[: len(names)], strict=True))
                more = dict(zip(further, chosen[len(names) :], strict=True))
                yield Cell(data=data, **given, settings={**variant, **more}).canonical()


def wrong_values(name: str, values: list[Any], named: list[str]) -> Iterator[str]:
    """Yield what is wrong with the values of an axis.

    Args:
        name: of the axis.
        values: of it.
        named: the names of the file's data sets.
    """
    valid = tuple(named) if name == "data" else AXES[name]
    least = 1 if name == "experts_per_domain" else 0
    if not values:
        yield f" is missing: give some of {', '.join(valid)}" if valid else " is empty: give whole numbers"
    for value in values:
        if valid and value not in valid:
            yield f" {value!r} is unknown: use some of {', '.join(valid)}"
        elif not valid and (type(value) is not int or value < least):
            yield f" {value!r}: give whole numbers from {least}"


def check_names(where: str, table: Mapping[str, Any], valid: tuple[str, ...], faults: list[str]) -> None:
    """Note the names of a table that mean nothing."""
    faults += [
        f"{where}{name!r} is unknown: valid are {', '.join(valid)}" for name in table if name not in valid
    ]


def read_table(raw: Mapping[str, Any], name: str, faults: list[str]) -> dict[str, Any]:
    """Return a table of the file, empty when it isn't there."""
    table = raw.get(name, {})
    if not isinstance(table, dict):
        faults.append(f"{name} is {table!r}: give a table, [{name}]")
        return {}
    return dict(table)


def listed(value: Any) -> list[Any]:
    """Return the values of an axis; a single one may stand alone."""
    return value if isinstance(value, list) else [value]
