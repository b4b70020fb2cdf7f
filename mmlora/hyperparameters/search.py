"""How a setting is searched: the next value of ``mmlora train --tune``, and the spaces of experiments."""

from dataclasses import dataclass
from typing import Any

Number = int | float


@dataclass(frozen=True)
class Times:
    """Go to the next value by a factor.

    Attributes:
        factor: to multiply or divide by.
        turn: the setting's position in the order of a climb.
        least: lower limit of a whole number, or of each number of a tuple.
        most: upper limit of a number below 1, which is a share.
        from_zero: the next value above 0.
    """

    factor: Number
    turn: int
    least: int = 1
    most: float = 1.0
    from_zero: float = 0.0

    def next(self, value: Any, up: bool) -> Any:
        """Return the next value above or below ``value``, or ``value`` itself if there is none."""
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
    """Go to the next value by a difference.

    Attributes:
        step: to add or subtract.
        turn: the setting's position in the order of a climb.
        least: the smallest value.
        most: the largest value.
    """

    step: float
    turn: int
    least: float
    most: float

    def next(self, value: Any, up: bool) -> Any:
        """Return the next value above or below ``value``, or ``value`` itself if there is none."""
        changed = min(value + self.step, self.most) if up else max(value - self.step, self.least)
        return round(changed, 4)


Move = Times | Plus


@dataclass(frozen=True)
class Choices:
    """A list of values to choose from.

    Attributes:
        values: the values.
    """

    values: tuple[Number, ...]

    @property
    def probes(self) -> tuple[Number, ...]:
        """Values that are valid only if all are."""
        return self.values


@dataclass(frozen=True)
class Range:
    """All values between two bounds.

    Attributes:
        low: the smallest value.
        high: the largest value.
        log: whether the scale is logarithmic.
    """

    low: Number
    high: Number
    log: bool = False

    @property
    def probes(self) -> tuple[Number, ...]:
        """Values that are valid only if all are."""
        return self.low, self.high


Space = Choices | Range
