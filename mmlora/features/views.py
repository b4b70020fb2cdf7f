"""The activity views, listed once: their keys, the windows they keep, and how their SQL is filled in.

``feature_repo/definitions.py`` gives Feast the views of this list.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmlora.resources import sql
from mmlora.schema import CREATED_TIMESTAMP, DOMAIN_ID, EVENT_TIMESTAMP, ITEM_ID, USER_ID

_WINDOWS = {"1d": 2, "7d": 8, "30d": 31}
"""Each window's name, and the days after an active day at which that day has left it."""


@dataclass(frozen=True)
class ActivityView:
    """One table of ``offline/features``.

    Attributes:
        name: the Feast view's name, and the folder's.
        keys: the id columns.
        windows: the windows kept, of ``1d``, ``7d``, ``30d`` and ``ever``.
        last_seen: whether ``days_since_last_seen`` is kept (it makes a row a day for a month).
        query: the file of ``sql/features`` that computes the rows.
        columns: the query's feature columns, where they are not those of the windows.
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
        counts = tuple(f"{what}_{w}" for w in self.windows for what in ("interactions", "clicks", "ctr"))
        return (*counts, "days_since_last_seen") if self.last_seen else counts

    def entries_sql(self) -> str:
        """Return the statement that makes the temporary table ``entries`` for this view."""
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
    """Return the statement that makes the temporary table ``entries``.

    Args:
        keys: the id columns of the entity.
        detail: a column of the increments by which counts are kept apart as well.
        which: the increments that count.
        reach: days after which a day has left the last window; None keeps all.
        joined: whether to say from which midnight on each was known, of what is carried in as well.
    """
    filled = {
        "keys": ", ".join(keys),
        "daily_keys": ", ".join(f"daily.{key}" for key in keys),
        "detail": f", {detail}" if detail else "",
        "no_detail": ", NULL" if detail else "",
        "which": which,
        "reach": "NULL" if reach is None else str(reach),
        "joined": ", joined" if joined else "",
    }
    statement = sql("features/entries.sql")
    for name, text in filled.items():
        statement = statement.replace(f"{{{name}}}", text)
    return statement


_EVERY = ("1d", "7d", "30d", "ever")

ACTIVITY_VIEWS = (
    ActivityView("user_activity", (USER_ID,), _EVERY, last_seen=True),
    ActivityView("item_activity", (ITEM_ID,), _EVERY, last_seen=True),
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
