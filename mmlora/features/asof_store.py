"""A Feast offline store of DuckDB ASOF joins, which never reads what wasn't known yet.

It stands in ``feature_store.yaml`` as ``offline_store: {type: mmlora.features.asof_store.AsofOfflineStore}``
and reads local Parquet ``FileSource`` only. Three things differ from Feast's ``duckdb`` store, from which the
rest is inherited:

* A view's ``created_timestamp_column`` always counts: a row is read only from its created time on, whether or
  not ``filter_by_created_timestamp`` is given.
* The rows that come back are those that were asked for, in order.
* Entity rows may be a ``pyarrow.Table`` as well, and may say as of when things are known, for all rows:
  in the table's metadata, or in a data frame's ``attrs``, under ``known_as_of`` (ISO 8601).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any, NoReturn

import duckdb
import numpy as np
import pyarrow as pa
from feast.data_format import ParquetFormat
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata

from mmlora.errors import UsageError
from mmlora.features.asof_request import check_keys, entity_rows, fetch, time_column
from mmlora.features.asof_sql import ROW, TIME, ViewColumns, join_sql, prepare_sql
from mmlora.features.database import database
from mmlora.schema import TIMESTAMP

if TYPE_CHECKING:
    import pandas as pd
    from feast.feature_view import FeatureView
    from feast.infra.registry.base_registry import BaseRegistry
    from feast.on_demand_feature_view import OnDemandFeatureView
    from feast.repo_config import RepoConfig

CHUNK_ROWS = 1_000_000
"""Entity rows joined at once: what is sorted beside them is bounded, the result is not."""


class AsofOfflineStoreConfig(DuckDBOfflineStoreConfig):  # type: ignore[misc]
    """The store's part of ``feature_store.yaml``."""

    type: str = "mmlora.features.asof_store.AsofOfflineStore"
    spill_location: str | None = None
    """Folder that DuckDB spills into; the system's temporary folder when unset."""


class AsofOfflineStore(DuckDBOfflineStore):  # type: ignore[misc]
    """Feast's ``duckdb`` store with point-in-time joins of its own."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | pa.Table | str,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        **unsupported: Any,
    ) -> AsofRetrievalJob:
        """Join the features to the entity rows, as they were known at each row's time.

        Args:
            config: the repository's configuration.
            feature_views: the views that the references name.
            feature_refs: ``view:feature`` references.
            entity_df: entity rows (data frame, Arrow table, or DuckDB query text).
            registry: the registry.
            project: the Feast project.
            full_feature_names: name features ``view__feature``.
            filter_by_created_timestamp: accepted, and always so.
            **unsupported: Feast's ``start_date`` and ``end_date``.

        Raises:
            UsageError: the view, its source or the request is of a kind that this store doesn't read.
        """
        if entity_df is None or unsupported:
            raise UsageError(
                "this offline store needs entity rows; start_date and end_date can't take their place"
            )
        named = {view.projection.name_to_use() for view in feature_views}
        if strange := [ref for ref in feature_refs if ref.split(":", 1)[0] not in named]:
            raise UsageError(
                f"{', '.join(strange)} can't be retrieved here: on-demand features are to be computed "
                "before, in a feature view"
            )
        entities, known_as_of = entity_rows(entity_df)
        views = [_columns(config, view, feature_refs, full_feature_names) for view in feature_views]
        spill = Path(config.offline_store.spill_location or gettempdir())
        return AsofRetrievalJob(entities, known_as_of, views, feature_refs, full_feature_names, spill)


class AsofRetrievalJob(RetrievalJob):  # type: ignore[misc]
    """Entity rows and the views to join with them; runs when its result is asked for."""

    def __init__(
        self,
        entities: pa.Table,
        known_as_of: datetime | None,
        views: list[ViewColumns],
        feature_refs: list[str],
        full_feature_names: bool,
        spill: Path,
    ) -> None:
        self._entities = entities
        self._known_as_of = known_as_of
        self._views = views
        self._feature_refs = feature_refs
        self._full_feature_names = full_feature_names
        self._spill = spill
        self._time = time_column(entities)
        for view in views:
            check_keys(view, entities)

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        with database(self._spill) as connection:
            return pa.concat_tables(self._chunks(connection))

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal().to_pandas()

    def _chunks(self, connection: duckdb.DuckDBPyConnection) -> Iterator[pa.Table]:
        asked = self._asked(connection)
        snapshot = asked["earliest"] is not None and asked["earliest"] == asked["latest"]
        cutoff = self._known_as_of is not None
        for number, view in enumerate(self._views):
            query = prepare_sql(view, snapshot=snapshot, cutoff=cutoff)
            used = {name: value for name, value in asked.items() if f"${name}" in query}
            connection.execute(f"CREATE TEMP TABLE ready{number} AS {query}", used)
        for start in range(0, max(1, len(self._entities)), CHUNK_ROWS):
            part = self._entities.slice(start, CHUNK_ROWS)
            self._show(connection, part)
            for number, view in enumerate(self._views):
                found = fetch(connection, join_sql(view, f"ready{number}", snapshot=snapshot))
                # Sorting a permutation in numpy is cheaper than whole rows in DuckDB.
                found = found.take(pa.array(np.argsort(found.column(ROW).to_numpy())))
                for name, _ in view.features:
                    part = part.append_column(name, found.column(name))
            yield part

    def _asked(self, connection: duckdb.DuckDBPyConnection) -> dict[str, datetime | None]:
        """Show all entity rows to DuckDB; return the bounds of what they ask for."""
        self._show(connection, self._entities)
        row = connection.execute(f"SELECT min({TIME}), max({TIME}) FROM asked").fetchone()
        earliest, latest = row if row else (None, None)
        return {"earliest": earliest, "latest": latest, "known_as_of": self._known_as_of or latest}

    def _show(self, connection: duckdb.DuckDBPyConnection, rows: pa.Table) -> None:
        """Make ``asked`` of these rows: their numbers, times and keys."""
        keys = {column for view in self._views for column, _ in view.keys}
        times = rows.column(self._time).cast(TIMESTAMP, safe=False)
        shown = rows.select(sorted(keys)).append_column(TIME, times)
        connection.register("asked", shown.append_column(ROW, pa.array(np.arange(len(rows)))))

    @property
    def full_feature_names(self) -> bool:
        """Whether features are named ``view__feature``."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """None: they are refused."""
        return []

    @property
    def metadata(self) -> RetrievalMetadata:
        """What was asked for."""
        return RetrievalMetadata(
            self._feature_refs, [c for c in self._entities.column_names if c != self._time]
        )

    def persist(self, storage: Any, allow_overwrite: bool = False, timeout: int | None = None) -> NoReturn:
        """Refuse: saved datasets aren't written here."""
        raise UsageError("this offline store saves no datasets: write the table that to_arrow() returns")


def _columns(config: RepoConfig, view: FeatureView, refs: list[str], full_names: bool) -> ViewColumns:
    """Resolve a view's columns through its projection and its source's field mapping."""
    source = view.batch_source
    if not isinstance(source, FileSource) or not isinstance(
        source.file_format or ParquetFormat(), ParquetFormat
    ):
        raise UsageError(
            f"feature view {view.name}: this offline store reads Parquet FileSources only, not {source!r}"
        )
    if "://" in source.path:
        raise UsageError(
            f"feature view {view.name}: this offline store reads local files only, not {source.path}"
        )
    mapped = {new: old for old, new in source.field_mapping.items()}
    prefix = view.projection.name_to_use()
    wanted = [ref.split(":", 1)[1] for ref in refs if ref.split(":", 1)[0] == prefix]
    label = f"{view.projection.name_alias or view.name}__" if full_names else ""
    renamed = view.projection.join_key_map
    return ViewColumns(
        name=view.name,
        path=FileSource.get_uri_for_file_path(config.repo_path, source.path),
        keys=tuple((renamed.get(c.name, c.name), mapped.get(c.name, c.name)) for c in view.entity_columns),
        features=tuple((f"{label}{name}", mapped.get(name, name)) for name in wanted),
        event=mapped.get(source.timestamp_field, source.timestamp_field),
        created=mapped.get(source.created_timestamp_column, source.created_timestamp_column) or "",
        ttl=view.ttl or None,
    )
