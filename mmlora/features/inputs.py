"""What a view's values follow from, so that what was made of them is made again when that changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlora.features.asof.source import locate

if TYPE_CHECKING:
    from feast import FeatureView
    from feast.repo_config import RepoConfig

_VERSION = ("ETag", "etag", "mtime", "LastModified", "updated")
"""What filesystems tell of a file that changes with it."""


def source_state(config: RepoConfig, view: FeatureView) -> dict[str, object]:
    """Return how a view reads its source, and the source's files, JSON-ready.

    Raises:
        UsageError: the source isn't Parquet, or can't be reached.
    """
    source = view.batch_source
    place = locate(config, source, f"feature view {view.name}")
    files = {}
    for name in place.files:
        told = place.filesystem.info(name)
        files[name] = [told["size"], *(str(told[word]) for word in _VERSION if told.get(word))]
    return {
        "ttl": str(view.ttl),
        "times": [source.timestamp_field, source.created_timestamp_column],
        "mapping": dict(source.field_mapping),
        "path": place.path,
        "files": files,
    }
