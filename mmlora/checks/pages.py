"""The Data Docs: an index of dates, and for each date its verdicts and what was expected and found.

Great Expectations' own pages load their style and scripts from the web; these need nothing but themselves.
What makes a domain thin or absent is a warning, what breaks one a failure. Each date's verdicts are kept as
JSON too, so that the index can list all dates.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from mmlora.checks.rules import Rule
from mmlora.files import read_json, write_atomically
from mmlora.schema import DomainVerdict
from mmlora.templates import render

_FIGURES = ["rows", "positives", "users", "items", "density", "ctr"]
_VERDICTS = ["rich", "thin", "absent", "broken"]
_WORDS = {True: "passed", False: "failed"}
_OUTCOMES = ("passed", "warning", "failed")
"""From best to worst."""
Failed = tuple[Rule, str, str]
"""A rule, the domain that fails it, and why."""


def write_pages(
    data_docs: Path,
    *,
    as_of: date,
    verdicts: Sequence[DomainVerdict],
    rules: Sequence[Rule],
    failures: Sequence[Failed],
) -> Path:
    """Write a date's page and the index of all dates.

    Args:
        data_docs: the Data Docs' folder.
        as_of: the date; written again, its page is replaced.
        verdicts: one a domain.
        rules: what was expected, by suite.
        failures: every domain that failed a rule.

    Returns:
        The index.
    """
    folder = data_docs / "verdicts"
    folder.mkdir(parents=True, exist_ok=True)
    counts = Counter(verdict.verdict for verdict in verdicts)
    suites = {rule.suite: "passed" for rule in rules}
    for rule, _, _ in failures:
        suites[rule.suite] = max(suites[rule.suite], _outcome(rule), key=_OUTCOMES.index)
    facts = {"as_of": str(as_of), "suites": suites, "verdicts": [asdict(verdict) for verdict in verdicts]}
    text = json.dumps({**facts, "counts": counts}, default=str, indent=1)
    write_atomically(folder / f"{as_of}.json", text)
    page = render(
        "mmlora.checks",
        "date.html",
        as_of=as_of,
        verdicts=verdicts,
        suites=[_suite(name, outcome, rules, failures) for name, outcome in suites.items()],
        figures=_FIGURES,
    )
    write_atomically(folder / f"{as_of}.html", page)
    return write_index(data_docs)


def write_index(data_docs: Path, without: Collection[Path] = ()) -> Path:
    """Write the index of all dates but those of some JSON files, and return it."""
    files = sorted(set((data_docs / "verdicts").glob("*.json")).difference(without), reverse=True)
    write_atomically(data_docs / "index.html", _index_page([read_json(file, "delete it") for file in files]))
    return data_docs / "index.html"


def _outcome(rule: Rule) -> str:
    """Return what a failure of a rule is: thin and absent are verdicts like others and stop nothing."""
    return "failed" if rule.verdict == "broken" else "warning"


def _suite(name: str, outcome: str, rules: Sequence[Rule], failures: Sequence[Failed]) -> dict[str, object]:
    """Return what a page shows of a suite: its outcome, and each rule with the domains that differ."""
    shown = []
    for rule in (rule for rule in rules if rule.suite == name):
        domains = [f"{domain}: {reason}" for failed, domain, reason in failures if failed == rule]
        own = _outcome(rule) if domains else "passed"
        shown.append({"meaning": rule.meaning, "outcome": own, "domains": domains})
    return {"name": name, "outcome": outcome, "rules": shown}


def _index_page(dates: Sequence[dict[str, Any]]) -> str:
    for each in dates:  # former versions kept whether a suite passed
        each["suites"] = {name: _WORDS.get(outcome, outcome) for name, outcome in each["suites"].items()}
    suites = list(dates[0]["suites"]) if dates else []
    return render("mmlora.checks", "index.html", dates=dates, suites=suites, verdicts=_VERDICTS)
