"""Check that a night's data has arrived: scores of a later date would stay in ``scores_latest``."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, date, datetime, timedelta

from mmlora.errors import CheckError, UsageError
from mmlora.schema import midnight
from mmlora.workspace import Workspace


def refuse_future(day: date) -> None:
    """Reject a date after tomorrow (UTC), for which features can't be computed yet.

    Raises:
        UsageError: the date is after tomorrow.
    """
    if day > (last := datetime.now(UTC).date() + timedelta(days=1)):
        raise UsageError(f"{day} is in the future: give a date up to {last}")


def refuse_stale(
    workspace: Workspace, on: date, *, known_as_of: datetime | None = None, allow: bool = False
) -> None:
    """Reject a score date that the data doesn't reach.

    Args:
        workspace: the workspace.
        on: the score date.
        known_as_of: moment by which rows must be known; ``on`` 00:00 UTC when None.
        allow: whether to accept stale data.

    Raises:
        UsageError: the date is after tomorrow.
        CheckError: the data is stale, and ``allow`` isn't given.
    """
    refuse_future(on)
    reason = None if allow else stale_reason(workspace, on, known_as_of)
    if reason is not None:
        remedy = "import the days that are missing, or score it all the same with --allow-stale"
        raise CheckError(f"the freshness of the data for {on}", [reason, remedy])


def stale_reason(workspace: Workspace, on: date, known_as_of: datetime | None = None) -> str | None:
    """Return why the data doesn't reach a score date; None when it does."""
    from mmlora.data.newest import newest_event

    settings, days = workspace.settings.scoring, workspace.store.days()
    ahead, empty = settings.max_days_ahead, set(workspace.settings.checks.empty_days)
    if days and on > (last := _through_empty(days[-1], empty) + timedelta(days=ahead)):
        return f"the data ends on {days[-1]}, so {last} is the last date to score (max_days_ahead = {ahead})"
    newest = newest_event(workspace.offline, before=midnight(on), known_as_of=known_as_of or midnight(on))
    if newest is None:
        return f"no interaction from before {on} was known by then"
    # What should be the newest is of the last day that isn't declared empty.
    expected = midnight(_through_empty(newest.date(), empty)) - midnight(newest.date())
    hours = (midnight(on) - newest - expected).total_seconds() / 3600
    if hours <= settings.max_age_hours:
        return None
    return (
        f"the newest interaction known by then is of {newest:%Y-%m-%d %H:%M} UTC, {hours:,.1f} hours before "
        f"(max_age_hours = {settings.max_age_hours:g}); a day without rows is declared in [checks]"
    )


def _through_empty(day: date, empty: Collection[date]) -> date:
    """Return the last of the days declared empty that follow a day; the day itself if none does."""
    while (after := day + timedelta(days=1)) in empty:
        day = after
    return day
