"""The state of a view's source, recorded so that results computed from it are recomputed when it changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmlora.features.asof.source import locate

if TYPE_CHECKING:
    from feast import FeatureView
    from feast.repo_config import RepoConfig

_VERSION = ("ETag", "etag", "mtime", "LastModified", "updated")
"""Keys under which filesystems report a file's version or modification time."""


def source_state(config: RepoConfig, view: FeatureView) -> dict[str, Any]:
    """Return how a view reads its source, and the source's files, JSON-serialisable.

    Raises:
        UsageError: the source isn't Parquet, or can't be reached.
    """
    source = view.batch_source
    parquet = locate(config, source, f"feature view {view.name}")
    files = {}
    for name in parquet.files:
        info = parquet.filesystem.info(name)
        files[name] = [info["size"], *(str(info[key]) for key in _VERSION if info.get(key))]
    return {
        "ttl": str(view.ttl),
        "times": [source.timestamp_field, source.created_timestamp_column],
        "mapping": dict(source.field_mapping),
        "path": parquet.path,
        "files": files,
    }
