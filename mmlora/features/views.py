"""The list of activity views: their keys, their windows, and how their SQL is filled in.

``feature_repo/definitions.py`` registers the views of this list with Feast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mmlora.resources import sql
from mmlora.schema import CREATED_TIMESTAMP, DOMAIN_ID, EVENT_TIMESTAMP, ITEM_ID, USER_ID

_WINDOWS = {"1d": 2, "7d": 8, "30d": 31}
"""Days after which an active day has left a window, by the window's name."""


@dataclass(frozen=True)
class ActivityView:
    """One table of ``offline/features``.

    Attributes:
        name: name of the Feast view and of the folder.
        keys: the id columns.
        windows: the windows kept, of ``1d``, ``7d``, ``30d`` and ``ever``.
        last_seen: whether ``days_since_last_seen`` is kept (which adds a row per day for a month).
        query: the file of ``sql/features`` that computes the rows.
        columns: the query's feature columns, when they differ from the windows' columns.
    """

    name: str
    keys: tuple[str, ...]
    windows: tuple[str, ...] = ("7d", "30d", "ever")
    last_seen: bool = False
    query: str = "activity.sql"
    columns: tuple[str, ...] = ()

    @property
    def features(self) -> tuple[str, ...]:
        """The feature columns."""
        if self.columns:
            return self.columns
        counts = tuple(f"{count}_{w}" for w in self.windows for count in ("interactions", "clicks", "ctr"))
        return (*counts, "days_since_last_seen") if self.last_seen else counts

    def narrowed_sql(self) -> str:
        """Return the statement that leaves what an increment of this view needs in ``increments``."""
        columns = self.keys if self.query == "activity.sql" else (USER_ID, ITEM_ID, DOMAIN_ID)
        return narrowed_sql(self.keys, columns, reach=max(_WINDOWS.values()), ever="ever" in self.windows)

    def entries_sql(self) -> str:
        """Return the statement that creates this view's temporary table ``entries``."""
        finite = "ever" not in self.windows
        return entries_sql(self.keys, reach=max(_WINDOWS[w] for w in self.windows) if finite else None)

    def rows_sql(self) -> str:
        """Return the query for this view's rows, over the temporary tables."""
        ends = [_WINDOWS[w] for w in self.windows if w != "ever"]
        offsets = list(range(2, 32)) if self.last_seen else ends
        inner = filled(self.query, {"keys": ", ".join(self.keys), "offsets": str(offsets)})
        columns = ", ".join((*self.keys, EVENT_TIMESTAMP, CREATED_TIMESTAMP, *self.features))
        return f"SELECT {columns} FROM ({inner})"


def narrowed_sql(
    keys: tuple[str, ...],
    columns: tuple[str, ...],
    *,
    reach: int = 0,
    ever: bool = True,
    day: str = "horizon - 1",
    known: str | None = None,
    joins: str = "",
) -> str:
    """Return the statement that leaves what an increment of a view needs in the table ``increments``.

    It changes no value, so it isn't part of the hash for which stores are rebuilt.

    Args:
        keys: the id columns of the entity.
        columns: the id columns that the view reads.
        reach: days after a day until which it can still change a row.
        ever: whether the view has sums over all history; without them, days out of reach are left out.
        day: the day on which what had left every window counts, in SQL.
        known: since when that is known, in SQL; None for the day's end.
        joins: tables that ``day`` reads.
    """
    placeholders = {
        "keys": ", ".join(keys),
        "columns": ", ".join(columns),
        "reach": str(reach),
        "ever": str(ever).lower(),
        "day": day,
        "known": known or f"({day} + 1)::TIMESTAMP",
        "joins": joins,
    }
    return filled("narrowed.sql", placeholders)


def filled(name: str, placeholders: Mapping[str, str]) -> str:
    """Return a query's SQL with its placeholders filled in, without comments, which explain them."""
    lines = sql(f"features/{name}").splitlines()
    script = "\n".join(line for line in lines if not line.lstrip().startswith("--"))
    for placeholder, text in placeholders.items():
        script = script.replace(f"{{{placeholder}}}", text)
    return script


def entries_sql(
    keys: tuple[str, ...],
    *,
    detail: str = "",
    which: str = "true",
    reach: int | None = None,
    joined: bool = False,
) -> str:
    """Return the statement that creates the temporary table ``entries``.

    Args:
        keys: the id columns of the entity.
        detail: a further column of the increments by which counts are grouped.
        which: condition on the increments to count.
        reach: days after which a day has left the last window; None for a view without a limit.
        joined: whether to add the midnight from which each entry was known, carried-in entries included.
    """
    placeholders = {
        "keys": ", ".join(keys),
        "daily_keys": ", ".join(f"daily.{key}" for key in keys),
        "detail": f", {detail}" if detail else "",
        "no_detail": ", NULL" if detail else "",
        "which": which,
        "reach": "NULL" if reach is None else str(reach),
        "joined": ", joined" if joined else "",
    }
    return filled("entries.sql", placeholders)


_ALL_WINDOWS = ("1d", "7d", "30d", "ever")

ACTIVITY_VIEWS = (
    ActivityView("user_activity", (USER_ID,), _ALL_WINDOWS, last_seen=True),
    ActivityView("item_activity", (ITEM_ID,), _ALL_WINDOWS, last_seen=True),
    ActivityView(
        "domain_activity",
        (DOMAIN_ID,),
        ("30d",),
        query="domain_activity.sql",
        columns=("interactions_30d", "users_30d", "items_30d", "density_30d", "ctr_30d"),
    ),
    ActivityView("user_domain_activity", (USER_ID, DOMAIN_ID)),
    ActivityView("item_domain_activity", (ITEM_ID, DOMAIN_ID)),
)
