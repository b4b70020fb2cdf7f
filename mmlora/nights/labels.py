"""Published nights joined with what users then clicked."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING

from mmlora.errors import UsageError
from mmlora.schema import DOMAIN_ID, ITEM_ID, LABEL, SCORE, USER_ID, Id, midnight
from mmlora.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from mmlora.warehouse.publish import Publication
    from mmlora.warehouse.warehouse import Warehouse


@dataclass(frozen=True)
class LabelledNight:
    """A published night with its labels.

    Attributes:
        impressions: the domain's interactions of the date.
        scored: those whose user and item were published for the date: user_id, item_id, label, score.
    """

    impressions: int
    scored: pa.Table


def published_nights(
    workspace: Workspace,
    warehouse: Warehouse,
    domains: Collection[str],
    start: date | None,
    end: date | None,
) -> list[Publication]:
    """Return the published nights of some domains, or of all, and dates.

    Raises:
        UsageError: nothing is published for these domains and dates, or a domain is unknown.
    """
    wanted = {workspace.domain(domain) for domain in domains}
    published = warehouse.publications(start=start, end=end)
    nights = [night for night in published if not wanted or night.domain_id in wanted]
    if not nights:
        of = f" for {', '.join(sorted(domains))}" if domains else ""
        raise UsageError(
            f"nothing is published{of} from {start or 'the first date'} to {end or 'the last'}: "
            "run `mmlora status` to see the nights"
        )
    return nights


def interactions_of(workspace: Workspace, on: date, known_as_of: datetime) -> pa.Table:
    """Return a date's interactions as they are known at a moment."""
    from mmlora.data.current import read_current

    day_end = midnight(on + timedelta(days=1))
    return read_current(
        workspace.offline, known_as_of=known_as_of, since=midnight(on), before=min(day_end, known_as_of)
    )


def shown_in(workspace: Workspace, domain: Id, on: date, known_as_of: datetime) -> pa.Table | None:
    """Return a domain's interactions of a date as they are known at a moment; None if there are none."""
    import pyarrow.compute as pc

    table = interactions_of(workspace, on, known_as_of)
    own = table.filter(pc.equal(table[DOMAIN_ID], domain))
    return own if own.num_rows else None


def labelled_nights(
    workspace: Workspace, warehouse: Warehouse, nights: Iterable[Publication], known_as_of: datetime
) -> Iterator[tuple[Publication, LabelledNight | None]]:
    """Yield nights by date, each with its labels, or None if it has no interactions."""
    for on, same_date in groupby(sorted(nights, key=lambda n: n.score_date), key=lambda n: n.score_date):
        shown = interactions_of(workspace, on, known_as_of)
        for night in same_date:
            yield night, labelled(warehouse, night, shown)


def labelled(warehouse: Warehouse, night: Publication, shown: pa.Table) -> LabelledNight | None:
    """Return a night with its labels; None if it has no interactions.

    Args:
        warehouse: the warehouse.
        night: the night.
        shown: the interactions of its date.
    """
    import pyarrow.compute as pc

    of_domain = shown.filter(pc.equal(shown[DOMAIN_ID], night.domain_id))
    if not of_domain.num_rows:
        return None
    users = set(of_domain[USER_ID].unique().to_pylist())
    published = warehouse.read_publications([night], users=users).read_all()
    return LabelledNight(of_domain.num_rows, with_scores(of_domain, published))


def with_scores(shown: pa.Table, scores: pa.Table) -> pa.Table:
    """Return the interactions whose pair has a score, by user, item and label."""
    labels = shown.select([USER_ID, ITEM_ID, LABEL])
    joined = labels.join(scores.select([USER_ID, ITEM_ID, SCORE]), [USER_ID, ITEM_ID], join_type="inner")
    return joined.sort_by([(USER_ID, "ascending"), (ITEM_ID, "ascending"), (LABEL, "ascending")])
