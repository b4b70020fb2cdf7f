"""The domains' verdicts as of a date, stored in the warehouse."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from mmlora.names import Verdict
from mmlora.records import Record
from mmlora.schema import DomainVerdict, Id
from mmlora.workspace import Workspace

if TYPE_CHECKING:
    from mmlora.checks.validation import ValidationReport

logger = logging.getLogger(__name__)

_NO_THRESHOLDS = {"domains", "rules", "empty_days"}


@dataclass(frozen=True)
class StoredVerdicts(Record):
    """The domains' verdicts of a date.

    Attributes:
        as_of: the date.
        domains: each domain's verdict, with its figures.
        data_docs: the first page of the Data Docs.
    """

    as_of: date
    domains: tuple[DomainVerdict, ...]
    data_docs: str

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """The verdicts by domain."""
        return {str(domain.domain_id): domain.verdict for domain in self.domains}

    def to_json(self) -> dict[str, object]:
        """Return a JSON-ready mapping, with the verdicts by domain as well."""
        raw = super().to_json()
        return {"as_of": raw.pop("as_of"), "verdicts": self.verdicts, **raw}


def check_domains(workspace: Workspace, as_of: date) -> ValidationReport:
    """Run the suites on the data known at ``as_of`` 00:00 UTC, and store each domain's verdict."""
    from mmlora.checks.thresholds import Thresholds
    from mmlora.checks.validation import run_validation

    report = run_validation(
        workspace.offline,
        as_of=as_of,
        thresholds=Thresholds(**workspace.settings.checks.model_dump(exclude=_NO_THRESHOLDS)),
        checks=workspace.check_rules,
        empty_days=workspace.settings.checks.empty_days,
        labels_mature=workspace.settings.training.label_maturity_hours == 0,
        expected_domains=workspace.expected_domains(),
        data_docs=workspace.home / "data_docs",
    )
    with workspace.open_warehouse() as warehouse:
        warehouse.record_verdicts(report.verdicts)
    for verdict in report.verdicts:
        for check in verdict.checks:
            if not check.passed and not check.blocks:
                logger.warning("%s as of %s: %s", verdict.domain_id, as_of, check)
    counts = Counter(verdict.verdict for verdict in report.verdicts)
    logger.info("validated as of %s: %s", as_of, ", ".join(f"{n} {name}" for name, n in counts.items()))
    return report


def stored_verdicts(workspace: Workspace, as_of: date) -> StoredVerdicts:
    """Return a date's stored verdicts."""
    with workspace.open_warehouse() as warehouse:
        verdicts = tuple(warehouse.verdicts(as_of))
    return StoredVerdicts(as_of, verdicts, str(workspace.home / "data_docs" / "index.html"))


def verdict_as_of(workspace: Workspace, as_of: date, domain: Id) -> DomainVerdict | None:
    """Return a domain's stored verdict of a date; validate first if it has none."""
    with workspace.open_warehouse() as warehouse:
        stored = warehouse.verdicts(as_of, domain=domain)
    return stored[0] if stored else verdicts_as_of(workspace, as_of).get(domain)


def verdicts_as_of(workspace: Workspace, as_of: date) -> dict[Id, DomainVerdict]:
    """Return the stored verdicts of a date by domain; validate first if a domain has none."""
    with workspace.open_warehouse() as warehouse:
        verdicts = warehouse.verdicts(as_of)
        if set(workspace.expected_domains()).difference(verdict.domain_id for verdict in verdicts):
            check_domains(workspace, as_of)
            verdicts = warehouse.verdicts(as_of)
    return {verdict.domain_id: verdict for verdict in verdicts}
