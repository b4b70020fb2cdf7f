"""The sources of an experiment's data: the ``[data.NAME]`` tables of its file."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, create_model
from pydantic_core import ErrorDetails

from mmlora.data.movielens import DomainBy
from mmlora.data.synthetic import Dials
from mmlora.errors import UsageError
from mmlora.experiments.tables import FileTable, From0, From1, Several, quoted, read
from mmlora.schema import fingerprint, valid_names
from mmlora.workspace import open_workspace

SourceName = Literal["movielens", "synthetic", "taobao", "workspace"]


class SourceTable(FileTable):
    """A ``[data.NAME]`` table without its ``source``."""

    @classmethod
    def say(cls, fault: ErrorDetails) -> str:
        """Return the text of a fault."""
        name, field = str(fault["loc"][0]), cls.model_fields.get(str(fault["loc"][0]))
        advice = (field and field.description) or ""
        if fault["type"] == "extra_forbidden":
            return f"{name}: source {cls.__name__.lower()} takes {', '.join(cls.model_fields)}"
        if fault["type"] == "too_short":
            return f"{name} is empty: give one value or more"
        if isinstance(fault["input"], list):
            advice += "; only the dials of synthetic data take several values"
        return (
            super().say(fault) if fault["type"] == "missing" else f"{name} {quoted(fault['input'])}: {advice}"
        )


class MovieLens(SourceTable):
    """MovieLens-1M, from a folder or downloaded."""

    domain_by: DomainBy = Field("gender", description=f"use one of {', '.join(valid_names(DomainBy))}")
    positive_rating: int = Field(5, ge=1, le=5, description="valid are 1 to 5")
    path: str = Field("", description="give a text in quotes")


class Taobao(SourceTable):
    """Taobao's theme click log."""

    path: str = Field(description="give a text in quotes, the folder of the theme click log")
    themes: From1 = Field(1, description="give a whole number from 1")
    seed: From0 = Field(0, description="give a whole number from 0")


class OwnWorkspace(SourceTable):
    """The rows of the current workspace."""

    as_of: date = Field(description="give a date without quotes, e.g. as_of = 2001-01-01")


def _dial(name: str) -> tuple[Any, Any]:
    """Return a dial's type and its field with advice; :class:`Dials` checks the range."""
    if name in ("diversity", "sparsity"):
        return Several[float], Field([], description="give a number from 0 to 1")
    kind = From0 if name == "seed" else From1
    return Several[kind], Field([], description=f"give a whole number from {0 if name == 'seed' else 1}")  # type: ignore[valid-type]


_DIALS: dict[str, Any] = {dial.name: _dial(dial.name) for dial in fields(Dials)}
Synthetic = create_model("Synthetic", __base__=SourceTable, **_DIALS)
_TABLES: dict[SourceName, type[SourceTable]] = {
    "movielens": MovieLens,
    "synthetic": Synthetic,
    "taobao": Taobao,
    "workspace": OwnWorkspace,
}
# In a cell, the name seed means the cell's own seed.
_NAME_IN_CELLS = {"seed": "data_seed"}


@dataclass(frozen=True)
class Source:
    """A data set, or several that differ in a dial.

    Attributes:
        name: name in the file.
        kind: the source.
        arguments: arguments with one value.
        axes: dials with several values, each of which is an axis of the grid.
    """

    name: str
    kind: SourceName
    arguments: Mapping[str, Any]
    axes: Mapping[str, list[object]]

    def variants(self) -> Iterator[dict[str, object]]:
        """Yield every combination of the axes' values, by their names in cells."""
        names = [_NAME_IN_CELLS.get(name, name) for name in self.axes]
        for values in itertools.product(*self.axes.values()):
            yield dict(zip(names, values, strict=True))

    def definition(self, settings: Mapping[str, object]) -> dict[str, object]:
        """Return everything that determines the data of a cell with these settings."""
        own = {name: settings[_NAME_IN_CELLS.get(name, name)] for name in self.axes}
        if self.kind == "workspace":
            own["stored"] = open_workspace().store.fingerprint()  # cells of different rows differ
        elif "path" in self.arguments:
            own["stored"] = _stored(Path(self.arguments["path"]))
        return {"source": self.kind, **self.arguments, **own}

    def folder_name(self, settings: Mapping[str, object]) -> str:
        """Return the name of the data's workspace."""
        return f"data-{self.name}-{fingerprint(self.definition(settings))[:8]}"

    def is_dial(self, name: str) -> bool:
        """Whether a cell's setting is one of this source's dials."""
        return name in {_NAME_IN_CELLS.get(axis, axis) for axis in self.axes}


def _stored(path: Path) -> str:
    """Return a fingerprint of the names, sizes and modification times of a file or a folder's files."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    stats = [(str(file.relative_to(path)), file.stat()) for file in files if file.exists()]
    return fingerprint([[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats])


def read_source(name: str, raw: object, faults: list[str]) -> Source | None:
    """Read a table; return None and add to ``faults`` if it is invalid."""
    where, before = f"[data.{name}]", len(faults)
    given = dict(raw) if isinstance(raw, dict) else {}
    kind = given.pop("source", None)
    if not isinstance(kind, str) or kind not in _TABLES:
        fault = "is missing" if kind is None else repr(kind)
        faults.append(f"{where} source {fault}: use one of {', '.join(_TABLES)}")
        return None
    axes = {key: value for key, value in given.items() if isinstance(value, list)}
    source = Source(name, kind, {key: value for key, value in given.items() if key not in axes}, axes)
    if read(_TABLES[kind], given, where, faults) is not None and kind == "synthetic":
        faults += [f"{where} {fault}" for fault in _dial_faults(source)]
    return source if len(faults) == before else None


def _dial_faults(source: Source) -> Iterator[str]:
    for variant in source.variants():
        definition: Mapping[str, Any] = source.definition(variant)
        dials = {key: value for key, value in definition.items() if key != "source"}
        try:
            Dials(**dials).check()
        except UsageError as error:
            yield f"{error} (given {dials})"
