"""Find the command that repairs a model whose manifest or parts are lost, for ``mmlora verify`` to show."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING

from mmlora.pipeline.promote import champion_before
from mmlora.runs.champions import CHALLENGER, CHAMPION
from mmlora.runs.retraining import retrain_command
from mmlora.workspace import Workspace

if TYPE_CHECKING:
    from mmlora.registry.verify import BundleVerifier
    from mmlora.warehouse.decisions import Promotion
    from mmlora.warehouse.warehouse import Warehouse


@dataclass
class ModelUse:
    """The uses of a model version.

    Attributes:
        model_version: the model version.
        decisions: the current decisions that make it champion or challenger.
        loads: domain and date of the published and staged loads that it scored.
    """

    model_version: str
    decisions: list[Promotion] = field(default_factory=list)
    loads: list[tuple[str, date]] = field(default_factory=list)

    def __str__(self) -> str:
        return f"model {self.model_version} ({', '.join(self._uses())})"

    def _uses(self) -> Iterator[str]:
        for decision in self.decisions:
            yield f"{decision.alias} of {_domain_name(decision)}"
        if self.loads:
            first, last = self.nights
            dates = f"{first} to {last}" if first != last else f"{first}"
            yield f"loads scored: {len(self.loads):,} of {dates}"

    @property
    def nights(self) -> tuple[date, date]:
        """The first and the last date of its loads."""
        dates = [on for _, on in self.loads]
        return min(dates), max(dates)


def mend_of(workspace: Workspace, warehouse: Warehouse, verifier: BundleVerifier, use: ModelUse) -> str:
    """Return the command that restores a model, or that replaces it where it is used.

    Repeating its training run restores it bit by bit. Without that run, a champion is replaced first, and
    then the champion scores the nights of the lost model again.
    """
    if (command := retrain_command(workspace, use.model_version)) is not None:
        return command
    for decision in use.decisions:
        if decision.alias == CHAMPION:
            return _another_champion(warehouse, verifier, decision)
    if use.loads:
        first, last = use.nights
        names = sorted({name for name, _ in use.loads})
        domains = " ".join(f"--domain {shlex.quote(name)}" for name in names)
        return f"mmlora backfill {domains} --start {first} --end {last} --state stale"
    return _train(use.model_version)


def _another_champion(warehouse: Warehouse, verifier: BundleVerifier, decision: Promotion) -> str:
    domain = decision.domain_id
    option = "" if domain is None else f" --domain {shlex.quote(str(domain))}"
    before = champion_before(warehouse.promotions(CHAMPION, domain))
    if before is not None and not verifier.faults(before.model_version):
        return f"mmlora rollback{option}"
    challenger = warehouse.current(CHALLENGER, domain)
    if challenger is not None and not verifier.faults(challenger):
        return f"mmlora promote {challenger}{option}"
    return f"{_train(decision.model_version)}, then mmlora promote VERSION{option} with the version it prints"


def _train(model_version: str) -> str:
    try:
        day = datetime.strptime(model_version[:8], "%Y%m%d").date().isoformat()
    except ValueError:  # not a version that mmlora made
        day = "DATE"
    return f"mmlora train --as-of {day}"


def _domain_name(decision: Promotion) -> str:
    return "all domains" if decision.domain_id is None else str(decision.domain_id)
