"""How a setting is declared, once: its type, range, default, help, and the step whose result depends on it.

A declaration is a field of a dataclass, ``Annotated`` with :class:`Bounds` and a :class:`Setting`. It is
cheap to import, because the command line's ``--help`` and the DAG files read it.
"""

import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from mmlora.hyperparameters.search import Move, Space

TrainedPart = Literal["data", "crosses", "backbone", "expert", "gate", "refit", "machine"]


@dataclass(frozen=True)
class Bounds:
    """The range of a number, or of each number of a tuple, which may not be empty.

    It follows ``annotated_types.GroupedMetadata``, so pydantic checks it too.
    """

    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    __is_annotated_types_grouped_metadata__ = True

    def __iter__(self) -> Iterator[object]:
        """Yield the bounds as pydantic reads them."""
        from annotated_types import Ge, Gt, Lt

        for kind, bound in ((Gt, self.gt), (Ge, self.ge), (Lt, self.lt)):
            if bound is not None:
                yield kind(bound)

    def holds(self, number: float) -> bool:
        """Return whether a number is in the range; NaN never is."""
        above = (self.gt is None or number > self.gt) and (self.ge is None or number >= self.ge)
        return above and (self.lt is None or number < self.lt)

    @property
    def least(self) -> float:
        """The lower bound."""
        return next((bound for bound in (self.ge, self.gt) if bound is not None), float("-inf"))

    def __str__(self) -> str:
        if self.lt is not None:
            return f"in {'(' if self.ge is None else '['}{self.least}, {self.lt})"
        return f"above {self.least}" if self.ge is None else f"{self.least} or more"


@dataclass(frozen=True)
class Setting:
    """What a field of a declaration means.

    Attributes:
        help: what it is: in ``mmlora train --help``, in the training DAG's form and in ``mmlora.toml``.
        read_by: the steps that read it; every later step depends on it through their results.
        offered: whether it is an option of ``mmlora train``, and in the DAG's form.
        switch: the option of a true/false setting, if it is not ``--name/--no-name``.
        valid: what is valid, if the bounds alone do not say it.
        pattern: regular expression of a valid text; empty for any.
        example: a value of a setting that is unset by default.
        tuned: how ``mmlora train --tune`` changes it; None leaves it alone.
        space: the values that ``mmlora experiment tune`` tries by default; None leaves it alone.
        late: whether it was added after runs had been stored: while it has its default it is left out of
            every key and record, so that those runs, their steps and model versions keep their ids.
    """

    help: str
    read_by: tuple[TrainedPart, ...]
    offered: bool = False
    switch: str = ""
    valid: str = ""
    pattern: str = ""
    example: object = None
    tuned: Move | None = None
    space: Space | None = None
    late: bool = False

    @property
    def sentence(self) -> str:
        """The help as a sentence."""
        return f"{self.help[0].upper()}{self.help[1:]}."


@dataclass(frozen=True)
class Declared:
    """A field of a declaration, parsed.

    Attributes:
        name: the setting's name.
        type: its type, with bounds.
        default: its default.
        setting: what it means; empty for a field that is not a setting.
    """

    name: str
    type: Any
    default: Any
    setting: Setting

    @property
    def plain(self) -> Any:
        """The type as a form asks for it: without bounds and None, and float rather than int or float."""
        kinds = [kind for kind in map(_bare, _members(self.type)) if kind is not type(None)]
        return float if float in kinds else kinds[0]

    @property
    def may_be_whole(self) -> bool:
        """Whether whole numbers have a meaning of their own, different from the equal float."""
        return int in map(_bare, _members(self.type))

    @property
    def bounds(self) -> Bounds | None:
        """The range of a number, or of all numbers of a union; None if it is not bounded."""
        ranges = [bounds for kind in _members(self.type) for bounds in _bounds(kind)]
        if len(ranges) > 1:
            lowest = min(ranges, key=lambda bounds: bounds.least)
            return Bounds(gt=lowest.gt, ge=lowest.ge)
        return ranges[0] if ranges else None

    def fault(self, value: object) -> str | None:
        """Return what is wrong with a value, or None if it is valid."""
        if _fits(self.type, value) and (
            not self.setting.pattern or re.fullmatch(self.setting.pattern, str(value))
        ):
            return None
        literal = get_args(self.plain) if get_origin(self.plain) is Literal else ()
        if literal:
            return f"{self.name} {value!r} is unknown: use one of {', '.join(literal)}"
        return (
            f"{self.name} is {value}: it must be {self.setting.valid or self.bounds or self.plain.__name__}"
        )


_NO_SETTING = Setting("", ())


@cache
def declared(declaration: Any) -> Mapping[str, Declared]:
    """Return the fields of a declaration by name, in order."""
    hints, by_name = get_type_hints(declaration, include_extras=True), {}
    for field in fields(declaration):
        hint = hints[field.name]
        setting = next((part for part in get_args(hint)[1:] if isinstance(part, Setting)), _NO_SETTING)
        by_name[field.name] = Declared(field.name, hint, field.default, setting)
    return by_name


def faults_in(values: Any) -> list[str]:
    """Return what is wrong with the fields of a dataclass: unknown names, numbers out of range."""
    kind = type(values)
    faults = (one.fault(getattr(values, name)) for name, one in declared(kind).items())  # type: ignore[arg-type]
    return [fault for fault in faults if fault is not None]


def _members(kind: Any) -> tuple[Any, ...]:
    """Return the types of a union, each with the bounds around it; a single type counts as a union of one."""
    inner, *around = get_args(kind) if get_origin(kind) is Annotated else (kind,)
    if get_origin(inner) not in (Union, types.UnionType):
        return (kind,)
    return tuple(Annotated[(member, *around)] if around else member for member in get_args(inner))


def _bare(kind: Any) -> Any:
    return _bare(get_args(kind)[0]) if get_origin(kind) is Annotated else kind


def _bounds(kind: Any) -> list[Bounds]:
    """Return the bounds around a type."""
    if get_origin(kind) is not Annotated or _bare(kind) is type(None):
        return []
    inner, *metadata = get_args(kind)
    return [*_bounds(inner), *(part for part in metadata if isinstance(part, Bounds))]


def _fits(kind: Any, value: object) -> bool:
    members = _members(kind)
    if len(members) > 1:
        return any(_fits(member, value) for member in members)
    bare, origin = _bare(kind), get_origin(_bare(kind))
    if origin is Literal:
        return value in get_args(bare)
    if bare is type(None):
        return value is None
    if origin is tuple:
        numbers = value if isinstance(value, tuple | list) else ()
        return bool(numbers) and all(_fits(get_args(bare)[0], number) for number in numbers)
    if bare in (int, float):
        whole = isinstance(value, int) and not isinstance(value, bool)
        right = whole or (bare is float and isinstance(value, float))
        return right and all(bounds.holds(value) for bounds in _bounds(kind))  # type: ignore[arg-type]
    return bare not in (bool, str, Path) or isinstance(value, bare)
