"""The ASOF store's retrieval jobs, which run when their result is read, as a whole or in batches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.saved_dataset import SavedDatasetStorage

from mmlora.duck import in_memory
from mmlora.errors import UsageError
from mmlora.features.asof.join import AsofJoin
from mmlora.features.asof.source import ParquetSource, attach, locate
from mmlora.features.asof.write import write_dataset

if TYPE_CHECKING:
    import pandas as pd
    from feast.on_demand_feature_view import OnDemandFeatureView
    from feast.repo_config import RepoConfig

CHUNK_ROWS = 2_000_000
"""Entity rows per join; it bounds the memory for sorting, not the size of the result."""
BATCH_ROWS = 65_536
MEMORY_BUDGET = 512 * 2**20
LEAST_BUDGET = 64 * 2**20


class AsofJob(RetrievalJob):  # type: ignore[misc]
    """A job that yields its result as a sequence of tables."""

    def __init__(self, config: RepoConfig, spill: Path) -> None:
        self._config = config
        self._spill = spill

    @abstractmethod
    def _tables(
        self,
        connection: duckdb.DuckDBPyConnection,
        rows: int,
        budget: int | None,
        piece: int | None = None,
    ) -> Iterator[pa.Table]:
        """Yield the result in order as one or more tables, of at most ``piece`` rows where possible."""

    def to_batches(
        self,
        *,
        memory_budget: int | None = MEMORY_BUDGET,
        batch_rows: int = BATCH_ROWS,
        chunk_rows: int | None = None,
        piece: int | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Stream the result, including on-demand features, in the order of the entity rows.

        Apart from the entity rows and the batches already yielded, the retrieval stays within the memory
        budget: half is for DuckDB, which spills the rest to disk; half is for the views' features and the
        current rows.

        Args:
            memory_budget: bytes, at least 64 MiB; None for as much as the views and ``chunk_rows`` need.
            batch_rows: maximum rows per batch.
            chunk_rows: maximum entity rows per join, 2 million when None.
            piece: maximum rows whose features are gathered at once; None for all rows of a join.

        Raises:
            UsageError: the budget is too small for the views.
        """
        if memory_budget is not None and memory_budget < LEAST_BUDGET:
            raise UsageError(
                f"a memory budget of {memory_budget:,} bytes is too small: give {LEAST_BUDGET:,} or more"
            )
        schema: pa.Schema | None = None
        half = memory_budget and memory_budget // 2
        limit = f"{half} B" if half else None
        with in_memory(self._spill, ordered=False, memory_limit=limit) as connection:
            try:
                for table in self._tables(connection, chunk_rows or CHUNK_ROWS, half, piece):
                    whole = self._with_on_demand(table)
                    # Where an on-demand feature is null in a whole table, its type must come from earlier
                    # ones.
                    whole = whole.cast(schema) if schema else whole
                    schema = whole.schema
                    yield from whole.to_batches(max_chunksize=batch_rows)
            except duckdb.OutOfMemoryException as error:
                given = f"a memory budget of {memory_budget >> 20} MiB" if memory_budget else "the memory"
                raise UsageError(f"{given} is too small: {error}") from error

    def _with_on_demand(self, table: pa.Table) -> pa.Table:
        if not self.on_demand_feature_views:
            return table
        return RetrievalJob.to_arrow(_Done(table, self))

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        with in_memory(self._spill, ordered=False) as connection:
            return pa.concat_tables(self._tables(connection, CHUNK_ROWS, None))

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal().to_pandas()

    @property
    def full_feature_names(self) -> bool:
        """Whether features are named ``view__feature``."""
        return False

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """The on-demand views to compute."""
        return []

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """The requested features, keys and times."""
        return None

    def persist(
        self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None
    ) -> None:
        """Write the result as Parquet in batches, to a file if the path ends in ``.parquet``, else a folder.

        Raises:
            feast.errors.SavedDatasetLocationAlreadyExists: the path exists and may not be overwritten.
            UsageError: the storage isn't Parquet on a file system.
        """
        target = locate(self._config, storage.to_data_source(), "saved dataset")
        write_dataset(target, self.to_batches(), overwrite=allow_overwrite)


class _Done(RetrievalJob):  # type: ignore[misc]
    """A table of a job's result, to which Feast's own code adds the on-demand features."""

    def __init__(self, table: pa.Table, job: AsofJob) -> None:
        self._table = table
        self._job = job

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._table

    @property
    def full_feature_names(self) -> bool:
        return self._job.full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return self._job.on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        return self._job.metadata


class AsofRetrievalJob(AsofJob):
    """Entity rows with their features."""

    def __init__(
        self,
        config: RepoConfig,
        spill: Path,
        join: AsofJoin,
        *,
        time: str,
        feature_refs: list[str],
        full_feature_names: bool,
        on_demand: list[OnDemandFeatureView],
    ) -> None:
        super().__init__(config, spill)
        self._join = join
        self._time = time
        self._feature_refs = feature_refs
        self._full_feature_names = full_feature_names
        self._on_demand = on_demand

    def _tables(
        self,
        connection: duckdb.DuckDBPyConnection,
        rows: int,
        budget: int | None,
        piece: int | None = None,
    ) -> Iterator[pa.Table]:
        return self._join.run(connection, rows=rows, piece=piece, budget=budget)

    @property
    def full_feature_names(self) -> bool:
        """Whether features are named ``view__feature``."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """The on-demand views to compute."""
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata:
        """The requested features, keys and range of times."""
        times = pc.min_max(self._join.entities.column(self._time)).as_py()
        keys = [name for name in self._join.entities.column_names if name != self._time]
        return RetrievalMetadata(self._feature_refs, keys, times["min"], times["max"])


class AsofPullJob(AsofJob):
    """Rows of one source, as stored."""

    def __init__(
        self,
        config: RepoConfig,
        spill: Path,
        source: ParquetSource,
        query: str,
        parameters: dict[str, datetime | None],
    ) -> None:
        super().__init__(config, spill)
        self._source = source
        self._query = query
        self._parameters = parameters

    def _tables(
        self,
        connection: duckdb.DuckDBPyConnection,
        rows: int,
        budget: int | None,
        piece: int | None = None,
    ) -> Iterator[pa.Table]:
        attach(connection, [self._source])
        reader: Any = connection.sql(self._query, params=self._parameters).to_arrow_reader(BATCH_ROWS)
        empty = True
        for batch in reader:
            empty = False
            yield pa.Table.from_batches([batch])
        if empty:
            yield reader.schema.empty_table()
