"""Validate the offline store as of a date: compute figures, run the suites, give verdicts."""

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
    """The results of a validation.

    Attributes:
        as_of: the date of the validation.
        verdicts: one per expected or ever seen domain, sorted by id.
        suites: whether each suite passed in every domain (``interactions``, ``domain_sparsity``).
        failures: one line per failed expectation and domain: ``suite: domain: reason``.
        day_failures: faults of the day as a whole, which has no rows in any domain.
        data_docs_index: path of the index page of the Data Docs.
        passed: whether the day has rows, and no expectation failed that makes a domain broken.
    """

    as_of: date
    verdicts: list[DomainVerdict]
    suites: dict[str, bool]
    failures: list[str]
    day_failures: tuple[str, ...]
    data_docs_index: Path
    passed: bool


def run_validation(
    offline: Path,
    *,
    as_of: date,
    thresholds: Thresholds,
    expected_domains: Sequence[Id],
    data_docs: Path,
) -> ValidationReport:
    """Check the interactions known by ``as_of`` 00:00 UTC and give each domain a verdict.

    Faulty rows make their own domain ``broken`` and no other. Faulty rows without a domain are reported among
    the failures without affecting any domain. Validating the same date again gives the same report and pages.

    Args:
        offline: the offline store's folder.
        as_of: the date; later events and rows known later are ignored.
        thresholds: limits of both suites.
        expected_domains: domains that should have rows, in addition to those ever seen.
        data_docs: folder of the Data Docs, with the pages of earlier dates.

    Raises:
        DataError: the store does not exist, or a file cannot be read or lacks a column.
        UsageError: an expected domain isn't an id of the store's type.
        CheckError: an expectation could not be evaluated.
    """
    figures = compute_figures(offline, as_of=as_of, thresholds=thresholds, expected_domains=expected_domains)
    # Imported only after the data was read, because the import takes seconds.
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
    failed = [(failure.rule, failure.domain, failure.reason) for failure in outcome.failures]
    day_failures = _day_failures(figures, as_of, thresholds)
    index = write_pages(data_docs, as_of=as_of, verdicts=verdicts, rules=rules, failures=failed)
    logger.info("validated as of %s: %s", as_of, outcome.suites)
    return ValidationReport(
        as_of=as_of,
        verdicts=verdicts,
        suites=outcome.suites,
        failures=[f"{rule.suite}: {domain}: {reason}" for rule, domain, reason in failed],
        day_failures=day_failures,
        data_docs_index=index,
        passed=not day_failures and all(rule.verdict != "broken" for rule, _, _ in failed),
    )


def _day_failures(figures: Figures, as_of: date, thresholds: Thresholds) -> tuple[str, ...]:
    """Check all domains together: if a day was not imported, none of them has rows."""
    rows, last_day_rows = (pc.sum(figures.frame.column(name)).as_py() for name in ("rows", "last_day_rows"))
    if not rows:
        return (f"no domain has rows in the last {thresholds.window_days} days: all are absent",)
    if not last_day_rows:
        return (f"no domain has rows on {as_of - timedelta(days=1)}, the last day: import it first",)
    return ()
