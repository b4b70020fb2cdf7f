"""When the stored rows that features are read from happened, and when they became known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from mmlora.records import Record
from mmlora.schema import TIMESTAMP

if TYPE_CHECKING:
    from feast import FeatureStore


@dataclass(frozen=True)
class SourceTime(Record):
    """The row of a view that features are read from.

    Attributes:
        view: the feature view.
        event_timestamp: from when on the row's values hold (UTC); None if the view has no row to read.
        known_at: when they became known (UTC); None if the view has no row to read.
    """

    view: str
    event_timestamp: datetime | None
    known_at: datetime | None


def source_times(store: FeatureStore, views: Sequence[str], row: pa.Table) -> list[SourceTime]:
    """Return the times of the row that each view's features are read from, by the same join as the features.

    Args:
        store: the feature store.
        views: names of registered views.
        row: one entity row: ids, and the time as of which features are read.
    """
    from mmlora.features.asof.store import AsofOfflineStore

    registered = [store.get_feature_view(name) for name in views]
    columns = {
        view.name: [view.batch_source.timestamp_field, view.batch_source.created_timestamp_column]
        for view in registered
    }
    job = AsofOfflineStore.get_historical_features(
        store.config,
        registered,
        [f"{view}:{name}" for view, names in columns.items() for name in names if name],
        row,
        store.registry,
        store.project,
        full_feature_names=True,
    )
    read = job.to_arrow()
    moments = {
        view: [read[f"{view}__{name}"].cast(TIMESTAMP)[0].as_py() for name in names if name]
        for view, names in columns.items()
    }
    # Without a column for it, a row is known from its event on.
    return [SourceTime(view, found[0], found[-1]) for view, found in moments.items()]
