"""Options that several verbs share."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from mmlora.dates import FIRST, LAST
from mmlora.dates import parse_date as parse_date
from mmlora.errors import UsageError


def parse_moment(text: str | None) -> datetime | None:
    """Turn an ISO time into a UTC datetime; a time without a zone is UTC."""
    from datetime import UTC

    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a time: write e.g. 2001-01-02T03:00:00Z") from None
    if not FIRST <= moment.date() <= LAST:
        raise UsageError(f"{text} is out of range: give a time from {FIRST} to {LAST}")
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


DomainOption = Annotated[str | None, typer.Option("--domain", help="This domain only; all when left out.")]
DateText = Annotated[str, typer.Option("--date", help="The date to score, YYYY-MM-DD.")]
AsOfText = Annotated[
    str, typer.Option("--as-of", help="What was known on this day at 00:00 UTC, YYYY-MM-DD.")
]
AcceptBelowBaseline = Annotated[
    bool,
    typer.Option("--accept-below-baseline", help="Accept a model that is below its best baseline."),
]
AllowStale = Annotated[
    bool, typer.Option("--allow-stale", help="Score also a date that the data doesn't reach.")
]
KnownAsOfText = Annotated[
    str | None,
    typer.Option("--known-as-of", help="Use features known by this time instead of the date's 00:00 UTC."),
]
