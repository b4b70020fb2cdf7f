"""What users were shown on a date, and how well two loads had scored it."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING

from mmlora.nights.labels import interactions_of
from mmlora.pipeline.differences import LaterLabels
from mmlora.schema import DOMAIN_ID, Id
from mmlora.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa


def shown_in(workspace: Workspace, domain: Id, on: date, known_as_of: datetime) -> pa.Table | None:
    """Return a domain's interactions of a date; None if there are none."""
    import pyarrow.compute as pc

    table = interactions_of(workspace, on, known_as_of)
    own = table.filter(pc.equal(table[DOMAIN_ID], domain))
    return own if own.num_rows else None


def later_labels(rows: pa.Table) -> LaterLabels:
    """Return how two loads had scored what was shown.

    Args:
        rows: columns of ``sql/labelled.sql``, one row per interaction.
    """
    import numpy as np
    import pyarrow.compute as pc

    from mmlora.metrics import compare
    from mmlora.metrics.ranking import auc

    clicked = rows.filter(pc.greater(rows["label"], 0))
    both = rows.filter(pc.and_(pc.is_valid(rows["before"]), pc.is_valid(rows["after"])))
    label, before, after = (both[name].to_numpy() for name in ("label", "before", "after"))
    gain = compare(label, after, before, np.zeros(len(label), np.int64)).auc if len(label) else None
    return LaterLabels(
        impressions=rows.num_rows,
        clicks=clicked.num_rows,
        clicks_in_top_10_before=pc.sum(clicked["top_before"]).as_py() or 0,
        clicks_in_top_10_after=pc.sum(clicked["top_after"]).as_py() or 0,
        scored=len(label),
        auc_before=auc(label, before),
        auc_after=auc(label, after),
        auc_gain=gain.value if gain else None,
        auc_gain_low=gain.low if gain else None,
        auc_gain_high=gain.high if gain else None,
    )
