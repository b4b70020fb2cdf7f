"""The Data Docs: an index of dates, and for each date its verdicts and what was expected and found.

Great Expectations' own pages load their style and scripts from the web; these need nothing but themselves.
What makes a domain thin or absent is a warning, what breaks one a failure. Each date's verdicts are kept as
JSON too, so that the index can list all dates.
"""

from __future__ import annotations

import html
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from mmlora.checks.rules import Rule
from mmlora.json_files import read_json
from mmlora.schema import DomainVerdict

_STYLE = """
body { font-family: system-ui, sans-serif; margin: 2rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums }
.rich, .passed { color: #17692f }
.thin, .warning { color: #8a5a00 }
.absent { color: #666 }
.broken, .failed { color: #b00020; font-weight: 600 }
"""
_FIGURES = ("rows", "positives", "users", "items", "density", "ctr")
_VERDICTS = ("rich", "thin", "absent", "broken")
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
    _write(folder / f"{as_of}.json", json.dumps({**facts, "counts": counts}, default=str, indent=1))
    _write(folder / f"{as_of}.html", _date_page(as_of, verdicts, suites, rules, failures))
    dates = [read_json(file, "delete it") for file in sorted(folder.glob("*.json"), reverse=True)]
    _write(data_docs / "index.html", _index_page(dates))
    return data_docs / "index.html"


def _outcome(rule: Rule) -> str:
    """Return what a failure of a rule is: thin and absent are verdicts like others and stop nothing."""
    return "failed" if rule.verdict == "broken" else "warning"


def _date_page(
    as_of: date,
    verdicts: Sequence[DomainVerdict],
    suites: Mapping[str, str],
    rules: Sequence[Rule],
    failures: Sequence[Failed],
) -> str:
    links = "".join(
        f'<li><a href="#{suite}">{suite}</a>: {_marked(outcome)}</li>' for suite, outcome in suites.items()
    )
    rows = [
        [
            _cell(verdict.domain_id),
            f"<td>{_marked(verdict.verdict)}</td>",
            *(_cell(getattr(verdict, name)) for name in _FIGURES),
            _cell(verdict.policy),
            _cell("; ".join(verdict.reasons)),
        ]
        for verdict in verdicts
    ]
    body = (
        f'<p><a href="../index.html">All dates</a></p><h1>Domains as of {as_of}</h1><ul>{links}</ul>'
        "<p>interactions fails where rows are at fault, and breaks their domain; domain_sparsity warns where"
        " a domain is thin or absent, and stops nothing.</p>"
    )
    table = _table(("domain", "verdict", *_FIGURES, "what follows", "why"), rows)
    parts = [_suite(suite, outcome, rules, failures) for suite, outcome in suites.items()]
    return _page(f"Domains as of {as_of}", body + table + "".join(parts))


def _suite(suite: str, outcome: str, rules: Sequence[Rule], failures: Sequence[Failed]) -> str:
    rows = []
    for rule in (rule for rule in rules if rule.suite == suite):
        domains = [f"{domain}: {reason}" for failed, domain, reason in failures if failed == rule]
        rows.append(
            [
                _cell(rule.meaning),
                f"<td>{_marked(_outcome(rule) if domains else 'passed')}</td>",
                f"<td>{'<br>'.join(map(html.escape, domains))}</td>",
            ]
        )
    title = f'<h2 id="{suite}">{suite}: {_marked(outcome)}</h2>'
    return title + _table(("what is expected", "outcome", "domains that differ"), rows)


def _index_page(dates: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            f'<td><a href="verdicts/{each["as_of"]}.html">{each["as_of"]}</a></td>',
            *(f"<td>{_marked(outcome)}</td>" for outcome in each["suites"].values()),
            *(_cell(each["counts"].get(name, 0)) for name in _VERDICTS),
        ]
        for each in dates
    ]
    head = ("as of", *(dates[0]["suites"] if dates else ()), *_VERDICTS)
    return _page(
        "Data checks",
        f"<h1>Data checks</h1><p>Domains by verdict, latest date first.</p>{_table(head, rows)}",
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    names = "".join(f"<th>{name}</th>" for name in head)
    return f"<table><tr>{names}</tr>" + "".join(f"<tr>{''.join(cells)}</tr>" for cells in rows) + "</table>"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f'<td class="number">{value:.4f}</td>'
    if isinstance(value, int):
        return f'<td class="number">{value:,}</td>'
    return f"<td>{'-' if value is None else html.escape(str(value))}</td>"


def _marked(word: str | bool) -> str:
    """Return an outcome or verdict in its colour; former versions kept whether a suite passed."""
    text = ("failed", "passed")[word] if isinstance(word, bool) else word
    return f'<span class="{text}">{text}</span>'


def _page(title: str, body: str) -> str:
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    return f'<!DOCTYPE html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def _write(path: Path, text: str) -> None:
    """Replace a page in one move, so that a reader never meets half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
