"""A Feast offline store on DuckDB ASOF joins that never reads values before they were known.

It is configured in ``feature_store.yaml`` as
``offline_store: {type: mmlora.features.asof.store.AsofOfflineStore}`` and reads Parquet ``FileSource`` only,
from local paths and fsspec URLs. It differs from Feast's ``duckdb`` store as follows:

* A view's ``created_timestamp_column`` is always respected: a row is read only from its created time on, with
  or without ``filter_by_created_timestamp`` (the setting of that name restores Feast's behaviour).
* The result has exactly the entity rows, in their order.
* Entity rows may also be a ``pyarrow.Table`` or a DuckDB query. A table's metadata or a data frame's
  ``attrs`` may set the moment by which values must be known, for all rows, under ``known_as_of`` (ISO 8601).
* Every job has ``to_batches``, which streams its result within a memory budget.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.on_demand_feature_view import OnDemandFeatureView

from mmlora.duck import in_memory
from mmlora.errors import ContractError, UsageError
from mmlora.features.asof.job import AsofPullJob, AsofRetrievalJob
from mmlora.features.asof.join import AsofJoin
from mmlora.features.asof.listing import load_listing
from mmlora.features.asof.request import check_names, entity_rows, fetch, time_column
from mmlora.features.asof.source import attach, locate
from mmlora.features.asof.sql import ViewColumns, pull_sql
from mmlora.features.asof.write import append_rows

if TYPE_CHECKING:
    import pandas as pd
    from feast.data_source import DataSource
    from feast.feature_view import FeatureView
    from feast.infra.registry.base_registry import BaseRegistry
    from feast.repo_config import RepoConfig

_LOG_DATE = "__log_date"


class AsofOfflineStoreConfig(DuckDBOfflineStoreConfig):  # type: ignore[misc]
    """The section ``offline_store`` of ``feature_store.yaml``."""

    type: str = "mmlora.features.asof.store.AsofOfflineStore"
    spill_location: str | None = None
    """Folder into which DuckDB spills; the system's temporary folder when unset."""
    listing: str = ""
    """``module:object`` that lists the files of local folders (:class:`~.listing.Listing`)."""
    filter_by_created_timestamp: Literal["always", "asked"] = "always"
    """Whether rows are hidden before their created time always, or only when a retrieval requests it."""


class AsofOfflineStore(DuckDBOfflineStore):  # type: ignore[misc]
    """Feast's ``duckdb`` store with its own point-in-time joins, reading and writing."""

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
        **unsupported: object,
    ) -> AsofRetrievalJob:
        """Join the features to the entity rows, as known at each row's time.

        Args:
            config: the repository's configuration.
            feature_views: the views of the references.
            feature_refs: ``view:feature`` references.
            entity_df: entity rows (data frame, Arrow table, or DuckDB query text).
            registry: the registry.
            project: the Feast project.
            full_feature_names: name features ``view__feature``.
            filter_by_created_timestamp: hide rows before their created time; always true unless the setting
                of that name is ``asked``.
            **unsupported: Feast's ``start_date`` and ``end_date``.

        Raises:
            UsageError: this store doesn't support the view, its source or the request.
            ContractError: the view's keys or columns don't match the entity rows or its source.
        """
        if entity_df is None or unsupported:
            raise UsageError(
                "this offline store needs entity rows; it doesn't support start_date and end_date instead"
            )
        entities, known_as_of = entity_rows(entity_df)
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        _check_refs(feature_refs, feature_views, on_demand, entities)
        views = [_columns(config, view, feature_refs, full_feature_names) for view in feature_views]
        check_names(entities, views)
        time = time_column(entities)
        by_created = filter_by_created_timestamp or _settings(config).filter_by_created_timestamp == "always"
        # The views' files are listed here, and read when the job runs.
        with load_listing(_settings(config).listing).snapshot():
            join = AsofJoin(entities, time, views, known_as_of, by_created)
        return AsofRetrievalJob(
            config,
            _spill(config),
            join,
            time=time,
            feature_refs=feature_refs,
            full_feature_names=full_feature_names,
            on_demand=on_demand,
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> AsofPullJob:
        """Return each entity's latest row in a time range; of rows at the same time, the one created last."""
        columns = [*join_key_columns, *feature_name_columns, timestamp_field, created_timestamp_column]
        return _pull(
            config, data_source, columns, timestamp_field, (start_date, end_date), latest_of=join_key_columns
        )

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> AsofPullJob:
        """Return a source's rows in a time range."""
        columns = [*join_key_columns, *feature_name_columns, timestamp_field, created_timestamp_column]
        return _pull(config, data_source, columns, timestamp_field, (start_date, end_date), latest_of=None)

    @staticmethod
    def offline_write_batch(
        config: RepoConfig,
        feature_view: FeatureView,
        table: pa.Table,
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Append rows to a view's source.

        Raises:
            ContractError: the rows' columns differ from the source's.
            UsageError: the source is a pattern or partitioned, or isn't Parquet.
        """
        source = locate(config, feature_view.batch_source, f"feature view {feature_view.name}")
        with in_memory() as connection:
            attach(connection, [source])
            schema = fetch(connection, f"SELECT * FROM {source.scan()} LIMIT 0").schema
        if sorted(table.column_names) != sorted(schema.names):
            raise ContractError(
                f"feature view {feature_view.name}: the rows to write have the columns "
                f"{', '.join(table.column_names)}, but {source.path} has {', '.join(schema.names)}",
                expected=", ".join(schema.names),
                found=", ".join(table.column_names),
            )
        append_rows(source, table, like=schema)
        if progress:
            progress(len(table))


def _settings(config: RepoConfig) -> AsofOfflineStoreConfig:
    settings = config.offline_store
    assert isinstance(settings, AsofOfflineStoreConfig)
    return settings


def _spill(config: RepoConfig) -> Path:
    return Path(_settings(config).spill_location or gettempdir())


def _pull(
    config: RepoConfig,
    data_source: DataSource,
    columns: list[str | None],
    event: str,
    between: tuple[datetime | None, datetime | None],
    *,
    latest_of: list[str] | None,
) -> AsofPullJob:
    source = locate(config, data_source, f"data source {data_source.name}")
    # Feast lists a log's partition column here, but doesn't expect it in the result.
    names = [name for name in dict.fromkeys(columns) if name and name != _LOG_DATE]
    query = pull_sql(source.scan(), names, event, columns[-1] or "", latest_of=latest_of)
    start, end = (moment.replace(tzinfo=moment.tzinfo or UTC) if moment else None for moment in between)
    return AsofPullJob(config, _spill(config), source, query, {"start": start, "end": end})


def _check_refs(
    refs: list[str], views: list[FeatureView], on_demand: list[OnDemandFeatureView], entities: pa.Table
) -> None:
    """Reject references to unknown views, and on-demand views that this store can't compute."""
    named = {view.projection.name_to_use() for view in views}
    named |= {view.projection.name_to_use() for view in on_demand}
    if strange := [ref for ref in refs if ref.split(":", 1)[0] not in named]:
        raise UsageError(f"{', '.join(strange)} can't be retrieved: there is no feature view of that name")
    for view in on_demand:
        if view.mode not in ("pandas", "python"):
            raise UsageError(
                f"on-demand feature view {view.name} has mode {view.mode}; this offline store supports "
                "pandas and python"
            )
        if missing := [name for name in view.get_request_data_schema() if name not in entities.column_names]:
            raise UsageError(
                f"on-demand feature view {view.name} needs {', '.join(missing)} in the entity rows"
            )


def _columns(config: RepoConfig, view: FeatureView, refs: list[str], full_names: bool) -> ViewColumns:
    """Resolve a view's columns through its projection and its source's field mapping."""
    source = view.batch_source
    mapped = {new: old for old, new in source.field_mapping.items()}
    prefix = view.projection.name_to_use()
    wanted = dict.fromkeys(ref.split(":", 1)[1] for ref in refs if ref.split(":", 1)[0] == prefix)
    label = f"{view.projection.name_alias or view.name}__" if full_names else ""
    renamed = view.projection.join_key_map
    return ViewColumns(
        name=view.name,
        source=locate(config, source, f"feature view {view.name}"),
        keys=tuple((renamed.get(c.name, c.name), mapped.get(c.name, c.name)) for c in view.entity_columns),
        features=tuple((f"{label}{name}", mapped.get(name, name)) for name in wanted),
        event=mapped.get(source.timestamp_field, source.timestamp_field),
        created=mapped.get(source.created_timestamp_column, source.created_timestamp_column) or "",
        ttl=view.ttl or None,
    )
