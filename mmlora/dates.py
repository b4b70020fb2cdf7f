"""Parse dates for the command line and DAG files, without heavy imports."""

from __future__ import annotations

from datetime import date

from mmlora.errors import UsageError

FIRST, LAST = date(1970, 1, 2), date(9998, 12, 31)


def parse_date(text: str) -> date:
    """Parse a date written as ``YYYY-MM-DD``.

    Raises:
        UsageError: the text isn't a date, or the date is outside the supported range.
    """
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a date: write it as YYYY-MM-DD, e.g. 2000-12-31") from None
    if not FIRST <= day <= LAST:
        raise UsageError(f"{text} is out of range: give a date from {FIRST} to {LAST}")
    return day
