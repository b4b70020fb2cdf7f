"""How a setting is searched: the next value of ``mmlora train --tune``, and the spaces of experiments."""

from dataclasses import dataclass
from typing import Any

Number = int | float


@dataclass(frozen=True)
class Times:
    """To the next value by a factor.

    Attributes:
        factor: times it, or by it.
        turn: the setting's place in the order of a climb.
        least: a whole number, and each of a tuple, does not go below it.
        most: a number below 1, which is a share, does not go above it.
        from_zero: the value above 0.
    """

    factor: Number
    turn: int
    least: int = 1
    most: float = 1.0
    from_zero: float = 0.0

    def next(self, value: Any, up: bool) -> Any:
        """Return the value above or below another; the same where there is none."""
        if isinstance(value, tuple):
            widths = tuple(width * self.factor if up else width // self.factor for width in value)
            return widths if up or min(widths) >= self.least else value
        if isinstance(value, int):
            return value * self.factor if up else max(min(value, self.least), value // self.factor)
        if not value:
            return self.from_zero if up else value
        changed = float(f"{value * self.factor if up else value / self.factor:.3g}")
        return min(changed, max(value, self.most)) if up and value < 1 else changed


@dataclass(frozen=True)
class Plus:
    """To the next value by a difference.

    Attributes:
        step: added, or taken away.
        turn: the setting's place in the order of a climb.
        least: the least value.
        most: the greatest value.
    """

    step: float
    turn: int
    least: float
    most: float

    def next(self, value: Any, up: bool) -> Any:
        """Return the value above or below another; the same where there is none."""
        changed = min(value + self.step, self.most) if up else max(value - self.step, self.least)
        return round(changed, 4)


Move = Times | Plus


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


Space = Choices | Range
