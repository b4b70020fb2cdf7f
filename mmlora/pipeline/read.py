"""``mmlora read``: stream published scores. It needs only the warehouse, not data or models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from mmlora.errors import UsageError
from mmlora.schema import Id
from mmlora.settings import load_settings
from mmlora.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from mmlora.warehouse.warehouse import Warehouse


@contextmanager
def read_scores(
    domain: str,
    *,
    on: date | None = None,
    user: str | None = None,
    limit: int | None = None,
    home: Path | str | None = None,
    url: str | None = None,
) -> Iterator[pa.RecordBatchReader]:
    """Open a domain's published scores by user and position.

    Args:
        domain: the domain.
        on: the score date; the newest published one when None.
        user: read only this user's scores.
        limit: maximum number of rows.
        home: the workspace whose warehouse is read; that of the settings when None.
        url: the URL of a warehouse, independent of workspaces.

    Raises:
        UsageError: there is no warehouse, nothing is published for the domain, or the user's id is of the
            wrong type.
        ContractError: the database isn't the warehouse that the workspace has used before.
    """
    with open_published(home, url) as warehouse:
        target = _domain(warehouse, domain)
        try:
            user_id = None if user is None else warehouse.ids.parse("user", user)
        except ValueError:
            raise UsageError(f"user {user!r}: user ids are whole numbers of 64 bits here") from None
        if warehouse.publication(target, on) is None:
            dates = [f"{night.score_date}" for night in warehouse.publications(domain=target)[:5]]
            raise UsageError(
                f"nothing is published for domain {domain!r} on {on}; "
                f"the newest published dates are {', '.join(dates)}"
            )
        yield warehouse.read(target, score_date=on, user=user_id, limit=limit)


def open_published(home: Path | str | None = None, url: str | None = None) -> Warehouse:
    """Open an existing warehouse for reading; it is never created."""
    from mmlora.warehouse.warehouse import Warehouse

    if url is not None:
        if home is not None:
            raise UsageError("a home and a URL are two ways to name a warehouse: give one of them")
        return Warehouse.open(url)
    workspace = Workspace(load_settings() if home is None else load_settings(home=home))
    return Warehouse.open(workspace.warehouse_url, identity=workspace.warehouse_identity)


def _domain(warehouse: Warehouse, text: str) -> Id:
    """Return the domain of this name, which must have a publication."""
    published = sorted({night.domain_id for night in warehouse.publications()}, key=str)
    for domain in published:
        if str(domain) == text:
            return domain
    names = ", ".join(str(domain) for domain in published) or "none yet: score a date first"
    raise UsageError(f"nothing is published for domain {text!r}; the domains published are {names}")
