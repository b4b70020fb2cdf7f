"""Options that several verbs share."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated

import typer

from mmlora.errors import UsageError


def parse_date(text: str) -> date:
    """Turn ``YYYY-MM-DD`` into a date (``UsageError`` otherwise)."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a date: write it as YYYY-MM-DD, e.g. 2000-12-31") from None


def parse_moment(text: str | None) -> datetime | None:
    """Turn an ISO time into a UTC datetime; a time without a zone is UTC."""
    from datetime import UTC

    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a time: write e.g. 2001-01-02T03:00:00Z") from None
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
KnownAsOfText = Annotated[
    str | None,
    typer.Option("--known-as-of", help="Use features known by this time instead of the date's 00:00 UTC."),
]
