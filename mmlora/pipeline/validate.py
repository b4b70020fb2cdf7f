"""``mmlora validate``: run the two suites, and store a verdict per domain in the warehouse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Literal

from mmlora.check_rules import RULES, AuditCheck
from mmlora.load_checks import LoadChecks
from mmlora.names import Severity, Stage
from mmlora.pipeline.metrics import figures_of
from mmlora.records import Record
from mmlora.runs.datasets import sources
from mmlora.runs.verdicts import StoredVerdicts, check_domains, stored_verdicts
from mmlora.telemetry import record, work
from mmlora.workspace import open_workspace


@dataclass(frozen=True)
class Validation(StoredVerdicts):
    """The result of a validation.

    Attributes:
        passed: whether no domain is broken, and the day has rows.
        day_failures: what is wrong with the day as a whole.
        failures: one line a failed expectation and domain.
    """

    passed: bool
    day_failures: tuple[str, ...]
    failures: tuple[str, ...]


@dataclass(frozen=True)
class ExplainedCheck(Record):
    """A check of a domain: the rule as it is in force, and its outcome.

    Attributes:
        domain_id: the domain.
        stage: what it checks; ``rows`` for what a load's files must be like, which has no rule.
        check: its name.
        passed: whether it passed.
        figure: the figure that was compared; None if there was nothing to compare.
        threshold: what it was compared with, in words; empty for a check without one.
        severity: what a failure does: ``block`` or ``warn``.
        owner: who is asked if it fails.
        detail: the figures that it used.
        overridden: why it was overridden; None unless it was.
        load_id: the load that was checked; None for checks of the interactions.
    """

    domain_id: str
    stage: Stage | Literal["rows"]
    check: str
    passed: bool
    figure: float | None
    threshold: str
    severity: Severity
    owner: str
    detail: str
    overridden: str | None = None
    load_id: str | None = None


def explain_checks(as_of: date) -> tuple[ExplainedCheck, ...]:
    """Return each check of a date: of the interactions, and of each domain's newest load for it.

    The interactions are those of the stored verdicts; other stages are checked when the date is scored.
    """
    workspace = open_workspace()
    with workspace.open_warehouse() as warehouse:
        verdicts = warehouse.verdicts(as_of)
        newest = {load.domain_id: load for load in reversed(warehouse.loads(score_date=as_of))}
    explained = []
    for verdict in verdicts:
        domain, load = str(verdict.domain_id), newest.get(verdict.domain_id)
        facts = (load.checks if load else None) or LoadChecks()
        why = facts.overridden or {}
        explained += [_explained(domain, check, why) for check in verdict.checks]
        known = {check.name for check in verdict.checks}
        explained += [
            _explained(domain, check, why, load.load_id if load else None)
            for check in facts.audit or ()
            if check.name not in known
        ]
    return tuple(explained)


def _explained(
    domain: str, check: AuditCheck, overridden: Mapping[str, str], load_id: str | None = None
) -> ExplainedCheck:
    rule = next((rule for rule in RULES if rule.name == check.name), None)
    limit = "" if rule is None or check.threshold is None else replace(rule, threshold=check.threshold).limit
    return ExplainedCheck(
        domain_id=domain,
        stage=rule.stage if rule else "rows",
        check=check.name,
        passed=check.passed,
        figure=check.figure,
        threshold=limit,
        severity=check.severity,
        owner=check.owner,
        detail=check.detail,
        overridden=overridden.get(check.name),
        load_id=load_id,
    )


def validate(as_of: date) -> Validation:
    """Check the data known at ``as_of`` 00:00 UTC and store the verdicts."""
    workspace = open_workspace()
    validating = work("validate", date=as_of, reads=sources(workspace))
    with workspace.open_warehouse() as warehouse, validating:
        report = check_domains(workspace, as_of)
        record(lambda: figures_of(warehouse))
        stored = stored_verdicts(workspace, as_of)
    return Validation(
        **vars(stored),
        passed=report.passed,
        day_failures=report.day_failures,
        failures=tuple(report.failures),
    )
