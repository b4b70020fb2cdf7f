"""The policy of one domain: which users are scored, on which items, without which pairs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from mmlora.errors import UsageError
from mmlora.names import Exclusion, RetrievalName, Scope

ACTIVE, ALL = "active", "all"
PLACEHOLDERS = ("domain", "date")
TABLES = ("users", "stock", "pairs")
"""The parts of a policy that may name a table."""


@dataclass(frozen=True)
class Policy:
    """Which users are scored on which items in a domain.

    Attributes:
        items: ``all`` known items, or those seen in the ``domain``.
        available: a true/false column of the item profile; or two columns with the start and end of
            availability, one of which may be empty.
        stock: a table of (item_id, domain_id, from, until), as a path or SQL.
        exclude: which pairs to leave out: ``none``, those ``clicked``, or all ``seen``.
        exclude_days: number of days for which pairs are left out; 0 means for ever.
        exclude_in: whether interactions in the ``domain`` count, or in ``all`` domains.
        users: ``active`` users, ``all``, or a table of (user_id, domain_id), as a path or SQL.
        active_days: users with a row in the domain in this many last days are active.
        pairs: a table of (user_id, item_id, domain_id) instead of all of the above, as a path or SQL.
        retrieval: how each user's best items are preselected for the full model.
        retrieval_items: number of items to preselect.
    """

    items: Scope = "all"
    available: str | tuple[str, str] | None = None
    stock: str | None = None
    exclude: Exclusion = "clicked"
    exclude_days: int = 30
    exclude_in: Scope = "domain"
    users: str = ACTIVE
    active_days: int = 30
    pairs: str | None = None
    retrieval: RetrievalName = "none"
    retrieval_items: int = 1000

    def __post_init__(self) -> None:
        """Refuse an invalid policy.

        Raises:
            UsageError: a placeholder is unknown, or ``available`` names no column.
        """
        for name in TABLES:
            text = getattr(self, name) or ""
            unknown = sorted(set(re.findall(r"{(\w+)}", text)).difference(PLACEHOLDERS))
            if unknown:
                raise UsageError(
                    f"candidates.{name}: {{{unknown[0]}}} is not a placeholder; use "
                    f"{' and '.join(f'{{{valid}}}' for valid in PLACEHOLDERS)}"
                )
        if not isinstance(self.available, str | None) and not any(self.available):
            raise UsageError(
                'candidates.available: name a column, or two, e.g. ["on_sale_from", "on_sale_until"]'
            )

    @property
    def users_table(self) -> str | None:
        """The table of users, or None."""
        return None if self.users in (ACTIVE, ALL) else self.users

    def deciding(self) -> dict[str, object]:
        """Return the parts that have an effect: those that another part overrides are left out."""
        parts = {name: value for name, value in asdict(self).items() if value is not None}
        if self.pairs is not None:
            return {"pairs": self.pairs}
        if self.users != ACTIVE:
            del parts["active_days"]
        if self.exclude == "none":
            del parts["exclude_days"], parts["exclude_in"]
        if self.retrieval == "none":
            del parts["retrieval_items"]
        if self.available is not None and not isinstance(self.available, str):
            parts["available"] = list(self.available)
        return parts


def differences(before: Mapping[str, object] | None, now: Mapping[str, object]) -> list[str]:
    """Return the differences between two policies from :func:`~mmlora.candidates.tables.recorded`."""
    if before is None:
        return ["the policy of its candidates was not recorded"]
    names = [
        name for name in (*now, *(n for n in before if n not in now)) if before.get(name) != now.get(name)
    ]
    return [f"{name} was {_said(before.get(name))}, is {_said(now.get(name))}" for name in names]


def _said(value: object) -> str:
    return "unset" if value is None else str(value)
