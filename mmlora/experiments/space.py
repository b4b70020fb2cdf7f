"""The ``[tune]`` table of an experiment's file: what is tuned, over which values, for how long.

::

    [tune]
    trials = 30                       # and/or minutes; the command's options win
    backbone = "wdl"
    arm = "moe_mlora"                 # further: data, features, split, seed, gate, experts_per_domain
    [tune.space]                      # all that the arm reads, over SPACE below, when left out
    rank = [2, 4, 8]
    alpha = {low = 1, high = 32, log = true}
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeGuard

from mmlora.experiments.arms import ARMS
from mmlora.experiments.cell import Cell
from mmlora.experiments.grid import AXES, DEFAULTS, check_names, read_table, wrong_values
from mmlora.experiments.source import Source
from mmlora.settings import TrainingSettings

if TYPE_CHECKING:
    from optuna import Trial

Number = int | float
_WHOLE = ("rank", "experts_per_domain")


@dataclass(frozen=True)
class Choices:
    """Some values.

    Attributes:
        values: one of them is taken.
    """

    values: tuple[Number, ...]

    @property
    def probes(self) -> tuple[Number, ...]:
        """Values that are valid only if all are."""
        return self.values

    def suggest(self, trial: Trial, name: str) -> Number:
        """Let a trial take one."""
        return trial.suggest_categorical(name, self.values)


@dataclass(frozen=True)
class Range:
    """All values between two.

    Attributes:
        low: the least.
        high: the greatest.
        log: whether 1 to 10 is as wide as 10 to 100.
    """

    low: Number
    high: Number
    log: bool = False

    @property
    def probes(self) -> tuple[Number, ...]:
        """Values that are valid only if all are."""
        return self.low, self.high

    def suggest(self, trial: Trial, name: str) -> Number:
        """Let a trial take one; a whole number where both ends are, of what has to be one."""
        if name in _WHOLE and isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)


Axis = Choices | Range

SPACE: dict[str, Axis] = {
    # What the backbone reads has few values, so that most trials find theirs trained.
    "dropout": Choices((0.0, 0.2, 0.5)),
    "learning_rate": Choices((3e-4, 1e-3, 3e-3)),
    "weight_decay": Choices((1e-5, 1e-4)),
    "rank": Choices((2, 4, 8, 16)),
    "alpha": Range(1.0, 32.0, log=True),
    "expert_learning_rate": Range(3e-4, 3e-2, log=True),
    "experts_per_domain": Choices((1, 2, 3)),
    "gate_learning_rate": Range(1e-3, 1e-1, log=True),
}


@dataclass(frozen=True)
class Tuning:
    """What is tuned.

    Attributes:
        untuned: the cell as the file has it without tuning.
        space: the values of each parameter.
        trials: at most so many; None for as many as there is time for.
        minutes: no trial begins after them, all runs together; None for as many as the trials need.
    """

    untuned: Cell
    space: Mapping[str, Axis]
    trials: int | None = None
    minutes: float | None = None

    def cell(self, parameters: Mapping[str, Any]) -> Cell:
        """Return the cell with these parameters."""
        settings = {name: value for name, value in parameters.items() if name != "experts_per_domain"}
        experts = parameters.get("experts_per_domain", self.untuned.experts_per_domain)
        return replace(self.untuned, experts_per_domain=experts, settings=settings).canonical()

    def probes(self) -> Iterator[Cell]:
        """Yield cells that can be trained only if every trial can, each parameter taken alone."""
        yield self.untuned
        for name, axis in self.space.items():
            for value in axis.probes:
                yield self.cell({name: value})


def read_tuning(
    raw: Mapping[str, Any], sources: Mapping[str, Source], fixed: Mapping[str, Any], faults: list[str]
) -> Tuning | None:
    """Read the table; None when there is none, or when something is wrong, which goes to ``faults``.

    Args:
        raw: the file.
        sources: its data sets that are right.
        fixed: its ``[settings]``.
        faults: is added to.
    """
    if "tune" not in raw:
        return None
    before, table = len(faults), read_table(raw, "tune", faults)
    check_names("[tune] ", table, ("trials", "minutes", *AXES, "space"), faults)
    named = list(raw["data"]) if isinstance(raw.get("data"), dict) else []
    chosen = {name: values[0] for name, values in DEFAULTS.items()}
    if len(named) == 1:
        chosen["data"] = named[0]
    chosen |= {name: value for name, value in table.items() if name in AXES}
    for name in AXES:
        values = [chosen[name]] if name in chosen else []
        faults += [f"[tune] {name}{fault}" for fault in wrong_values(name, values, named)]
    faults += [f"[tune] {fault}" for fault in wrong_budget(table.get("trials"), table.get("minutes"))]
    given = {
        name: read_axis(name, value, faults) for name, value in read_table(table, "space", faults).items()
    }
    if len(faults) > before:
        return None
    faults += [f"[tune] {fault}" for fault in _unsuited(chosen, sources)]
    parameters = _parameters(chosen["arm"])
    check_names(f"[tune.space] arm {chosen['arm']}: ", given, parameters, faults)
    if len(faults) > before:
        return None
    space = {name: axis for name, axis in given.items() if axis} or _default_space(parameters, fixed)
    untuned = Cell(**chosen).canonical()
    return Tuning(untuned, space, table.get("trials"), table.get("minutes"))


def wrong_budget(trials: Any, minutes: Any) -> Iterator[str]:
    """Yield what is wrong with a budget; None is no limit."""
    if trials is not None and (type(trials) is not int or trials < 1):
        yield f"trials {trials!r}: give a whole number from 1"
    if minutes is not None and (not _is_number(minutes) or minutes <= 0):
        yield f"minutes {minutes!r}: give a number above 0"


def read_axis(name: str, value: Any, faults: list[str]) -> Axis | None:
    """Read the values of a parameter; what is wrong with them goes to ``faults``."""
    where, before = f"[tune.space] {name}", len(faults)
    if isinstance(value, dict):
        check_names(f"{where}: ", value, ("low", "high", "log"), faults)
        low, high, log = value.get("low"), value.get("high"), value.get("log", False)
        if not (_is_number(low) and _is_number(high) and low < high):
            faults.append(f"{where} low {low!r}, high {high!r}: give two numbers, the lower one first")
            return None
        if type(log) is not bool or (log and low <= 0):
            faults.append(f"{where} log {log!r}: valid are true, with low above 0, and false")
        axis: Axis = Range(low, high, log)
    else:
        if not isinstance(value, list) or not value or not all(map(_is_number, value)):
            faults.append(f"{where} is {value!r}: give a list of numbers, or {{low = ..., high = ...}}")
        axis = Choices(tuple(value) if isinstance(value, list) else ())
    if len(faults) == before and name == "experts_per_domain":
        faults += [
            f"{where} {probe!r}: give whole numbers from 1"
            for probe in axis.probes
            if type(probe) is not int or probe < 1
        ]
    return axis if len(faults) == before else None


def _is_number(value: object) -> TypeGuard[Number]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _unsuited(chosen: Mapping[str, Any], sources: Mapping[str, Source]) -> Iterator[str]:
    if chosen["arm"].startswith("placebo"):
        yield f"arm {chosen['arm']}: a placebo is no arm to tune; tune the arm that it is compared with"
    source = sources.get(chosen["data"])
    if source is not None and source.axes:
        yield f"data {source.name}: {', '.join(source.axes)} has several values; tune on data of one"


def _parameters(arm: Any) -> tuple[str, ...]:
    """Return what an arm reads."""
    needs, names = ARMS[arm], ["dropout", "learning_rate", "weight_decay"]
    if needs.experts:
        names += ["rank", "alpha"]
        names += [] if arm == "joint" else ["expert_learning_rate"]
    if needs.several:
        names.append("experts_per_domain")
    if needs.gate and arm != "joint":
        names.append("gate_learning_rate")
    return tuple(names)


def _default_space(parameters: tuple[str, ...], fixed: Mapping[str, Any]) -> dict[str, Axis]:
    space = {name: SPACE[name] for name in parameters}
    widths = fixed.get("hidden_units", TrainingSettings().hidden_units)
    if "rank" in space and widths and all(map(_is_number, widths)):
        fitting = tuple(rank for rank in space["rank"].probes if rank <= min(widths))
        space["rank"] = Choices(fitting or (1,))
    return space
