"""``mmlora read``: published scores, streamed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import TYPE_CHECKING

from mmlora.errors import UsageError
from mmlora.pipeline.workspace import open_workspace

if TYPE_CHECKING:
    import pyarrow as pa


@contextmanager
def read_scores(
    domain: str, *, on: date | None = None, user: str | None = None, limit: int | None = None
) -> Iterator[pa.RecordBatchReader]:
    """Open a domain's published scores by user and position.

    Args:
        domain: the domain.
        on: the score date; the newest published one when None.
        user: this user's only.
        limit: at most so many rows.

    Raises:
        UsageError: no such domain, nothing is published for it, or the user's id is of the wrong type.
    """
    workspace = open_workspace()
    target = workspace.domain(domain)
    try:
        user_id = None if user is None else workspace.ids.parse("user", user)
    except ValueError:
        raise UsageError(f"user {user!r}: user ids are whole numbers of 64 bits here") from None
    with workspace.open_warehouse() as warehouse:
        if warehouse.publication(target, on) is None:
            dates = [f"{found.score_date}" for found in warehouse.publications(domain=target)[:5]]
            raise UsageError(
                f"nothing is published for domain {domain!r}{f' on {on}' if on else ''}; "
                f"the newest published dates are {', '.join(dates) or 'none: score it first'}"
            )
        yield warehouse.read(target, score_date=on, user=user_id, limit=limit)
