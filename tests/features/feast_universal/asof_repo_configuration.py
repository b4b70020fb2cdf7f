"""What Feast's universal tests need to know of the ASOF store; Feast's tests import it by its name.

It is named by ``FULL_REPO_CONFIGS_MODULE``, and runs inside a checkout of Feast, whose own package ``tests``
it builds on. ``test_asof_universal.py`` says how.
"""

from __future__ import annotations

import tempfile
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from feast import FileSource
from feast.data_format import ParquetFormat
from tests.universal.feature_repos.universal.data_sources.file import FileDataSourceCreator

from mmlora.features.asof.store import AsofOfflineStoreConfig


class AsofDataSourceCreator(FileDataSourceCreator):  # type: ignore[misc]
    """Each source is a Parquet file.

    Feast's own data were all created today and happened before, so that they can be seen only where a created
    time counts when it is asked for.
    """

    def create_offline_store_config(self) -> AsofOfflineStoreConfig:
        return AsofOfflineStoreConfig(filter_by_created_timestamp="asked")


class AsofFolderDataSourceCreator(AsofDataSourceCreator):
    """Each source is a folder of several Parquet files."""

    def create_data_source(
        self,
        df: Any,
        destination_name: str,
        created_timestamp_column: str = "created_ts",
        field_mapping: dict[str, str] | None = None,
        timestamp_field: str | None = "ts",
    ) -> FileSource:
        folder = tempfile.mkdtemp(prefix=f"{self.project_name}_{destination_name}")
        self.dirs.append(folder)
        table = pa.Table.from_pandas(df)
        half = len(table) // 2
        for number, part in enumerate((table.slice(0, half), table.slice(half))):
            pq.write_table(part, f"{folder}/{number}.parquet")
        return FileSource(
            file_format=ParquetFormat(),
            path=folder,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            field_mapping=field_mapping or {"ts_1": "ts"},
        )


AVAILABLE_OFFLINE_STORES = [("local", AsofDataSourceCreator), ("local", AsofFolderDataSourceCreator)]
AVAILABLE_ONLINE_STORES = {"sqlite": ({"type": "sqlite"}, None)}
