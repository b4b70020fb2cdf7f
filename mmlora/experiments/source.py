"""Where an experiment's data comes from: a ``[data.NAME]`` table of its file."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

from mmlora.data.movielens import DomainBy
from mmlora.data.synthetic import Dials
from mmlora.errors import UsageError
from mmlora.schema import fingerprint, valid_names
from mmlora.workspace import open_workspace

SourceName = Literal["movielens", "synthetic", "taobao", "workspace"]
_DIALS = tuple(dial.name for dial in fields(Dials))
_ARGUMENTS: dict[SourceName, tuple[str, ...]] = {
    "movielens": ("domain_by", "positive_rating", "path"),
    "synthetic": _DIALS,
    "taobao": ("path", "themes", "seed"),
    "workspace": ("as_of",),
}
_NUMBERS = ("diversity", "sparsity")
_WHOLE = tuple(name for name in (*_DIALS, "themes") if name not in _NUMBERS)
# A dial that would be taken for a cell's own seed.
_SHOWN_AS = {"seed": "data_seed"}


@dataclass(frozen=True)
class Source:
    """A data set, or several that differ in a dial.

    Attributes:
        name: its name in the file.
        kind: who makes it.
        arguments: of one value each.
        axes: dials of several values: an axis of the grid each.
    """

    name: str
    kind: SourceName
    arguments: Mapping[str, Any]
    axes: Mapping[str, list[Any]]

    def variants(self) -> Iterator[dict[str, Any]]:
        """Yield the values of the axes, each combination once, by the names that cells show."""
        names = [_SHOWN_AS.get(name, name) for name in self.axes]
        for values in itertools.product(*self.axes.values()):
            yield dict(zip(names, values, strict=True))

    def definition(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return all that makes a cell's data, given the cell's settings."""
        own = {name: settings[_SHOWN_AS.get(name, name)] for name in self.axes}
        if self.kind == "workspace":
            own["stored"] = open_workspace().store.fingerprint()  # other rows make other cells
        elif "path" in self.arguments:
            own["stored"] = _stored(Path(self.arguments["path"]))
        return {"source": self.kind, **self.arguments, **own}

    def folder_name(self, settings: Mapping[str, Any]) -> str:
        """Return the name of the data's workspace."""
        return f"data-{self.name}-{fingerprint(self.definition(settings))[:8]}"

    def is_dial(self, name: str) -> bool:
        """Whether a cell's setting is one of this source's dials."""
        return name in {_SHOWN_AS.get(axis, axis) for axis in self.axes}


def _stored(path: Path) -> str:
    """Return what changes when a file, or one of a folder, does: names, sizes and times of writing."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    stats = [(str(file.relative_to(path)), file.stat()) for file in files if file.exists()]
    return fingerprint([[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats])


def read_source(name: str, table: Mapping[str, Any], faults: list[str]) -> Source | None:
    """Read a table; what is wrong with it goes to ``faults``."""
    where = f"[data.{name}]"
    kind = table.get("source")
    if not isinstance(kind, str) or kind not in _ARGUMENTS:
        said = "is missing" if kind is None else repr(kind)
        faults.append(f"{where} source {said}: use one of {', '.join(_ARGUMENTS)}")
        return None
    given = {key: value for key, value in table.items() if key != "source"}
    unknown = sorted(given.keys() - set(_ARGUMENTS[kind]))
    if unknown:
        faults.append(f"{where} {', '.join(unknown)}: source {kind} takes {', '.join(_ARGUMENTS[kind])}")
        return None
    axes = {key: value for key, value in given.items() if isinstance(value, list)}
    if axes and kind != "synthetic":
        faults.append(f"{where} {', '.join(axes)}: only the dials of synthetic data take several values")
        return None
    arguments = {key: value for key, value in given.items() if key not in axes}
    source = Source(name, kind, arguments, axes)
    wrong = list(_wrong_kinds(source)) or list(_wrong_values(source))
    faults += [f"{where} {fault}" for fault in wrong]
    return source


def _wrong_kinds(source: Source) -> Iterator[str]:
    """Yield what isn't of the kind that it has to be, whatever its value."""
    several = {**source.axes, **{name: [value] for name, value in source.arguments.items()}}
    for name, values in several.items():
        if not values:
            yield f"{name} is empty: give one value or more"
        for value in values:
            least = 0 if name == "seed" else 1
            if name in _WHOLE and (type(value) is not int or value < least):
                yield f"{name} {value!r}: give a whole number from {least}"
            elif name in _NUMBERS and type(value) not in (int, float):
                yield f"{name} {value!r}: give a number from 0 to 1"
            elif name == "path" and not isinstance(value, str):
                yield f"path {value!r}: give a text in quotes"


def _wrong_values(source: Source) -> Iterator[str]:
    if source.kind == "movielens":
        domain_by, rating = (
            source.arguments.get(k, v) for k, v in (("domain_by", "gender"), ("positive_rating", 5))
        )
        if domain_by not in valid_names(DomainBy):
            yield f"domain_by {domain_by!r}: use one of {', '.join(valid_names(DomainBy))}"
        if rating not in range(1, 6):
            yield f"positive_rating {rating!r}: valid are 1 to 5"
    elif source.kind == "taobao" and "path" not in source.arguments:
        yield "path is missing: the folder of the theme click log"
    elif source.kind == "workspace":
        as_of = source.arguments.get("as_of")
        if not isinstance(as_of, date) or isinstance(as_of, datetime):  # a datetime is a date, too
            said = "is missing" if as_of is None else repr(str(as_of))
            yield f"as_of {said}: give a date without quotes, e.g. as_of = 2001-01-01"
    elif source.kind == "synthetic":
        for variant in source.variants():
            dials = {key: value for key, value in source.definition(variant).items() if key != "source"}
            try:
                Dials(**dials).check()
            except UsageError as error:
                yield f"{error} (given {dials})"
