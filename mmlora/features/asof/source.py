"""Parquet sources: files, folders, globs and hive partitions, on disk or behind an fsspec URL.

DuckDB reads local files itself, and others through the URL's fsspec filesystem (``s3://`` through s3fs,
``gs://`` through gcsfs), because DuckDB's httpfs isn't part of its Python package.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import duckdb
import fsspec

from mmlora.errors import UsageError
from mmlora.features.asof.listing import Listing, load_listing

if TYPE_CHECKING:
    from feast.data_source import DataSource
    from feast.repo_config import RepoConfig

_GLOB = frozenset("*?[")
_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_SESSION_TOKEN": "token",
}


def quote(name: str) -> str:
    """Quote an identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a string."""
    return "'" + text.replace("'", "''") + "'"


@dataclass(frozen=True)
class ParquetSource:
    """The location of a source.

    Attributes:
        path: the source's path, made absolute.
        inside: the path within the filesystem.
        filesystem: the fsspec filesystem.
        listing: the index of the current files of local folders.
    """

    path: str
    inside: str
    filesystem: Any
    listing: Listing

    @property
    def is_local(self) -> bool:
        """Whether DuckDB can read it by itself."""
        return "file" in _protocols(self.filesystem)

    @property
    def is_glob(self) -> bool:
        """Whether the path is a pattern."""
        return bool(_GLOB.intersection(self.inside))

    @property
    def is_folder(self) -> bool:
        """Whether the path is a folder that exists."""
        return not self.is_glob and bool(self.filesystem.isdir(self.inside))

    @property
    def files(self) -> list[str]:
        """Return its files as paths within the filesystem, without hidden files and files being written.

        Names below the source that start with ``.`` or ``_`` are left out, as in Spark and Arrow. For a local
        folder that is in the store's listing, the listing's files are returned.

        Raises:
            MmloraError: the listing rejects them.
        """
        if self.is_local and (listed := self.listing.files(Path(self.inside))) is not None:
            return listed
        if self.is_glob:
            return sorted(self.filesystem.glob(self.inside))
        if not self.is_folder:
            return [self.inside] if self.filesystem.exists(self.inside) else []
        root = self.inside.rstrip("/") + "/"
        below = {name: PurePosixPath(name.removeprefix(root)) for name in self.filesystem.find(self.inside)}
        return sorted(
            name
            for name, path in below.items()
            if path.suffix == ".parquet" and not any(part.startswith((".", "_")) for part in path.parts)
        )

    @property
    def state(self) -> tuple[tuple[int, int], ...] | None:
        """The size (bytes) and time of change (ns) of each of its files; None if they aren't local."""
        if not self.is_local:
            return None
        return tuple((found.st_size, found.st_mtime_ns) for found in map(os.stat, self.files))

    @property
    def is_partitioned(self) -> bool:
        """Whether folders below the source name columns (``day=2000-05-01``)."""
        root = self.inside.rstrip("/") + "/"
        return self.is_folder and any("=" in name.removeprefix(root) for name in self.files)

    def scan(self) -> str:
        """Return the table function that reads the source's present files.

        Raises:
            UsageError: there are no files.
        """
        files = self.files
        if not files:
            raise UsageError(
                f"there are no Parquet files under {self.path}: write them first, or correct the path"
            )
        named = files if self.is_local else [self.filesystem.unstrip_protocol(name) for name in files]
        # The path of a single file has no partition columns; those below a folder or pattern may.
        hive = "false" if files == [self.inside] else "true"
        return (
            f"read_parquet([{', '.join(map(literal, named))}], union_by_name = true, "
            f"hive_partitioning = {hive})"
        )


def locate(config: RepoConfig, source: DataSource | None, what: str) -> ParquetSource:
    """Return the location of a Feast source.

    Args:
        config: the repository's configuration; relative paths start at its folder.
        source: the source.
        what: the object that uses the source, for messages.

    Raises:
        UsageError: it isn't a Parquet ``FileSource``, or the package for its URL isn't installed.
    """
    from feast.data_format import ParquetFormat
    from feast.infra.offline_stores.file_source import FileSource

    if not isinstance(source, FileSource) or not isinstance(
        source.file_format or ParquetFormat(), ParquetFormat
    ):
        raise UsageError(f"{what}: this offline store reads Parquet FileSources only, not {source!r}")
    path = str(FileSource.get_uri_for_file_path(config.repo_path, source.path))
    if "://" not in path:  # relative to the repository's folder, in a workspace
        path = os.path.normpath(path)
    options: dict[str, str] = {}
    if path.startswith(("s3://", "s3a://")):
        if source.s3_endpoint_override:
            options["endpoint_url"] = source.s3_endpoint_override
        credentials = source.resolve_credentials() or {}
        options |= {option: credentials[key] for key, option in _CREDENTIALS.items() if credentials.get(key)}
    try:
        filesystem, inside = fsspec.core.url_to_fs(path, **options)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{what}: {path} can't be read: {error}") from error
    listing = load_listing(getattr(config.offline_store, "listing", ""))
    return ParquetSource(path, inside, filesystem, listing)


def attach(connection: duckdb.DuckDBPyConnection, sources: Iterable[ParquetSource]) -> None:
    """Register the filesystems of sources that aren't local with DuckDB.

    Raises:
        UsageError: two sources need the same protocol with different options, which DuckDB doesn't support.
    """
    known: dict[str, fsspec.AbstractFileSystem] = {}
    for source in sources:
        if source.is_local:
            continue
        for protocol in _protocols(source.filesystem):
            if known.setdefault(protocol, source.filesystem) is not source.filesystem:
                raise UsageError(
                    f"{source.path}: one retrieval can't read {protocol}:// with different endpoints or "
                    "credentials; retrieve these views separately"
                )
    for filesystem in {id(filesystem): filesystem for filesystem in known.values()}.values():
        connection.register_filesystem(filesystem)


def _protocols(filesystem: Any) -> tuple[str, ...]:
    return (filesystem.protocol,) if isinstance(filesystem.protocol, str) else tuple(filesystem.protocol)
