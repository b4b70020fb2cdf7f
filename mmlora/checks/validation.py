"""Validate the offline store as of a date: compute figures, run the suites, give verdicts."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from mmlora.check_rules import AuditCheck, CheckRule, rules_in_force
from mmlora.checks.figures import Figures, compute_figures
from mmlora.checks.pages import write_pages
from mmlora.checks.rules import Rule, suite_rules
from mmlora.checks.thresholds import Thresholds
from mmlora.checks.verdicts import domain_verdict
from mmlora.schema import DomainVerdict, Id

if TYPE_CHECKING:
    from mmlora.checks.expectations import FailedExpectation

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
    checks: Mapping[str, CheckRule] | None = None,
    empty_days: Collection[date] = (),
    labels_mature: bool = True,
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
        checks: the rules in force by name; the declared ones with these thresholds when None.
        empty_days: days that may have few rows or none.
        labels_mature: whether the last day's labels are final; otherwise its label rate isn't compared.

    Raises:
        DataError: the store does not exist, or a file cannot be read or lacks a column.
        UsageError: an expected domain isn't an id of the store's type.
        CheckError: an expectation could not be evaluated.
    """
    figures = compute_figures(
        offline,
        as_of=as_of,
        thresholds=thresholds,
        expected_domains=expected_domains,
        empty_days=empty_days,
        labels_mature=labels_mature,
    )
    # Imported only after the data was read, because the import takes seconds.
    from mmlora.checks.expectations import run_suites

    rules = suite_rules(thresholds, checks or rules_in_force(asdict(thresholds)))
    outcome = run_suites(figures.frame, rules)
    by_name: dict[str, list[FailedExpectation]] = defaultdict(list)
    for failure in outcome.failures:
        by_name[failure.domain].append(failure)
    verdicts = [
        domain_verdict(
            domain,
            row,
            [
                (failed.rule.verdict, failed.reason)
                for failed in by_name[row["domain"]]
                if failed.rule.verdict
            ],
            as_of=as_of,
            checks=_checked(row, rules, by_name[row["domain"]]),
        )
        for domain, row in zip(figures.domains, figures.frame.to_pylist(), strict=False)
    ]
    failed = [(failure.rule, failure.domain, failure.reason) for failure in outcome.failures]
    declared = as_of - timedelta(days=1) in empty_days
    day_failures = () if declared else _day_failures(figures, as_of, thresholds)
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


def _checked(
    row: Mapping[str, Any], rules: Sequence[Rule], failures: Sequence[FailedExpectation]
) -> tuple[AuditCheck, ...]:
    """Return the outcome of each check for a domain's row of the frame."""
    reasons = {failed.rule.column: failed.reason for failed in failures}
    return tuple(
        rule.check.outcome(
            None if (figure := row[rule.column]) is None else float(figure),
            reasons.get(rule.column) or (rule.check.meaning if figure is not None else "nothing to compare"),
        )
        for rule in rules
        if rule.check is not None
    )


def _day_failures(figures: Figures, as_of: date, thresholds: Thresholds) -> tuple[str, ...]:
    """Check all domains together: if a day was not imported, none of them has rows."""
    rows, last_day_rows = (pc.sum(figures.frame.column(name)).as_py() for name in ("rows", "last_day_rows"))
    if not rows:
        return (f"no domain has rows in the last {thresholds.window_days} days: all are absent",)
    if not last_day_rows:
        return (f"no domain has rows on {as_of - timedelta(days=1)}, the last day: import it first",)
    return ()
