"""``mmlora validate``: run the two suites, and store a verdict per domain in the warehouse."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from mmlora.runs.verdicts import StoredVerdicts, check_domains, stored_verdicts
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


def validate(as_of: date) -> Validation:
    """Check the data known at ``as_of`` 00:00 UTC and store the verdicts."""
    workspace = open_workspace()
    with workspace.open_warehouse():
        report = check_domains(workspace, as_of)
        stored = stored_verdicts(workspace, as_of)
    return Validation(
        **vars(stored),
        passed=report.passed,
        day_failures=report.day_failures,
        failures=tuple(report.failures),
    )
