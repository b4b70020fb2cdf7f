"""The ``[tune]`` table of an experiment's file: what is tuned, over which values, for how long.

::

    [tune]
    trials = 30                       # and/or minutes; the command's options win
    backbone = "wdl"
    arm = "moe_mlora"                 # further: data, features, split, seed, gate, experts_per_domain
    [tune.space]                      # all that the arm reads, over the declared space, when left out
    rank = [2, 4, 8]
    alpha = {low = 1, high = 32, log = true}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mmlora.experiments.arms import ARMS, ArmName
from mmlora.experiments.cell import EXPERT_SETTINGS, GATE_SETTINGS, Cell
from mmlora.experiments.grid import check_names, wrong_data
from mmlora.experiments.source import Source
from mmlora.experiments.tables import AXES, Budget, File, SpaceRange, Tune, is_number, read
from mmlora.hyperparameters import SETTINGS
from mmlora.hyperparameters.search import Choices, Number, Range, Space
from mmlora.hyperparameters.setting import TrainedPart
from mmlora.schema import valid_names

if TYPE_CHECKING:
    from optuna import Trial

SPACE: dict[str, Space] = {
    name: one.setting.space
    for name, one in sorted(
        SETTINGS.items(), key=lambda item: valid_names(TrainedPart).index(item[1].setting.read_by[0])
    )
    if one.setting.space
}
"""The declared spaces, those of the backbone first."""


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
    space: Mapping[str, Space]
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


def read_tuning(file: File, sources: Mapping[str, Source], faults: list[str]) -> Tuning | None:
    """Read the table; None when there is none, or when something is wrong, which goes to ``faults``.

    Args:
        file: the file.
        sources: its data sets that are right.
        faults: is added to.
    """
    if file.tune is None:
        return None
    before, raw = len(faults), dict(file.tune)
    named, data = list(file.data), raw.get("data")
    if data is None and len(named) == 1:
        raw["data"] = data = named[0]
    if data is None or isinstance(data, str):
        faults += [f"[tune] data{fault}" for fault in wrong_data([] if data is None else [data], named)]
    given, spaces = raw.get("space"), dict[str, Space | None]()
    if isinstance(given, dict):
        spaces = {name: read_space(name, value, faults) for name, value in given.items()}
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


def wrong_budget(trials: int | None, minutes: float | None) -> list[str]:
    """Return what is wrong with a budget; None is no limit."""
    faults: list[str] = []
    read(Budget, {"trials": trials, "minutes": minutes}, "", faults)
    return faults


def read_space(name: str, value: object, faults: list[str]) -> Space | None:
    """Read the values of a parameter; what is wrong with them goes to ``faults``."""
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
        yield f"arm {table.arm}: a placebo is no arm to tune; tune the arm that it is compared with"
    source = sources.get(table.data or "")
    if source is not None and source.axes:
        yield f"data {source.name}: {', '.join(source.axes)} has several values; tune on data of one"


def _parameters(arm: ArmName) -> tuple[str, ...]:
    """Return what an arm reads of the settings that have a space."""
    needs, unread = ARMS[arm], set[str]()
    if not needs.experts:
        unread |= EXPERT_SETTINGS
    if not needs.several:
        unread.add("experts_per_domain")
    if not needs.gate:
        unread |= GATE_SETTINGS - {"experts_per_domain"}
    if arm == "joint":  # all has the backbone's
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
    """Let a trial take a value; a whole number where both ends are, of what has to be one."""
    if isinstance(values, Choices):
        return trial.suggest_categorical(name, values.values)
    low, high = values.low, values.high
    if SETTINGS[name].may_be_whole and isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(name, low, high, log=values.log)
    return trial.suggest_float(name, low, high, log=values.log)
