"""The plots of a night's report; each is left out where its figures are missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from textwrap import fill

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmlora.metrics.reliability import LEAST_ROWS, ReliabilityBin
from mmlora.nights.report.facts import GateWeights, Lift, NightReport, Reliability
from mmlora.pages.drawing import (
    Plot,
    bar,
    ends,
    label_differences,
    limits,
    make,
    panel,
    point,
)
from mmlora.pages.heat_map import heat_map
from mmlora.pages.measured import Range, interval, signed
from mmlora.pages.style import COLOURS, SETTINGS, Look, looks
from mmlora.warehouse.quality import NightQuality

_ABOVE = Look("above", "green", "o")
_LEVEL = Look("within noise", "grey", "o", hollow=True)
_BELOW = Look("below", "red", "s")
_CURVE = Look("published scores", "blue", "o")
_EXACT = Look("exact", "soft", "")
_ROW = 34.0
"""Height of a domain's row in points."""
MOST_CURVES = 8
"""Domains with a reliability curve or a line of their own, at most: those with the most rows."""


def lift_plot(report: NightReport) -> Plot | None:
    """Plot each domain's lift over the best baseline."""
    if not report.lifts:
        return None
    with rc_context(SETTINGS):
        return make(
            "lift",
            "Lift over the best baseline by domain",
            [_lift_panel(report.lifts)],
            "The AUC of a domain's model on held-out rows minus that of the best simple baseline on the "
            "same rows, with its 95% interval, from the comparison at training. Right of the line the model "
            "is better.",
        )


def _lift_panel(lifts: Sequence[Lift]) -> Figure:
    ranges = [Range(lift.value, lift.low, lift.high) for lift in lifts]
    figure, axes = panel((_ABOVE, _LEVEL, _BELOW), height=_ROW * len(lifts) + 60)
    axes.set_xlim(*limits(ends(ranges), zero=True))
    axes.set_ylim(len(lifts) - 0.5, -0.5)
    axes.set_yticks(range(len(lifts)), [fill(lift.domain, 20) for lift in lifts])
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("test AUC minus that of the baseline")
    label_differences(axes.xaxis, axes.axvline)
    for row, (lift, measured) in enumerate(zip(lifts, ranges, strict=True)):
        look = _look(measured)
        if measured.low is not None and measured.high is not None:
            bar(axes, (measured.low, measured.high), (row, row), look)
        tip = f"{lift.domain}: {signed(lift.value)} {interval(measured)} over {lift.baseline}"
        point(axes, lift.value, row, look, tip)
    return figure


def _look(measured: Range) -> Look:
    if measured.low is not None and measured.low > 0:
        return _ABOVE
    return _BELOW if measured.high is not None and measured.high < 0 else _LEVEL


def gate_plots(report: NightReport) -> list[Plot]:
    """Plot the gate of each model."""
    with rc_context(SETTINGS):
        return [
            make(
                f"gate-{number}",
                f"Gate of {gate.model_version}",
                [_gate_panel(gate)],
                "How much each expert counts for the rows of each domain; a row sums to 1, or to 0 for a "
                "domain with the backbone alone. A domain's own experts are outlined.",
            )
            for number, gate in enumerate(report.gates)
        ]


def _gate_panel(gate: GateWeights) -> Figure:
    names = sorted(gate.weights)
    return heat_map(names, gate.experts, np.array([gate.weights[name] for name in names]))


def reliability_plot(report: NightReport) -> Plot | None:
    """Plot the reliability of all domains together, and of those with the most rows."""
    if not report.reliability:
        return None
    every, *domains = report.reliability
    ranked = sorted(domains, key=lambda curve: -curve.rows) if len(domains) > 1 else []
    largest = [curve for curve in ranked if curve.rows >= LEAST_ROWS][:MOST_CURVES]
    with rc_context(SETTINGS):
        return make(
            "reliability",
            "Reliability of published scores",
            [_reliability_panel(curve) for curve in (every, *largest)],
            "Impressions of published pairs in up to ten groups by score: the share clicked, with its "
            "95% interval, against the mean score. On the dashed line scores are click rates; above it they "
            "are too low. Only what was published and shown is in it, so low scores are rare. Domains with "
            f"fewer than {LEAST_ROWS} impressions have no panel, and at most {MOST_CURVES} have one.",
        )


def _reliability_panel(curve: Reliability) -> Figure:
    figure, axes = panel((_CURVE, _EXACT), width=330, height=300)
    highest = max(max(b.score, b.high) for b in curve.bins) * 1.05
    axes.set_xlim(0, highest)
    axes.set_ylim(0, highest)
    axes.plot([0, highest], [0, highest], linewidth=1.2, **_EXACT.line)
    axes.plot([b.score for b in curve.bins], [b.rate for b in curve.bins], **_CURVE.line)
    for one in curve.bins:
        bar(axes, (one.score, one.score), (one.low, one.high), _CURVE)
        point(axes, one.score, one.rate, _CURVE, _bin_tip(one))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel("mean score")
    axes.set_ylabel("share clicked")
    axes.set_title(fill(curve.domain or "all domains", 30), fontsize=13, loc="left")
    return figure


def _bin_tip(one: ReliabilityBin) -> str:
    return f"{one.rows:,} impressions with a mean score of {one.score:.4f}: {one.rate:.4f} clicked"


def quality_plot(report: NightReport) -> Plot | None:
    """Plot auc and calibration of published nights by date."""
    nights = [night for night in report.quality if night.auc is not None]
    if not nights:
        return None
    rows: dict[str, int] = {}
    for night in nights:
        rows[str(night.domain_id)] = rows.get(str(night.domain_id), 0) + night.scored
    shown = sorted(rows, key=lambda domain: -rows[domain])[:MOST_CURVES]
    with rc_context(SETTINGS):
        return make(
            "quality",
            "Published nights by what users then clicked",
            [
                _quality_panel(nights, shown, "AUC of published scores", lambda night: night.auc),
                _quality_panel(
                    nights, shown, "scores over clicks", lambda night: night.calibration, exact=1.0
                ),
            ],
            "By score date, as `mmlora evaluate --published` measured it. Scores over clicks: 1 is exact, 2 "
            "means that scores are twice as high as clicks are frequent."
            + (f" The {len(shown)} domains with the most rows." if len(rows) > len(shown) else ""),
        )


def _quality_panel(
    nights: Sequence[NightQuality],
    shown: Sequence[str],
    title: str,
    figure_of: Callable[[NightQuality], float | None],
    *,
    exact: float | None = None,
) -> Figure:
    styles = looks(list(shown))
    figure, axes = panel(styles)
    days = {day: n for n, day in enumerate(sorted({night.score_date for night in nights}))}
    for domain, look in zip(shown, styles, strict=True):
        own = [
            (night.score_date, value)
            for night in nights
            if str(night.domain_id) == domain and (value := figure_of(night)) is not None
        ]
        axes.plot([days[day] for day, _ in own], [value for _, value in own], **look.line)
        for day, value in own:
            point(axes, days[day], value, look, f"{domain} on {day}: {value:.4f}", small=len(days) > 20)
    if exact is not None:
        axes.axhline(exact, color=COLOURS["soft"], linewidth=1.2)
    _name_days(axes, [day.isoformat() for day in days])
    axes.set_ylabel(title)
    return figure


def _name_days(axes: Axes, days: Sequence[str]) -> None:
    """Name days by their place on the x axis; far apart, so that names don't overlap."""
    axes.set_xlim(-0.5, len(days) - 0.5)
    ticks = sorted({round(step * (len(days) - 1) / 3) for step in range(4)})
    axes.set_xticks(ticks, [days[tick] for tick in ticks])
