"""The outcomes of a load's checks: gathered stage by stage; a stage with one that blocks ends the load."""

from __future__ import annotations

import getpass
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mmlora.check_rules import RULE_NAMES, AuditCheck
from mmlora.errors import CheckError
from mmlora.load_checks import LoadChecks
from mmlora.nights.overrides import Overrides, remedy

if TYPE_CHECKING:
    from mmlora.nights.rehearsal import Rehearsal
    from mmlora.schema import DomainVerdict
    from mmlora.warehouse.loads import Load
    from mmlora.warehouse.warehouse import Warehouse

logger = logging.getLogger(__name__)


class NightChecks:
    """The outcomes of one load's checks so far.

    Args:
        warehouse: where the load is recorded.
        load: the load.
        overrides: checks that may fail.
        verdict: the domain's verdict; what failed of its checks is kept with the load too.
        allow_stale: whether data and features may be old.
    """

    def __init__(
        self,
        warehouse: Warehouse | Rehearsal,
        load: Load,
        overrides: Overrides,
        verdict: DomainVerdict | None,
        allow_stale: bool,
    ) -> None:
        self.allow_stale = allow_stale
        self.warehouse, self.load, self.overrides, self.verdict = warehouse, load, overrides, verdict
        self.outcomes = [check for check in (verdict.checks if verdict else ()) if not check.passed]

    def require(self, outcomes: Sequence[AuditCheck], facts: LoadChecks) -> None:
        """Add a stage's outcomes; reject the load if one of them blocks and isn't overridden.

        Args:
            outcomes: the outcomes.
            facts: what else is kept with the load.

        Raises:
            CheckError: the load was rejected; names each check, and how to override it if that is possible.
        """
        self.outcomes += outcomes
        for outcome in outcomes:
            if not outcome.passed and not outcome.blocks:
                logger.warning("%s, %s: %s", self.load.domain_id, self.load.score_date, outcome)
        if left := self.overrides.left(outcomes):
            self.warehouse.reject(self.load, reason="; ".join(map(str, left)), checks=self.of(facts))
            ways = [remedy(left)] if all(outcome.name in RULE_NAMES for outcome in left) else []
            raise CheckError(f"audit of load {self.load.load_id}", [*map(str, left), *ways])

    def of(self, facts: LoadChecks) -> LoadChecks:
        """Return what is kept with the load: facts, outcomes, and why checks were overridden."""
        overridden = self.overrides.used(self.outcomes) or None
        return replace(facts, audit=tuple(self.outcomes), overridden=overridden)

    def record_overrides(self) -> None:
        """Record in the ledger why checks were overridden."""
        for name, reason in self.overrides.used(self.outcomes).items():
            self.warehouse.record(self.load, "override", who=getpass.getuser(), why=f"{name}: {reason}")
