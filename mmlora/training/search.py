"""Which settings to try next: a climb from the user's own settings, one setting at a time.

A step changes one setting of the best trial so far to the next value above or below, and is kept if it is
better; a setting that improved is changed further in the same direction. So the first trials are what one
would try by hand, each shows what its change is worth, and a short budget leaves most settings as they were.
The order depends on the values alone, so a repeated climb finds its earlier trials.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mmlora.hyperparameters import SETTINGS, read_by
from mmlora.hyperparameters.search import Move

TrialSettings = Mapping[str, Any]
LEAST_GAIN = 1e-4
"""Least gain of the metric for a step to be kept; less can't be distinguished from noise."""

MOVES: dict[str, Move] = {name: one.setting.tuned for name, one in SETTINGS.items() if one.setting.tuned}
TUNED: tuple[str, ...] = tuple(sorted(MOVES, key=lambda name: MOVES[name].turn))
"""The settings that a climb changes, in order."""
OF_EXPERTS = tuple(name for name in TUNED if name in read_by("expert"))
"""The settings that only experts read; trials of these reuse the backbone of the best trial so far."""
OF_TREES = tuple(name for name in TUNED if name in read_by("data"))
"""The settings that trees read."""


@dataclass(frozen=True)
class Step:
    """A change that was kept.

    Attributes:
        setting: the setting's name.
        before: its value before the step.
        after: its value after the step.
        metric_before: the metric before the step.
        metric_after: the metric after the step.
    """

    setting: str
    before: Any
    after: Any
    metric_before: float
    metric_after: float


def climb(
    start: TrialSettings, names: tuple[str, ...], measure: Callable[[TrialSettings], float | None]
) -> tuple[Step, ...]:
    """Try settings until no step from the best gains ``LEAST_GAIN``, or there is no more time.

    Args:
        start: the user's own settings, which are measured first.
        names: names of the settings to change, in order.
        measure: returns the metric of some settings, in [0, 1], higher being better, or None if there is
            no time left. It is called once for each combination.

    Returns:
        The steps that lead from ``start`` to the best.
    """
    best, steps, tried = start, list[Step](), [start]
    metric = measure(best)
    if metric is None:
        return ()
    steps_before = -1
    while steps_before != len(steps):
        steps_before = len(steps)
        for name in names:
            for up in (False, True):
                before = len(steps)
                while (trial := _stepped(best, name, up)) is not None and trial not in tried:
                    tried.append(trial)
                    if (value := measure(trial)) is None:
                        return tuple(steps)
                    if value < metric + LEAST_GAIN:
                        break
                    steps.append(Step(name, best[name], trial[name], metric, value))
                    best, metric = trial, value
                if len(steps) > before:  # the other direction leads back
                    break
    return tuple(steps)


def _stepped(settings: TrialSettings, name: str, up: bool) -> TrialSettings | None:
    """Return the settings with the next value of one of them; None if that value is not possible."""
    value = MOVES[name].next(settings[name], up)
    changed = {**settings, name: value}
    too_wide = name in ("rank", "hidden_units") and changed["rank"] > min(changed["hidden_units"])
    return None if value == settings[name] or too_wide else changed
