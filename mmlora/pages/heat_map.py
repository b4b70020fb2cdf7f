"""A heat map of gate weights: domains by experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mmlora.pages.drawing import WIDTH, panel, tipped
from mmlora.pages.style import COLOURS

_SHADES = 20
_LETTER = 6.6  # mean width of a letter in points
ExpertSlot = tuple[str, int]
"""The domain that an expert was trained on, and its slot."""


def heat_map(names: Sequence[str], experts: Sequence[ExpertSlot], weights: np.ndarray) -> Figure:
    """Draw the weight of each expert for the rows of each domain; a domain's own experts are outlined.

    Args:
        names: the domains of the rows.
        experts: the experts.
        weights: ``[len(names), len(experts)]``, shares of 1.
    """
    left = _LETTER * max(map(len, names)) + 40
    wide = min(84.0, max(16.0, max(660.0 - left, WIDTH - left) / len(experts)))
    tall = min(38.0, max(20.0, wide * 0.55))
    heads = [_head(expert, experts, narrow=wide < 34) for expert in experts]
    longest = max(map(len, heads)) * _LETTER
    turned = longest > wide - 4
    height = tall * len(names) + (longest * 0.85 if turned else 14) + 90
    figure, axes = panel(
        height=height, width=max(WIDTH, left + wide * len(experts) + (longest * 0.6 * turned))
    )
    shades = Normalize(0, weights.max() or 1.0), _shades()
    _draw_cells(axes, names, experts, weights, shades, written=wide >= 34)
    _name_cells(axes, names, heads, turned=turned)
    slots = len({slot for _, slot in experts})
    axes.set_xlabel("expert: the domain it was trained on" + (f", {slots} per domain" if slots > 1 else ""))
    key = figure.colorbar(ScalarMappable(*shades), ax=axes, orientation="horizontal", aspect=40, shrink=0.6)
    key.set_label("weight (share of 1)")
    key.outline.set_visible(False)
    return figure


def _head(expert: ExpertSlot, experts: Sequence[ExpertSlot], *, narrow: bool) -> str:
    """Return an expert's name; with narrow columns, each domain is named once, over its first expert."""
    domain, slot = expert
    if all(other == 0 for _, other in experts):
        return domain
    if narrow:
        return "" if slot else domain
    return f"{domain}, {slot + 1}"


def _shades() -> Colormap:
    """Return shades of one colour from nearly transparent to opaque, so that a page can set the colour."""
    heat = COLOURS["blue"]
    return LinearSegmentedColormap.from_list("heat", [to_rgba(heat, 0.05), to_rgba(heat, 1.0)], N=_SHADES)


def _draw_cells(
    axes: Axes,
    names: Sequence[str],
    experts: Sequence[ExpertSlot],
    weights: np.ndarray,
    shades: tuple[Normalize, Colormap],
    *,
    written: bool,
) -> None:
    scale, colours = shades
    for (i, k), weight in np.ndenumerate(weights):
        domain, slot = experts[k]
        tip = f"rows of {names[i]}: expert {slot + 1} of {domain} weighs {weight:.3f}"
        box = Rectangle((k - 0.48, i - 0.46), 0.96, 0.92, facecolor=colours(scale(weight)), edgecolor="none")
        axes.add_patch(tipped(box, tip))
        if domain == names[i]:
            outline = Rectangle((k - 0.48, i - 0.46), 0.96, 0.92, facecolor="none", edgecolor=COLOURS["ink"])
            axes.add_patch(outline)
        if written:
            ink = COLOURS["paper" if scale(weight) > 0.6 else "ink"]
            axes.text(k, i, f"{weight:.2f}", ha="center", va="center", fontsize=11, color=ink)


def _name_cells(axes: Axes, names: Sequence[str], heads: Sequence[str], *, turned: bool) -> None:
    axes.set_xlim(-0.5, len(heads) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.tick_params(length=0)
    style: dict[str, Any] = {"rotation": 55, "ha": "left", "rotation_mode": "anchor"} if turned else {}
    axes.set_xticks(range(len(heads)), heads, **style)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylabel("domain of the rows")
