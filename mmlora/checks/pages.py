"""Write the Data Docs: an index of dates, and a page per date with its verdicts, expectations and results.

Great Expectations' own pages load styles and scripts from the web; these pages are self-contained. An
expectation that makes a domain thin or absent is shown as a warning, one that makes it broken as a failure.
Each date's verdicts are stored as JSON too, from which the index lists all dates.
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
"""A rule, a domain for which it failed, and the reason."""


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
        data_docs: folder of the Data Docs.
        as_of: the date; an existing page is replaced.
        verdicts: one per domain.
        rules: the rules, by suite.
        failures: every failed rule of every domain.

    Returns:
        The path of the index.
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
    """Write the index of all dates except those of the given JSON files, and return its path."""
    files = sorted(set((data_docs / "verdicts").glob("*.json")).difference(without), reverse=True)
    write_atomically(data_docs / "index.html", _index_page([read_json(file, "delete it") for file in files]))
    return data_docs / "index.html"


def _outcome(rule: Rule) -> str:
    """Return the outcome of a rule that failed: all but those that make a domain broken only warn."""
    return "failed" if rule.verdict == "broken" else "warning"


def _suite(name: str, outcome: str, rules: Sequence[Rule], failures: Sequence[Failed]) -> dict[str, object]:
    """Return the template values of a suite: its outcome, and each rule with the domains that failed it."""
    rows = []
    for rule in (rule for rule in rules if rule.suite == name):
        domains = [f"{domain}: {reason}" for failed, domain, reason in failures if failed == rule]
        rule_outcome = _outcome(rule) if domains else "passed"
        rows.append({"meaning": rule.meaning, "outcome": rule_outcome, "domains": domains})
    return {"name": name, "outcome": outcome, "rules": rows}


def _index_page(dates: Sequence[dict[str, Any]]) -> str:
    for facts in dates:  # earlier versions stored a boolean for each suite
        facts["suites"] = {name: _WORDS.get(outcome, outcome) for name, outcome in facts["suites"].items()}
    suites = list(dates[0]["suites"]) if dates else []
    return render("mmlora.checks", "index.html", dates=dates, suites=suites, verdicts=_VERDICTS)
