"""Check whether a load is far smaller than the last published night, e.g. because of a wrong pair table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mmlora.errors import UsageError
from mmlora.load_checks import AuditCheck, LoadChecks
from mmlora.names import Overridable, valid_names

if TYPE_CHECKING:
    from mmlora.nights.rehearsal import Rehearsal
    from mmlora.warehouse.loads import Load
    from mmlora.warehouse.warehouse import Warehouse

SIZE = "size"


def check_size(
    warehouse: Warehouse | Rehearsal, load: Load, *, rows: int, users: int, top_k: int, min_ratio: float
) -> AuditCheck:
    """Compare a load with the domain's newest published night up to its date.

    It must have at least ``min_ratio`` times as many users, and as many rows if ``top_k`` is the same, give
    or take three standard deviations.
    """
    published = warehouse.publications(domain=load.domain_id, end=load.score_date)
    if not published:
        return AuditCheck(SIZE, True, "there is no earlier night to compare with")
    last = warehouse.load(published[0].load_id)
    facts = last.checks or LoadChecks()
    last_users, last_rows = facts.users, last.rows or 0
    what = f"{rows:,} rows of {users:,} users"
    than = f"{last_rows:,} rows" + ("" if last_users is None else f" of {last_users:,} users")
    few = last_users is not None and _fewer(users, last_users, min_ratio)
    if facts.top_k in (None, top_k):
        few = few or _fewer(rows, last_rows, min_ratio, clump=max(1.0, last_rows / max(last_users or 1, 1)))
    return AuditCheck(
        SIZE,
        not few,
        f"{what}; load {last.load_id} of {last.score_date}, which readers have now, has {than} "
        f"(min_size_ratio = {min_ratio:g})",
    )


def check_override(override: str | None, reason: str | None) -> None:
    """Refuse to override a check without a reason, or a check that can't be overridden.

    Raises:
        UsageError: only one of check and reason is given, or there is no such check.
    """
    if override is None and reason is None:
        return
    if override not in valid_names(Overridable):
        raise UsageError(
            f"there is no check {override!r} to override: valid are {', '.join(valid_names(Overridable))}"
        )
    if not (reason or "").strip():
        raise UsageError("--override needs --reason TEXT, which is recorded in the ledger")


def _fewer(count: float, before: float, ratio: float, *, clump: float = 1.0) -> bool:
    """Whether a count that comes in clumps (a user's rows) is below ``ratio * before`` beyond chance."""
    units = count / clump
    at_most = units + 4.5 + 3 * math.sqrt(units + 2.25)
    return at_most < ratio * before / clump
