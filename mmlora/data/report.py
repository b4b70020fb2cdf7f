"""What an import did, for its summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmlora.data.interactions import REQUIRED
from mmlora.data.merge import NewInteractions
from mmlora.data.options import FIRST, IMPORT
from mmlora.data.profile_store import AddedProfile
from mmlora.records import Record
from mmlora.schema import DOMAIN_ID, EVENT_TIMESTAMP, ITEM_ID, KNOWN_AT, TIMESTAMP, USER_ID, Entity

_DAY_MICROSECONDS = 86_400_000_000
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class ImportReport(Record):
    """What one import did.

    Attributes:
        interactions: rows stored whose key is new.
        unchanged: rows that were already stored.
        corrections: rows stored as a new version of a stored key.
        late: rows among ``interactions`` that became known only after they happened: now, or at their own
            ``known_at``.
        withdrawn: stored rows that a replacing delivery no longer has.
        users, items, domains: number of distinct ids among the delivered interactions.
        first_day, last_day: first and last day of the delivered interactions (UTC); None without any.
        profiles: number of versions stored, by delivered entity.
        ignored_columns: columns left out: those of the interactions that aren't canonical, and ``user.age``
            for a profile column without any value.
        notes: lines for the user.
    """

    interactions: int = 0
    unchanged: int = 0
    corrections: int = 0
    late: int = 0
    withdrawn: int = 0
    users: int = 0
    items: int = 0
    domains: int = 0
    first_day: date | None = None
    last_day: date | None = None
    profiles: dict[Entity, int] = field(default_factory=dict)
    ignored_columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def interactions_report(table: pa.Table, new: NewInteractions, imported_at: datetime) -> ImportReport:
    """Return what an import of interactions did."""
    came, rows = day_numbers(table), new.versions.num_rows - new.withdrawn
    own = KNOWN_AT in table.column_names
    return ImportReport(
        interactions=rows - new.corrections,
        unchanged=table.num_rows - rows,
        corrections=new.corrections,
        late=new.late,
        withdrawn=new.withdrawn,
        users=_distinct(table, USER_ID),
        items=_distinct(table, ITEM_ID),
        domains=_distinct(table, DOMAIN_ID),
        first_day=day_of(came.min()) if len(came) else None,
        last_day=day_of(came.max()) if len(came) else None,
        ignored_columns=tuple(name for name in table.column_names if name not in (*REQUIRED, KNOWN_AT)),
        notes=tuple(interaction_notes(new, imported_at, own_known_at=own)),
    )


def day_numbers(table: pa.Table) -> np.ndarray:
    """Return each row's day (UTC) as days since 1970 (int64)."""
    micros: np.ndarray = table.column(EVENT_TIMESTAMP).cast(pa.int64()).to_numpy()
    return np.asarray(micros // _DAY_MICROSECONDS)


def day_of(number: int) -> date:
    """Return the day that is this many days after 1970-01-01."""
    return _EPOCH + timedelta(days=int(number))


def interaction_notes(new: NewInteractions, imported_at: datetime, *, own_known_at: bool) -> list[str]:
    """Return the notes on the interactions that were stored."""
    notes = []
    if new.late and not own_known_at:
        notes.append(
            f"{count(new.late, 'interaction')} came late: their domain already had that day or a later one. "
            f"They count as known since {_moment(imported_at)}, so earlier features, training rows and "
            "nights don't see them. If they were known in time (e.g. imported history), import them with "
            "--history"
        )
    if new.withdrawn:
        notes.append(
            f"{count(new.withdrawn, 'stored interaction')} withdrawn, because this delivery lacks them; "
            f"what was known before {_moment(imported_at)} is unchanged"
        )
    return notes


def profile_notes(
    table: str, came: pa.Table, added: AddedProfile, *, valid_from: str, delivered: datetime, known: int
) -> list[str]:
    """Return the notes on a profile table that was stored.

    Args:
        table: ``users``, ``items`` or ``domains``.
        came: the delivered table, canonical.
        added: what was staged from it.
        valid_from: from when undated rows of a first delivery are valid, as in the option.
        delivered: when the delivery counts as known.
        known: number of undated rows that are valid from a different time than the delivery.
    """
    notes = []
    dates = came.column(EVENT_TIMESTAMP) if EVENT_TIMESTAMP in came.column_names else None
    undated = came.num_rows if dates is None else dates.null_count
    if added.first and undated:
        notes.append(f"{table}: {_since(table, undated, known, valid_from, delivered)}")
    if dates is not None and dates.null_count and not added.first:
        notes.append(
            f"{table}: {count(dates.null_count, 'row')} without a date: valid from {_moment(delivered)}"
        )
    future = 0 if dates is None else pc.sum(pc.greater(dates, pa.scalar(delivered, TIMESTAMP))).as_py() or 0
    if future:
        notes.append(
            f"{table}: {count(future, 'row')} of a later date than this delivery: valid from then on"
        )
    for names, what in (
        (added.empty, "have no values and are left out"),
        (added.gained, "are new: models use them after their next training"),
        (added.retyped, "were stored as integers and are texts now: train again"),
        (added.lacking, "aren't in this delivery: their values are missing from now on"),
    ):
        if names:
            notes.append(f"{table}: columns {what}: {', '.join(names)}")
    return notes


def _since(table: str, undated: int, known: int, valid_from: str, delivered: datetime) -> str:
    text = f"{count(undated, 'row')} without a date of its own; "
    if valid_from == IMPORT:
        text += f"valid from this delivery ({_moment(delivered)})"
    elif valid_from == FIRST or not is_date(valid_from):
        first = f"{known:,} valid from the first interaction of the id" if known else ""
        rest = undated - known
        later = f"{rest:,} without any valid from this delivery ({_moment(delivered)})" if rest else ""
        text += ", ".join(part for part in (first, later) if part)
    else:
        text += f"valid from {valid_from}"
    return text + f". --valid-from {table}=COLUMN names a date column instead"


def is_date(text: str) -> bool:
    """Return whether ``valid_from`` names a date, not a column."""
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def count(number: int, what: str) -> str:
    """Return ``1 row`` or ``2 rows``."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%MZ}"


def ignored(columns: Sequence[str], profiles: dict[Entity, AddedProfile]) -> tuple[str, ...]:
    """Return the columns left out."""
    return (*columns, *(f"{entity}.{name}" for entity, added in profiles.items() for name in added.empty))


def _distinct(table: pa.Table, name: str) -> int:
    return int(pc.count_distinct(table.column(name)).as_py())
