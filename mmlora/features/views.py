"""The list of activity views: their keys, their windows, and how their SQL is filled in.

``feature_repo/definitions.py`` registers the views of this list with Feast.
"""

from __future__ import annotations

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

    def entries_sql(self) -> str:
        """Return the statement that creates this view's temporary table ``entries``."""
        finite = "ever" not in self.windows
        return entries_sql(self.keys, reach=max(_WINDOWS[w] for w in self.windows) if finite else None)

    def rows_sql(self) -> str:
        """Return the query for this view's rows, over the temporary tables."""
        ends = [_WINDOWS[w] for w in self.windows if w != "ever"]
        offsets = list(range(2, 32)) if self.last_seen else ends
        inner = sql(f"features/{self.query}").replace("{keys}", ", ".join(self.keys))
        columns = ", ".join((*self.keys, EVENT_TIMESTAMP, CREATED_TIMESTAMP, *self.features))
        return f"SELECT {columns} FROM ({inner.replace('{offsets}', str(offsets))})"


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
    statement = sql("features/entries.sql")
    for name, text in placeholders.items():
        statement = statement.replace(f"{{{name}}}", text)
    return statement


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
