"""The ``[tune]`` table of an experiment's file: what is tuned, the values to try, and the budget.

::

    [tune]
    trials = 30                       # and/or minutes; the command's options take precedence
    backbone = "wdl"
    arm = "moe_mlora"                 # also: data, features, split, seed, gate, experts_per_domain
    [tune.space]                      # default: the declared space of every setting that the arm reads
    rank = [2, 4, 8]
    alpha = {low = 1, high = 32, log = true}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mmlora.experiments.arms import ARMS, ArmName
from mmlora.experiments.cell import EXPERT_SETTINGS, GATE_SETTINGS, Cell
from mmlora.experiments.grid import check_names, data_faults
from mmlora.experiments.source import Source
from mmlora.experiments.tables import AXES, Budget, File, SpaceRange, Tune, is_number, read
from mmlora.hyperparameters import SETTINGS
from mmlora.hyperparameters.search import Choices, Number, Range, Space
from mmlora.hyperparameters.setting import TrainedPart
from mmlora.schema import valid_names

if TYPE_CHECKING:
    from optuna import Trial

SPACE: dict[str, Space] = {
    name: declared.setting.space
    for name, declared in sorted(
        SETTINGS.items(), key=lambda item: valid_names(TrainedPart).index(item[1].setting.read_by[0])
    )
    if declared.setting.space
}
"""The declared spaces, those of the backbone first."""


@dataclass(frozen=True)
class Tuning:
    """A valid ``[tune]`` table.

    Attributes:
        untuned: the cell with the settings of the file.
        space: the values of each parameter.
        trials: maximum number of trials; None for no limit.
        minutes: no trial starts after this time, summed over all runs; None for no limit.
    """

    untuned: Cell
    space: Mapping[str, Space]
    trials: int | None = None
    minutes: float | None = None

    def cell(self, parameters: Mapping[str, Any]) -> Cell:
        """Return the cell with these parameters."""
        settings = {name: value for name, value in parameters.items() if name != "experts_per_domain"}
        experts = parameters.get("experts_per_domain", self.untuned.experts_per_domain)
        return replace(self.untuned, experts_per_domain=experts, settings=settings).canonical()

    def probes(self) -> Iterator[Cell]:
        """Yield the untuned cell, and for each parameter the cells with its extreme values."""
        yield self.untuned
        for name, axis in self.space.items():
            for value in axis.probes:
                yield self.cell({name: value})


def read_tuning(file: File, sources: Mapping[str, Source], faults: list[str]) -> Tuning | None:
    """Read the table; return None if there is none, or if it is invalid.

    Args:
        file: the file.
        sources: its valid data sets.
        faults: the list that faults are added to.
    """
    if file.tune is None:
        return None
    before, raw = len(faults), dict(file.tune)
    data_names, data = list(file.data), raw.get("data")
    if data is None and len(data_names) == 1:
        raw["data"] = data = data_names[0]
    if data is None or isinstance(data, str):
        faults += [f"[tune] data{fault}" for fault in data_faults([] if data is None else [data], data_names)]
    raw_spaces, spaces = raw.get("space"), dict[str, Space | None]()
    if isinstance(raw_spaces, dict):
        spaces = {name: read_space(name, value, faults) for name, value in raw_spaces.items()}
    table = read(Tune, raw, "[tune]", faults)
    if table is None or len(faults) > before:
        return None
    chosen = table.model_dump(include=set(AXES))
    faults += [f"[tune] {fault}" for fault in _unsuited(table, sources)]
    parameters = _parameters(table.arm)
    check_names(f"[tune.space] arm {table.arm}: ", spaces, parameters, faults)
    if len(faults) > before:
        return None
    space = {name: values for name, values in spaces.items() if values}
    space = space or _default_space(parameters, file.settings)
    return Tuning(Cell(**chosen).canonical(), space, table.trials, table.minutes)


def budget_faults(trials: int | None, minutes: float | None) -> list[str]:
    """Return the faults of a budget; None is no limit."""
    faults: list[str] = []
    read(Budget, {"trials": trials, "minutes": minutes}, "", faults)
    return faults


def read_space(name: str, value: object, faults: list[str]) -> Space | None:
    """Read the values of a parameter; return None and add to ``faults`` if they are invalid."""
    where, before = f"[tune.space] {name}", len(faults)
    space: Space
    if isinstance(value, dict):
        check_names(f"{where}: ", value, tuple(SpaceRange.model_fields), faults)
        table = read(SpaceRange, value, where, faults)
        if table is None:
            return None
        space = Range(table.low, table.high, table.log)
    elif isinstance(value, list) and value and all(map(is_number, value)):
        space = Choices(tuple(value))
    else:
        faults.append(f"{where} is {value!r}: give a list of numbers, or {{low = ..., high = ...}}")
        return None
    if name == "experts_per_domain":
        wrong = [probe for probe in space.probes if SETTINGS[name].fault(probe)]
        faults += [f"{where} {probe!r}: give whole numbers from 1" for probe in wrong]
    return space if len(faults) == before else None


def _unsuited(table: Tune, sources: Mapping[str, Source]) -> Iterator[str]:
    if ARMS[table.arm].placebo:
        yield f"arm {table.arm}: a placebo cannot be tuned; tune the arm that it is compared with"
    source = sources.get(table.data or "")
    if source is not None and source.axes:
        yield f"data {source.name}: {', '.join(source.axes)} has several values; give one value to tune on"


def _parameters(arm: ArmName) -> tuple[str, ...]:
    """Return the settings with a declared space that an arm reads."""
    needs, unread = ARMS[arm], set[str]()
    if not needs.experts:
        unread |= EXPERT_SETTINGS
    if not needs.several:
        unread.add("experts_per_domain")
    if not needs.gate:
        unread |= GATE_SETTINGS - {"experts_per_domain"}
    if arm == "joint":  # all parameters have the backbone's learning rate
        unread |= {"expert_learning_rate", "gate_learning_rate"}
    return tuple(name for name in SPACE if name not in unread)


def _default_space(parameters: tuple[str, ...], fixed: Mapping[str, Any]) -> dict[str, Space]:
    space = {name: SPACE[name] for name in parameters}
    widths = fixed.get("hidden_units", SETTINGS["hidden_units"].default)
    if "rank" in space and widths and all(map(is_number, widths)):
        fitting = tuple(rank for rank in space["rank"].probes if rank <= min(widths))
        space["rank"] = Choices(fitting or (1,))
    return space


def suggest(trial: Trial, name: str, values: Space) -> Number:
    """Return a trial's value of a parameter: an integer if the setting and both ends of the range are."""
    if isinstance(values, Choices):
        return trial.suggest_categorical(name, values.values)
    low, high = values.low, values.high
    if SETTINGS[name].may_be_whole and isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(name, low, high, log=values.log)
    return trial.suggest_float(name, low, high, log=values.log)
