"""The style of plots: matplotlib's settings, colours that a page can set, and the looks of series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

COLOURS = {
    "ink": "#1d2129",
    "soft": "#5b6472",
    "line": "#d9dde3",
    "paper": "#ffffff",
    "blue": "#0072b2",
    "red": "#c8450a",
    "green": "#00805f",
    "purple": "#a14d86",
    "orange": "#b97800",
    "grey": "#737b87",
    "sky": "#2f93c8",
    "brown": "#7a5230",
}
"""Colours on white paper by name; a page sets the CSS variables of these names for its own background."""

SETTINGS: dict[str, Any] = {
    "figure.dpi": 72,  # a point is a unit of the drawing
    "figure.facecolor": COLOURS["paper"],
    "axes.facecolor": "none",
    "axes.edgecolor": COLOURS["soft"],
    "axes.labelcolor": COLOURS["soft"],
    "axes.labelsize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": COLOURS["line"],
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["soft"],
    "ytick.color": COLOURS["soft"],
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 11,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.4,
    "legend.borderaxespad": 0,
    "lines.linewidth": 1.6,
    "patch.linewidth": 1.6,
    "svg.fonttype": "none",
    "font.size": 12,
}

_CYCLE = ("blue", "red", "green", "purple", "orange", "sky", "brown", "grey")
_MARKERS = ("o", "s", "^", "D")


@dataclass(frozen=True)
class Look:
    """How a series is drawn.

    Attributes:
        label: label in the legend.
        colour: name of its colour.
        marker: matplotlib's marker of its points; empty for a dashed line without points.
        hollow: whether its points are hollow.
    """

    label: str
    colour: str
    marker: str
    hollow: bool = False

    @property
    def point(self) -> dict[str, Any]:
        """Matplotlib's arguments for its points."""
        colour, paper = COLOURS[self.colour], COLOURS["paper"]
        size = 6.5 if self.marker == "D" else 8
        if self.hollow:
            edge = {"markerfacecolor": paper, "markeredgecolor": colour, "markeredgewidth": 1.8}
            return {"linestyle": "none", "marker": self.marker, "markersize": size - 1, **edge}
        edge = {"markerfacecolor": colour, "markeredgecolor": paper, "markeredgewidth": 1}
        return {"linestyle": "none", "marker": self.marker, "markersize": size, **edge}

    @property
    def line(self) -> dict[str, Any]:
        """Matplotlib's arguments for its line."""
        return {"color": COLOURS[self.colour], "linestyle": "-" if self.marker else (0, (4, 3))}


def looks(labels: list[str]) -> list[Look]:
    """Return one look per label, different in both colour and marker."""
    return [Look(label, _CYCLE[i % 8], _MARKERS[(i + i // 8) % 4]) for i, label in enumerate(labels)]
