"""Checks that somebody overrides for a night, and why."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mmlora.check_rules import RULE_NAMES, AuditCheck
from mmlora.errors import UsageError


@dataclass(frozen=True)
class Overrides:
    """The checks to override, and the reason."""

    checks: frozenset[str] = frozenset()
    reason: str = ""

    @classmethod
    def of(cls, checks: Collection[str] | None, reason: str | None) -> Overrides:
        """Return what the options ``override`` and ``reason`` say.

        Raises:
            UsageError: only one of checks and reason is given, or there is no such check.
        """
        checks = checks or ()
        if not checks and reason is None:
            return cls()
        if unknown := sorted(set(checks).difference(RULE_NAMES)):
            raise UsageError(
                f"there is no check {', '.join(map(repr, unknown))} to override: valid are "
                f"{', '.join(RULE_NAMES)}"
            )
        if not checks:
            raise UsageError("--reason needs --override CHECK, the check that it is for")
        if not (reason or "").strip():
            raise UsageError("--override needs --reason TEXT, which is recorded in the ledger")
        return cls(frozenset(checks), str(reason))

    def left(self, outcomes: Sequence[AuditCheck]) -> list[AuditCheck]:
        """Return the outcomes that block, without those that are overridden."""
        return [outcome for outcome in outcomes if outcome.blocks and outcome.name not in self.checks]

    def used(self, outcomes: Sequence[AuditCheck]) -> dict[str, str]:
        """Return why each check that would block is overridden, by check."""
        return {
            outcome.name: self.reason
            for outcome in outcomes
            if outcome.blocks and outcome.name in self.checks
        }


def remedy(blocked: Sequence[AuditCheck]) -> str:
    """Return how to publish all the same."""
    options = " ".join(f"--override {name}" for name in dict.fromkeys(check.name for check in blocked))
    return f"if this is intended, use {options} --reason TEXT"
