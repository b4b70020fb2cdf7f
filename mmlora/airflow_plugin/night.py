"""What the page shows of a domain's night: loads, checks, verdict, and why readers don't have it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from mmlora.check_rules import AuditCheck
from mmlora.errors import UsageError
from mmlora.schema import DomainVerdict
from mmlora.warehouse.loads import Load
from mmlora.warehouse.warehouse import Warehouse


@dataclass(frozen=True)
class NightFacts:
    """A domain's night.

    Attributes:
        domain: the domain.
        day: its date.
        load: the load that readers have, else the newest; None if there is none.
        others: the other loads, newest first.
        verdict: of the domain's data; None if it was not validated.
        reason: why readers don't have it; None if they do, or if nobody tried.
    """

    domain: str
    day: date
    load: Load | None
    others: tuple[Load, ...]
    verdict: DomainVerdict | None
    reason: str | None

    @property
    def rate(self) -> float | None:
        """Pairs of the load that were scored per second."""
        checks = self.load.checks if self.load else None
        return checks.pairs / checks.seconds if checks and checks.pairs and checks.seconds else None

    @property
    def checks(self) -> list[AuditCheck]:
        """The outcomes of all checks of data and load, those that failed first."""
        of_load = (self.load.checks.audit if self.load and self.load.checks else None) or ()
        outcomes = (*(self.verdict.checks if self.verdict else ()), *of_load)
        return sorted(outcomes, key=lambda check: check.passed)


def night_facts(warehouse: Warehouse, domain: str, day: date) -> NightFacts:
    """Return what is known of a domain's night.

    Raises:
        UsageError: the text can't be a domain's id.
    """
    try:
        target = warehouse.ids.parse("domain", domain)
    except ValueError as error:
        raise UsageError(f"there is no domain {domain!r}: {error}") from None
    loads = warehouse.loads(domain=target, score_date=day)
    shown = next((load for load in loads if load.state == "published"), loads[0] if loads else None)
    verdict = next(iter(warehouse.verdicts(day, domain=target)), None)
    failure = warehouse.failures(day).get(target)
    published = shown is not None and shown.state == "published"
    others = tuple(load for load in loads if load is not shown)
    return NightFacts(
        domain, day, shown, others, verdict, None if published else _why(shown, verdict, failure)
    )


def _why(load: Load | None, verdict: DomainVerdict | None, failure: str | None) -> str | None:
    """Return why a night isn't published, as exactly as is known."""
    if load is not None and load.reason:
        return load.reason
    if failure is None and verdict is not None and verdict.verdict in ("broken", "absent"):
        return f"{verdict.verdict}: {'; '.join(verdict.reasons) or 'nobody to score'}"
    return failure
