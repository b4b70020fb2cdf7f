"""The Data Docs' first pages: an index of dates, and a date's verdicts above the links to its suites.

Great Expectations' own index is drawn by scripts from the web and stays empty without it; these pages need
nothing but themselves. Each date's verdicts are kept as JSON too, so that the index can list all dates.
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

from mmlora.json_files import read_json
from mmlora.schema import DomainVerdict

_STYLE = """
body { font-family: system-ui, sans-serif; margin: 2rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: left }
td.number { text-align: right; font-variant-numeric: tabular-nums }
.rich, .passed { color: #17692f }
.thin { color: #8a5a00 }
.absent { color: #666 }
.broken, .failed { color: #b00020; font-weight: 600 }
"""
_FIGURES = ("rows", "positives", "users", "items", "density", "ctr")
_VERDICTS = ("rich", "thin", "absent", "broken")


def write_pages(
    data_docs: Path,
    *,
    as_of: date,
    verdicts: Sequence[DomainVerdict],
    suites: Mapping[str, bool],
    suite_pages: Mapping[str, str],
) -> Path:
    """Write a date's page and the index of all dates.

    Args:
        data_docs: the Data Docs' folder.
        as_of: the date; written again, its page is replaced.
        verdicts: one a domain.
        suites: whether each suite passed.
        suite_pages: each suite's page, relative to ``data_docs``.

    Returns:
        The index.
    """
    folder = data_docs / "verdicts"
    folder.mkdir(parents=True, exist_ok=True)
    counts = Counter(verdict.verdict for verdict in verdicts)
    facts = {
        "as_of": str(as_of),
        "suites": dict(suites),
        "verdicts": [asdict(verdict) for verdict in verdicts],
    }
    _write(folder / f"{as_of}.json", json.dumps({**facts, "counts": counts}, default=str, indent=1))
    _write(folder / f"{as_of}.html", _date_page(as_of, verdicts, suites, suite_pages))
    dates = [read_json(file, "delete it") for file in sorted(folder.glob("*.json"), reverse=True)]
    _write(data_docs / "index.html", _index_page(dates))
    return data_docs / "index.html"


def _date_page(
    as_of: date, verdicts: Sequence[DomainVerdict], suites: Mapping[str, bool], suite_pages: Mapping[str, str]
) -> str:
    links = "".join(
        f'<li><a href="../{html.escape(suite_pages[suite])}">{suite}</a>: {_passed(passed)}</li>'
        for suite, passed in suites.items()
    )
    rows = [
        [
            _cell(verdict.domain_id),
            f'<td class="{verdict.verdict}">{verdict.verdict}</td>',
            *(_cell(getattr(verdict, name)) for name in _FIGURES),
            _cell(verdict.policy),
            _cell("; ".join(verdict.reasons)),
        ]
        for verdict in verdicts
    ]
    body = (
        f'<p><a href="../index.html">All dates</a></p><h1>Domains as of {as_of}</h1><ul>{links}</ul>'
        "<p>interactions fails where rows are at fault, and breaks their domain; domain_sparsity fails where"
        " a domain is thin or absent, and stops nothing.</p>"
    )
    table = _table(("domain", "verdict", *_FIGURES, "what follows", "why"), rows)
    return _page(f"Domains as of {as_of}", body + table)


def _index_page(dates: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            f'<td><a href="verdicts/{each["as_of"]}.html">{each["as_of"]}</a></td>',
            *(f"<td>{_passed(passed)}</td>" for passed in each["suites"].values()),
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


def _passed(passed: bool) -> str:
    return f'<span class="{"passed" if passed else "failed"}">{"passed" if passed else "failed"}</span>'


def _page(title: str, body: str) -> str:
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    return f'<!DOCTYPE html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def _write(path: Path, text: str) -> None:
    """Replace a page in one move, so that a reader never meets half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
