"""The page of a night's report: the same figures as its JSON, with plots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import get_args

from mmlora.nights.report.facts import NightReport, ReportedLoad
from mmlora.nights.report.plots import gate_plots, lift_plot, quality_plot, reliability_plot
from mmlora.pages.drawing import Plot
from mmlora.pages.measured import Range, interval, signed
from mmlora.pages.page import Page, Section, Tile
from mmlora.pages.tables import Entry, Mark, ReportTable
from mmlora.schema import Verdict

_NONE = Entry("–", mark="soft")
_DRIFT = ("feature_", "score_shift", "rank_overlap")
"""What the names of checks that measure drift begin with."""
_NIGHTS = 10
"""Nights of a domain in the table of quality."""


def page_of(report: NightReport) -> Page:
    """Return the page."""
    published = sum(load.state == "published" for load in report.loads)
    facts = [
        ("domains published", f"{published:,} of {len(report.domains):,}"),
        ("rows published", f"{sum(load.rows or 0 for load in report.loads if load.state == 'published'):,}"),
        ("models", f"{len({load.model_version for load in report.loads}):,}"),
        ("failed checks", f"{sum(not check.passed for load in report.loads for check in load.checks):,}"),
    ]
    sections = [
        _verdicts(report),
        _loads(report),
        _drift(report),
        Section(
            "Lift over the best baseline",
            [] if report.lifts else ["No lift is known."],
            tables=_lifts(report),
            plots=_drawn(lift_plot(report)),
        ),
        Section(
            "Calibration",
            [_calibration_line(report)],
            tables=_reliability(report),
            plots=_drawn(reliability_plot(report)),
        ),
        Section(
            "Published nights",
            [] if report.quality else ["No night has been measured yet."],
            tables=_quality(report),
            plots=_drawn(quality_plot(report)),
        ),
    ]
    if report.gates:
        sections.append(Section("Gate", plots=gate_plots(report)))
    if report.notes:
        sections.append(Section("What is missing", lists=[("", list(report.notes))]))
    description = (
        "What each domain's readers got for this night, by which model, and how good it turned out to be."
    )
    return Page(f"Night of {report.score_date}", description, facts, sections)


def _drawn(plot: Plot | None) -> Sequence[Plot]:
    return [] if plot is None else [plot]


def _verdicts(report: NightReport) -> Section:
    """Return the map of verdicts: a tile per domain, and why a domain isn't rich."""
    states = {load.domain: load.state for load in report.loads}
    tiles = [
        Tile(each.domain, states.get(each.domain, "not scored"), each.verdict or "not validated")
        for each in report.domains
    ]
    counts = Counter(each.verdict for each in report.domains)
    words = ", ".join(f"{counts[name]} {name}" for name in get_args(Verdict) if counts[name])
    lines = [f"By verdict: {words}." if words else "The night's data was not validated."]
    rows = [
        (
            Entry(each.domain),
            Entry(each.verdict or "–"),
            _count(each.rows),
            _number(each.ctr),
            Entry(each.policy or "–"),
            Entry("; ".join(each.reasons) or "–"),
        )
        for each in report.domains
    ]
    head = ("domain", "verdict", "rows", "CTR", "what follows", "why")
    table = ReportTable(
        "Verdicts", "Rows and CTR are those of the window that is checked.", head, rows, folded=True
    )
    return Section("Domains", lines, tables=[table], tiles=tiles)


def _loads(report: NightReport) -> Section:
    rows = [
        (
            Entry(load.domain),
            Entry(load.state, load.reason or "", "" if load.state == "published" else "down"),
            Entry(load.model_version),
            _count(load.rows),
            _count(load.users),
            _count(load.pairs),
            _number(load.seconds, 1),
            _number(load.pairs_per_second, 0),
            _NONE if load.carried is None else Entry(f"{load.carried:.1%}"),
        )
        for load in report.loads
    ]
    head = ("domain", "state", "model", "rows", "users", "pairs", "seconds", "pairs/s", "carried over")
    note = "Pairs per second count all pairs, also those of users whose rows were carried over."
    tables = [ReportTable("Loads and rates", note, head, rows)] if rows else []
    lines = [] if rows else ["No domain was scored."]
    return Section("Loads", lines, tables=[*tables, *_checks(report.loads)])


def _checks(loads: Sequence[ReportedLoad]) -> Iterator[ReportTable]:
    """Yield the table of checks: how many domains passed each, and what those say that failed."""
    outcomes: dict[str, list[tuple[str, bool, str]]] = {}
    for load in loads:
        for check in load.checks:
            outcomes.setdefault(check.name, []).append((load.domain, check.passed, check.detail))
    rows = []
    for name, found in outcomes.items():
        failed = [(domain, detail) for domain, passed, detail in found if not passed]
        mark: Mark = "down" if failed else ""
        told = "; ".join(f"{domain}: {detail}" for domain, detail in failed)
        rows.append(
            (Entry(name), Entry(f"{len(found) - len(failed)} of {len(found)}", mark=mark), Entry(told or "–"))
        )
    if rows:
        yield ReportTable("Checks of the loads", "Domains that passed.", ("check", "passed", "failed"), rows)


def _drift(report: NightReport) -> Section:
    """Return what the checks of the loads say of features and scores that moved, by domain."""
    rows = [
        (
            Entry(load.domain),
            Entry(check.name, mark="" if check.passed else "down"),
            _number(check.figure),
            _number(check.threshold),
            Entry(check.detail),
        )
        for load in report.loads
        for check in load.checks
        if check.name.startswith(_DRIFT)
    ]
    note = (
        "Features are compared with the training date, scores and lists with the last published night. "
        "`feature_shift` and `score_shift` are PSIs (population stability indices) beyond chance."
    )
    table = ReportTable("Drift by domain", note, ("domain", "check", "figure", "limit", "what moved"), rows)
    lines = [] if rows else ["No load of this night has checks of drift."]
    return Section("Drift", lines, tables=[table] if rows else [])


def _lifts(report: NightReport) -> list[ReportTable]:
    rows = []
    for lift in report.lifts:
        measured = Range(lift.value, lift.low, lift.high)
        above, below = (lift.low or 0) > 0, (lift.high or 0) < 0
        mark: Mark = "up" if above else "down" if below else ""
        difference = Entry(signed(lift.value), interval(measured), mark)
        rows.append(
            (
                Entry(lift.domain),
                difference,
                _number(lift.auc),
                _count(lift.rows),
                Entry(lift.baseline),
                Entry(lift.model_version),
            )
        )
    head = ("domain", "lift", "test AUC", "test rows", "baseline", "model")
    note = "▲ above and ▼ below the baseline by more than noise."
    return [ReportTable("Lift", note, head, rows, folded=True)] if rows else []


def _calibration_line(report: NightReport) -> str:
    if not report.reliability:
        return "No published night of the last two weeks has labels yet: import the interactions of its date."
    every = report.reliability[0]
    return (
        f"{every.rows:,} impressions of published pairs in {every.nights:,} published domain-nights, "
        f"{every.clicks:,} of them clicked; expected calibration error {every.ece or 0:.4f}."
    )


def _reliability(report: NightReport) -> list[ReportTable]:
    rows = [
        (
            Entry(curve.domain or "all domains"),
            _count(curve.nights),
            _count(curve.rows),
            _count(curve.clicks),
            _number(curve.ece),
        )
        for curve in report.reliability
    ]
    head = ("domain", "nights", "impressions", "clicks", "ECE")
    note = "Expected calibration error over 20 groups of about equal size; with few rows it is mostly chance."
    return [ReportTable("Calibration error", note, head, rows, folded=True)] if rows else []


def _quality(report: NightReport) -> list[ReportTable]:
    newest = sorted(report.quality, key=lambda night: (str(night.domain_id), -night.score_date.toordinal()))
    counts: Counter[str] = Counter()
    rows = []
    for night in newest:
        counts[str(night.domain_id)] += 1
        if counts[str(night.domain_id)] <= _NIGHTS:
            values = (_number(night.auc), _number(night.logloss), _number(night.calibration))
            shown = (_count(night.scored), _count(night.clicks))
            rows.append(
                (
                    Entry(str(night.domain_id)),
                    Entry(str(night.score_date)),
                    *shown,
                    *values,
                    Entry(night.model_version),
                )
            )
    head = ("domain", "date", "impressions", "clicks", "AUC", "log loss", "scores over clicks", "model")
    note = f"The newest {_NIGHTS} of each domain, from the table `night_quality`."
    return [ReportTable("Quality by night", note, head, rows, folded=True)] if rows else []


def _count(value: int | None) -> Entry:
    return _NONE if value is None else Entry(f"{value:,}")


def _number(value: float | None, digits: int = 4) -> Entry:
    return _NONE if value is None else Entry(f"{value:,.{digits}f}")
