"""Values with an interval, and how they are written."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Measured(Protocol):
    """A value with the bounds of its interval, which are None if it has none."""

    @property
    def value(self) -> float:
        """The value."""

    @property
    def low(self) -> float | None:
        """The lower bound."""

    @property
    def high(self) -> float | None:
        """The upper bound."""


class Range(NamedTuple):
    """A value with an interval.

    Attributes:
        value: the value.
        low: the lower bound; None without an interval.
        high: the upper bound.
    """

    value: float
    low: float | None = None
    high: float | None = None


def signed(value: float) -> str:
    """Return a difference of AUCs with four decimals and its sign, without one if it rounds to 0."""
    text = f"{value:+.4f}"
    return "0.0000" if float(text) == 0 else text


def interval(measured: Measured) -> str:
    """Return the interval of a difference."""
    if measured.low is None or measured.high is None:
        return "[too few users]"
    return f"[{signed(measured.low)}, {signed(measured.high)}]"
