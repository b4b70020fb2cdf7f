"""Check whether a load is far smaller than the last published night, e.g. because of a wrong pair table."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING

from mmlora.check_rules import AuditCheck, CheckRule
from mmlora.load_checks import LoadChecks

if TYPE_CHECKING:
    from mmlora.nights.rehearsal import Rehearsal
    from mmlora.warehouse.loads import Load
    from mmlora.warehouse.publish import Publication
    from mmlora.warehouse.warehouse import Warehouse

NO_NIGHT = "there is no earlier night to compare with"
RECENT = timedelta(days=14)
"""Nights further back are not compared with, because a domain changes."""


def night_before(warehouse: Warehouse | Rehearsal, load: Load) -> Publication | None:
    """Return the domain's newest published night of the days before a load's date; None if there is none.

    Not that of the date itself, which the load may be meant to repair.
    """
    first, last = load.score_date - RECENT, load.score_date - timedelta(days=1)
    published = warehouse.publications(domain=load.domain_id, start=first, end=last)
    return published[0] if published else None


def check_size(
    rule: CheckRule, warehouse: Warehouse | Rehearsal, load: Load, *, rows: int, users: int, top_k: int
) -> AuditCheck:
    """Compare a load with the domain's newest published night up to its date.

    The figure is the number of users over that night's, or of rows if ``top_k`` is the same and it is less;
    both give or take three standard deviations.
    """
    published = warehouse.publications(domain=load.domain_id, end=load.score_date)
    if not published:
        return rule.outcome(None, NO_NIGHT)
    last = warehouse.load(published[0].load_id)
    facts = last.checks or LoadChecks()
    last_users, last_rows = facts.users, last.rows or 0
    shares = [] if last_users is None else [_share(users, last_users)]
    if facts.top_k in (None, top_k):
        shares.append(_share(rows, last_rows, clump=max(1.0, last_rows / max(last_users or 1, 1))))
    than = f"{last_rows:,} rows" + ("" if last_users is None else f" of {last_users:,} users")
    return rule.measured(
        min(shares, default=None),
        f"{rows:,} rows of {users:,} users; load {last.load_id} of {last.score_date}, which readers have "
        f"now, has {than}",
    )


def _share(count: float, before: float, *, clump: float = 1.0) -> float:
    """Return a count that comes in clumps (a user's rows), plus what chance explains, over that before."""
    units = count / clump
    return (units + 4.5 + 3 * math.sqrt(units + 2.25)) * clump / max(before, 1.0)
