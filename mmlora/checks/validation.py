"""Validating the offline store as of a date: figures, suites, verdicts."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pyarrow.compute as pc

from mmlora.checks.figures import Figures, compute_figures
from mmlora.checks.pages import write_pages
from mmlora.checks.rules import suite_rules
from mmlora.checks.thresholds import Thresholds
from mmlora.checks.verdicts import domain_verdict
from mmlora.schema import DomainVerdict, Id, Verdict

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ValidationReport:
    """What a validation found.

    Attributes:
        as_of: its date.
        verdicts: one a domain, expected or ever seen, sorted by id.
        suites: whether each suite passed in every domain (``interactions``, ``domain_sparsity``).
        failures: one line a failed expectation and domain: ``suite: domain: what``.
        day_failures: what is wrong with the day as a whole: it has no rows in any domain.
        data_docs_index: the first page of the Data Docs.
    """

    as_of: date
    verdicts: list[DomainVerdict]
    suites: dict[str, bool]
    failures: list[str]
    day_failures: tuple[str, ...]
    data_docs_index: Path
    passed: bool
    """Whether no expectation failed that makes a domain broken, and the day has rows."""


def run_validation(
    offline: Path,
    *,
    as_of: date,
    thresholds: Thresholds,
    expected_domains: Sequence[Id],
    data_docs: Path,
) -> ValidationReport:
    """Check the interactions known by ``as_of`` 00:00 UTC and give each domain its verdict.

    Faults in rows make their domain ``broken`` and leave the others alone. Faulty rows without a domain are
    among the failures, and no domain answers for them. The same date again gives the same report and pages.

    Args:
        offline: the offline store's folder.
        as_of: the date; later events, and rows known later, don't count.
        thresholds: limits of both suites.
        expected_domains: domains that should have rows, beside those ever seen.
        data_docs: folder of the Data Docs; holds the pages of earlier dates too.

    Raises:
        DataError: there is no store, or a file cannot be read or lacks a column.
        UsageError: an expected domain is no id of the store's type.
        CheckError: an expectation could not be evaluated.
    """
    figures = compute_figures(offline, as_of=as_of, thresholds=thresholds, expected_domains=expected_domains)
    # Not until the data can be read: this import takes seconds.
    from mmlora.checks.expectations import run_suites

    rules = suite_rules(thresholds)
    outcome = run_suites(figures.frame, rules)
    by_name: dict[str, list[tuple[Verdict, str]]] = defaultdict(list)
    for failure in outcome.failures:
        by_name[failure.domain].append((failure.rule.verdict, failure.reason))
    verdicts = [
        domain_verdict(domain, row, by_name[row["domain"]], as_of=as_of)
        for domain, row in zip(figures.domains, figures.frame.to_pylist(), strict=False)
    ]
    found = [(each.rule, each.domain, each.reason) for each in outcome.failures]
    day_failures = _day_failures(figures, as_of, thresholds)
    index = write_pages(data_docs, as_of=as_of, verdicts=verdicts, rules=rules, failures=found)
    logger.info("validated as of %s: %s", as_of, outcome.suites)
    return ValidationReport(
        as_of=as_of,
        verdicts=verdicts,
        suites=outcome.suites,
        failures=[f"{each.rule.suite}: {each.domain}: {each.reason}" for each in outcome.failures],
        day_failures=day_failures,
        data_docs_index=index,
        passed=not day_failures and all(each.rule.verdict != "broken" for each in outcome.failures),
    )


def _day_failures(figures: Figures, as_of: date, thresholds: Thresholds) -> tuple[str, ...]:
    """Judge all domains together: a day that was not imported leaves each of them without rows."""
    rows, last_day_rows = (pc.sum(figures.frame.column(name)).as_py() for name in ("rows", "last_day_rows"))
    if not rows:
        return (f"no domain has rows in the last {thresholds.window_days} days: all are absent",)
    if not last_day_rows:
        return (f"no domain has rows on {as_of - timedelta(days=1)}, the last day: import it first",)
    return ()
