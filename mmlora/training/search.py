"""Which settings to try next: a climb from one's own settings, one setting at a time.

A step changes one setting of the best ones so far to the next value above or below it, and is kept when it is
better; a setting that got better goes on in its direction. So the first trials try what one would by hand,
each says what its change is worth, and a short budget leaves most settings as they were. The order follows
from the values alone: a climb that is done again finds the trials that it has made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mmlora.hyperparameters import SETTINGS, read_by
from mmlora.hyperparameters.search import Move

TrialSettings = Mapping[str, Any]
LEAST_GAIN = 1e-4
"""Of the metric, for a step to be kept: less can't be told from noise, and isn't worth another setting."""

MOVES: dict[str, Move] = {name: one.setting.tuned for name, one in SETTINGS.items() if one.setting.tuned}
TUNED: tuple[str, ...] = tuple(sorted(MOVES, key=lambda name: MOVES[name].turn))
"""The settings that a climb changes, in its order."""
OF_EXPERTS = tuple(name for name in TUNED if name in read_by("expert"))
"""Those that only experts read; a trial of them has the backbone of the best so far."""
OF_TREES = tuple(name for name in TUNED if name in read_by("data"))
"""Those that trees read."""


@dataclass(frozen=True)
class Step:
    """A change that was kept.

    Attributes:
        setting: its name.
        before: its value before.
        after: its value since.
        metric_before: of the settings before the step.
        metric_after: of those with it.
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
        start: one's own settings, which are measured first.
        names: of those to change, in order.
        measure: the metric of some settings, in [0, 1], higher being better; None when there is no more
            time. It is asked once for each.

    Returns:
        The steps that lead from ``start`` to the best.
    """
    best, steps, tried = dict(start), list[Step](), [dict(start)]
    metric = measure(best)
    if metric is None:
        return ()
    kept = -1
    while kept != len(steps):
        kept = len(steps)
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
                if len(steps) > before:  # the other direction is where it came from
                    break
    return tuple(steps)


def _stepped(settings: TrialSettings, name: str, up: bool) -> dict[str, Any] | None:
    """Return the settings with the next value of one of them; None where no model can have it."""
    value = MOVES[name].next(settings[name], up)
    changed = {**settings, name: value}
    too_wide = name in ("rank", "hidden_units") and changed["rank"] > min(changed["hidden_units"])
    return None if value == settings[name] or too_wide else changed
