"""The tables of an experiment's file as pydantic models, and the messages for invalid ones.

A field's description says what is valid, so that a message names the field, its value and what is valid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, TypeGuard, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from mmlora.experiments.arms import ArmName
from mmlora.hyperparameters.search import Number
from mmlora.names import FeatureGroup, GateInput, NetworkName, RuleSplit, valid_names

AnyTable = TypeVar("AnyTable", bound="FileTable")


class FileTable(BaseModel):
    """A table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @classmethod
    def say(cls, fault: ErrorDetails) -> str:
        """Return the text of a fault."""
        name, value = str(fault["loc"][0]) if fault["loc"] else "", quoted(fault["input"])
        field = cls.model_fields.get(name)
        advice = (field and field.description) or ""
        match fault["type"]:
            case "extra_forbidden":
                return f"{name!r} is unknown: valid are {', '.join(cls.model_fields)}"
            case "missing":
                return f"{name} is missing: {advice}"
            case "too_short":
                return f"{name} is empty: {advice}"
            case "literal_error":
                return f"{name} {value} is unknown: {advice}"
            case "whole_message":
                return fault["msg"]
        return f"{name} {value}: {advice}"


def read(model: type[AnyTable], raw: Mapping[str, Any], where: str, faults: list[str]) -> AnyTable | None:
    """Read a table; return None if it is invalid.

    Args:
        model: model of the table.
        raw: the table.
        where: name of the table in the file; empty for the file itself.
        faults: the list that faults are added to.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        faults += [f"{where} {model.say(fault)}".strip() for fault in error.errors()]
        return None


def read_valid(model: type[AnyTable], raw: Mapping[str, Any], faults: list[str]) -> AnyTable:
    """Read the valid fields of the file itself, and add the faults of the others to ``faults``."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        faults += [model.say(fault) for fault in error.errors()]
        invalid = {fault["loc"][0] for fault in error.errors()}
        return model.model_validate({name: value for name, value in raw.items() if name not in invalid})


def whole_message(text: str) -> PydanticCustomError:
    """Return a validator's error whose text is the whole message."""
    return PydanticCustomError("whole_message", "{text}", {"text": text})


def quoted(value: object) -> str:
    """Return a value as text for a message."""
    return repr(str(value)) if isinstance(value, date) else repr(value)


def listed(value: Any) -> list[Any]:
    """Return the values of an axis, which may be a single value instead of a list."""
    return value if isinstance(value, list) else [value]


def _some(*names: str) -> str:
    return f"use some of {', '.join(names)}"


_WHOLE_FROM_0, _WHOLE_FROM_1 = "give whole numbers from 0", "give whole numbers from 1"
From0 = Annotated[int, Field(ge=0)]
From1 = Annotated[int, Field(ge=1)]
_Value = TypeVar("_Value")
Several = Annotated[list[_Value], BeforeValidator(listed), Field(min_length=1)]


class File(FileTable):
    """The file itself; its tables are read separately."""

    title: str = Field("", description="give a text")
    description: str = Field("", description="give a text")
    data: dict[str, object] = Field({}, description="give a table such as [data.gender]")
    grid: dict[str, object] | list[object] | None = Field(None, description="give a table, [grid]")
    grids: dict[str, object] | list[object] | None = Field(None, description="give tables, [[grids]]")
    settings: dict[str, object] = Field({}, description="give a table, [settings]")
    tune: dict[str, object] | None = Field(None, description="give a table, [tune]")


class Grid(FileTable):
    """A ``[grid]``: every combination of its axes is a cell."""

    data: Several[str] | None = Field(None, description="use some of the file's data sets")
    features: Several[FeatureGroup] = Field(["ids"], description=_some(*valid_names(FeatureGroup)))
    backbone: Several[NetworkName] = Field(description=_some(*valid_names(NetworkName)))
    arm: Several[ArmName] = Field(description=_some(*valid_names(ArmName)))
    experts_per_domain: Several[From1] = Field([1], description=_WHOLE_FROM_1)
    gate: Several[GateInput] = Field(["domain"], description=_some(*valid_names(GateInput)))
    split: Several[RuleSplit] = Field(["random"], description=_some(*valid_names(RuleSplit)))
    seed: Several[From0] = Field([0], description=_WHOLE_FROM_0)
    settings: dict[str, object] = Field({}, description="give a table, [grid.settings]")


AXES: tuple[str, ...] = tuple(name for name in Grid.model_fields if name != "settings")
"""The fields of a cell, except its settings."""


class Budget(FileTable):
    """The budget of tuning."""

    trials: From1 | None = Field(None, description="give a whole number from 1")
    minutes: Annotated[float, Field(gt=0)] | None = Field(None, description="give a number above 0")


class Tune(Budget):
    """A ``[tune]``: a cell, and the settings of it that vary."""

    data: str | None = Field(None, description="use one of the file's data sets")
    features: FeatureGroup = Field("ids", description=_some(*valid_names(FeatureGroup)))
    backbone: NetworkName = Field(description=_some(*valid_names(NetworkName)))
    arm: ArmName = Field(description=_some(*valid_names(ArmName)))
    experts_per_domain: From1 = Field(1, description=_WHOLE_FROM_1)
    gate: GateInput = Field("domain", description=_some(*valid_names(GateInput)))
    split: RuleSplit = Field("random", description=_some(*valid_names(RuleSplit)))
    seed: From0 = Field(0, description=_WHOLE_FROM_0)
    space: dict[str, object] = Field({}, description="give a table, [tune.space]")


class SpaceRange(FileTable):
    """A range of values in ``[tune.space]``."""

    model_config = ConfigDict(extra="ignore")  # read_space checks the names

    low: Any = None
    high: Any = Field(None, validate_default=True)
    log: Any = False

    @field_validator("high")
    @classmethod
    def _check_ends(cls, high: Any, info: ValidationInfo) -> Any:
        low = info.data.get("low")
        if not (is_number(low) and is_number(high) and low < high):
            raise whole_message(f"low {low!r}, high {high!r}: give two numbers, the lower one first")
        return high

    @field_validator("log")
    @classmethod
    def _check_log(cls, log: Any, info: ValidationInfo) -> Any:
        low = info.data.get("low")
        if type(log) is not bool or (log and is_number(low) and low <= 0):
            raise whole_message(f"log {log!r}: valid are true, with low above 0, and false")
        return log


def is_number(value: object) -> TypeGuard[Number]:
    """Whether a value of the file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
