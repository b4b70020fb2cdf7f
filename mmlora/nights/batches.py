"""Divide a night's domains into batches, each of which one process scores with its libraries loaded once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from mmlora.runs.verdicts import verdicts_as_of
from mmlora.warehouse.warehouse import Warehouse
from mmlora.workspace import open_workspace


def batches(on: date, domains: Sequence[str], *, budget: int | None = None) -> list[list[str]]:
    """Return the domains in batches of about ``budget`` pairs, in order; a larger domain is alone.

    A domain's pairs are those of its newest load, or at most its users times its items where it has none.

    Args:
        on: the score date.
        domains: the domains to score.
        budget: pairs per batch; None uses the setting ``batch_pairs``.
    """
    workspace = open_workspace()
    budget = workspace.settings.scoring.batch_pairs if budget is None else budget
    verdicts = {str(name): verdict for name, verdict in verdicts_as_of(workspace, on).items()}
    found: list[list[str]] = []
    filled = budget
    with workspace.open_warehouse() as warehouse, warehouse.reads_in_a_row():
        for domain in domains:
            pairs = _pairs_before(warehouse, workspace.domain(domain))
            if pairs is None:
                verdict = verdicts.get(domain)
                pairs = verdict.users * verdict.items if verdict else budget
            if filled + pairs > budget or not found:
                found.append([])
                filled = 0
            found[-1].append(domain)
            filled += pairs
    return found


def _pairs_before(warehouse: Warehouse, domain: str | int) -> int | None:
    """Return the pairs of a domain's newest load; None if it has none."""
    loads = warehouse.loads(domain=domain, limit=1)
    checks = loads[0].checks if loads else None
    return checks.pairs if checks else None
