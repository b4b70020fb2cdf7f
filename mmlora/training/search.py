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

TrialSettings = Mapping[str, Any]
LEAST_GAIN = 1e-4
"""Of the metric, for a step to be kept: less can't be told from noise, and isn't worth another setting."""
_LEAST_DIM, _LEAST_UNITS, _MOST_DROPOUT = 4, 8, 0.8
_FIRST_DECAY = 1e-6  # the step above none


def _dropout(value: float, up: bool) -> float:
    return round(min(value + 0.2, _MOST_DROPOUT) if up else max(value - 0.2, 0.0), 4)


def _rate(value: float, up: bool) -> float:
    return _digits(value * 2.5 if up else value / 2.5)


def _decay(value: float, up: bool) -> float:
    if not value:
        return _FIRST_DECAY if up else value
    return _digits(value * 10 if up else value / 10)


def _min_count(value: int, up: bool) -> int:
    return value * 3 if up else max(1, round(value / 3))


def _dim(value: int, up: bool) -> int:
    return value * 2 if up else max(min(value, _LEAST_DIM), value // 2)


def _units(widths: tuple[int, ...], up: bool) -> tuple[int, ...]:
    if up:
        return tuple(width * 2 for width in widths)
    return tuple(width // 2 for width in widths) if min(widths) // 2 >= _LEAST_UNITS else tuple(widths)


def _rank(value: float, up: bool) -> float:
    if value < 1:  # a share of each layer's width
        return min(value * 2, max(value, 0.5)) if up else value / 2
    return value * 2 if up else max(1, value // 2)


_NEXT: dict[str, Callable[[Any, bool], Any]] = {
    "learning_rate": _rate,
    "dropout": _dropout,
    "weight_decay": _decay,
    "min_count": _min_count,
    "embedding_dim": _dim,
    "hidden_units": _units,
    "expert_learning_rate": _rate,
    "rank": _rank,
}
"""The value above or below one's own; the same where there is none."""

TUNED: tuple[str, ...] = tuple(_NEXT)
"""The settings that a climb changes, in its order."""
OF_EXPERTS = ("expert_learning_rate", "rank")
"""Those that only experts read; a trial of them has the backbone of the best so far."""

OF_TREES = ("min_count",)
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
    value = _NEXT[name](settings[name], up)
    changed = {**settings, name: value}
    too_wide = name in ("rank", "hidden_units") and changed["rank"] > min(changed["hidden_units"])
    return None if value == settings[name] or too_wide else changed


def _digits(value: float) -> float:
    """Return three digits of a value: what a person would write."""
    return float(f"{value:.3g}")
