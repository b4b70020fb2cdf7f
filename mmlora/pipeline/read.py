"""``mmlora read``: stream published scores. It needs only the warehouse, not data or models."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from mmlora.errors import DataError, UsageError
from mmlora.pipeline.user_file import users_in
from mmlora.schema import Id
from mmlora.settings import load_settings
from mmlora.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from mmlora.warehouse.publish import Publication
    from mmlora.warehouse.warehouse import Warehouse

logger = logging.getLogger(__name__)

_SHOWN = 5


@contextmanager
def read_scores(
    domain: str,
    *,
    on: date | None = None,
    start: date | None = None,
    end: date | None = None,
    user: str | None = None,
    users: Path | Iterable[Id] | None = None,
    limit: int | None = None,
    home: Path | str | None = None,
    url: str | None = None,
) -> Iterator[pa.RecordBatchReader]:
    """Open a domain's published scores by score date, user and position.

    A date of a range that nothing was published for has no rows, and a warning names it.

    Args:
        domain: the domain.
        on: the score date; the newest published one when neither it nor a range is given.
        start: the first score date of a range, included; the first published one when None.
        end: the last one, included; the newest published one when None.
        user: this user's only.
        users: these users' only: ids, or a file of them (:func:`~mmlora.pipeline.user_file.users_in`).
        limit: maximum number of rows.
        home: the workspace whose warehouse is read; that of the settings when None.
        url: the URL of a warehouse, independent of workspaces.

    Raises:
        UsageError: there is no warehouse, nothing is published for the domain or these dates, a user's id is
            of the wrong type, or options don't go together.
        DataError: `mmlora gc` has freed nights of the range; they are named.
        ContractError: the database isn't the warehouse that the workspace has used before.
    """
    if on is not None and (start or end):
        raise UsageError("a date and a range of dates are two ways to say when: give one of them")
    if start and end and start > end:
        raise UsageError(f"the first date {start} is after the last, {end}: give the earlier date first")
    if user is not None and users is not None:
        raise UsageError("one user and several are two ways to say who: give one of them")
    given = [user] if user is not None else users_in(users) if isinstance(users, Path) else users
    with open_published(home, url) as warehouse:
        target = _domain(warehouse, domain)
        ids = None if given is None else {_user(warehouse, each) for each in given}
        ranged = start or end
        published = _range(warehouse, target, start, end) if ranged else [_night(warehouse, target, on)]
        yield warehouse.read_publications(published, users=ids, limit=limit)


def _user(warehouse: Warehouse, user: Id) -> Id:
    try:
        return warehouse.ids.parse("user", str(user))
    except ValueError:
        raise UsageError(f"user {user!r}: user ids are whole numbers of 64 bits here") from None


def _night(warehouse: Warehouse, domain: Id, on: date | None) -> Publication:
    published = warehouse.publication(domain, on)
    if published is None:
        dates = [f"{night.score_date}" for night in warehouse.publications(domain=domain)[:_SHOWN]]
        raise UsageError(
            f"nothing is published for domain {str(domain)!r} on {on}; "
            f"the newest published dates are {', '.join(dates)}"
        )
    return published


def _range(warehouse: Warehouse, domain: Id, start: date | None, end: date | None) -> list[Publication]:
    """Return what is published from ``start`` to ``end``, oldest first; warn of dates without a night."""
    everything = warehouse.publications(domain=domain)[::-1]
    first, last = start or everything[0].score_date, end or everything[-1].score_date
    if freed := warehouse.freed_nights(domain, first, last):
        raise DataError(
            f"domain {str(domain)!r}, {first} to {last}",
            f"`mmlora gc` freed the nights of {_listed(freed)}: leave these dates out, or score them again",
        )
    published = [each for each in everything if first <= each.score_date <= last]
    if not published:
        raise UsageError(
            f"nothing is published for domain {str(domain)!r} from {first} to {last}; its published dates go "
            f"from {everything[0].score_date} to {everything[-1].score_date}"
        )
    dates = {each.score_date for each in published}
    days = (first + timedelta(days=number) for number in range((last - first).days + 1))
    if absent := [day for day in days if day not in dates]:
        logger.warning("domain %s: nothing is published on %s", domain, _listed(absent))
    return published


def _listed(dates: Sequence[date]) -> str:
    more = f" and {len(dates) - _SHOWN:,} more dates" if len(dates) > _SHOWN else ""
    return ", ".join(map(str, dates[:_SHOWN])) + more


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
