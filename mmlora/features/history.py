"""The view ``user_history``: the items that a user saw and how often they clicked, as of each midnight.

Its rows hold three parallel lists with one element per item and day: ``items``, ``rows`` and ``clicks`` (how
many of the rows are clicks). The newest are last, and only the newest :data:`MOST` are kept. A correction
that arrives after its day is a separate element, which adds to ``clicks`` or subtracts from both, so that
sums over the lists match what is known.

Rows are written like those of the activity views (:mod:`mmlora.features.build`). The encoder turns the lists
into a vector (:mod:`mmlora.encoding.history`).
"""

from __future__ import annotations

from dataclasses import dataclass

from mmlora.features.views import entries_sql, filled, narrowed_sql
from mmlora.schema import ITEM_ID, USER_ID

MOST = 512
"""Elements kept per user."""


@dataclass(frozen=True)
class HistoryView:
    """The view, with the interface of :class:`mmlora.features.views.ActivityView`."""

    name: str = "user_history"
    keys: tuple[str, ...] = (USER_ID,)
    features: tuple[str, ...] = ("items", "rows", "clicks")

    def narrowed_sql(self) -> str:
        """Return the statement that leaves what an increment of this view needs in ``increments``."""
        return narrowed_sql(self.keys, (USER_ID, ITEM_ID), day="day", known="known")

    def entries_sql(self) -> str:
        """Return the statement that creates this view's temporary table ``entries``."""
        return entries_sql(self.keys, detail=ITEM_ID, joined=True)

    def rows_sql(self) -> str:
        """Return the statements whose last is the query for this view's rows, over the temporary tables."""
        return filled("history.sql", {"most": str(MOST)})
