"""The view ``user_history``: which items a user met, and how they answered, as of each midnight.

Its rows hold three lists, one element for an item on a day: ``items``, ``rows`` and ``clicks`` (how many of
them are clicks); the newest are last, and only the newest :data:`MOST` are kept. A correction that reaches us
after its day is an element of its own, which adds to ``clicks``, or takes away from both: sums over the lists
are those of what is known.

Rows are written as those of the activity views (:mod:`mmlora.features.build`). The encoder makes a vector of
the lists: see :mod:`mmlora.encoding.history`.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmlora.features.views import entries_sql
from mmlora.resources import sql
from mmlora.schema import ITEM_ID, USER_ID

MOST = 512
"""Elements kept of a user's history."""


@dataclass(frozen=True)
class HistoryView:
    """The view; see :class:`mmlora.features.views.ActivityView`."""

    name: str = "user_history"
    keys: tuple[str, ...] = (USER_ID,)
    features: tuple[str, ...] = ("items", "rows", "clicks")

    def entries_sql(self) -> str:
        """Return the statement that makes the temporary table ``entries`` for this view."""
        return entries_sql(self.keys, detail=ITEM_ID, joined=True)

    def rows_sql(self) -> str:
        """Return the statements whose last is the query for this view's rows, over the temporary tables."""
        lines = sql("features/history.sql").splitlines()
        code = "\n".join(line for line in lines if not line.startswith("--"))
        return code.replace("{most}", str(MOST))
