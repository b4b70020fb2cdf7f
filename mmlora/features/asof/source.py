"""Where a Parquet source lies: files, folders, globs and hive partitions, on disk or behind an fsspec URL.

DuckDB reads local files itself. Others it reads through the URL's fsspec filesystem (``s3://`` through s3fs,
``gs://`` through gcsfs), because its own httpfs isn't part of its Python package.
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
    """One source's place.

    Attributes:
        path: as the source names it, made absolute.
        inside: the same in the filesystem's own terms.
        filesystem: where it lies.
        listing: who says which files of a local folder count.
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
        """Return its files, in the filesystem's terms, less what is hidden or being written.

        Names that start with ``.`` or ``_`` below the source are left out, as Spark and Arrow leave them out.
        Of a local folder that the store's listing knows, they are the ones that it names.

        Raises:
            MmloraError: the listing refuses them.
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
    def is_partitioned(self) -> bool:
        """Whether folders below the source name columns (``day=2000-05-01``)."""
        root = self.inside.rstrip("/") + "/"
        return self.is_folder and any("=" in name.removeprefix(root) for name in self.files)

    def scan(self) -> str:
        """Return the source as a table function of its present files.

        Raises:
            UsageError: there are none.
        """
        files = self.files
        if not files:
            raise UsageError(
                f"there are no Parquet files under {self.path}: write them first, or correct the path"
            )
        named = files if self.is_local else [self.filesystem.unstrip_protocol(name) for name in files]
        # A lone file's own path says nothing; the folders of a folder or pattern do.
        hive = "false" if files == [self.inside] else "true"
        return (
            f"read_parquet([{', '.join(map(literal, named))}], union_by_name = true, "
            f"hive_partitioning = {hive})"
        )


def locate(config: RepoConfig, source: DataSource | None, what: str) -> ParquetSource:
    """Find a Feast source's place.

    Args:
        config: the repository's configuration, whose folder relative paths start at.
        source: the source.
        what: who asks, for messages.

    Raises:
        UsageError: it is no Parquet ``FileSource``, or the package for its URL isn't installed.
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
        found = source.resolve_credentials() or {}
        options |= {ours: found[theirs] for theirs, ours in _CREDENTIALS.items() if found.get(theirs)}
    try:
        filesystem, inside = fsspec.core.url_to_fs(path, **options)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{what}: {path} can't be read: {error}") from error
    listing = load_listing(getattr(config.offline_store, "listing", ""))
    return ParquetSource(path, inside, filesystem, listing)


def attach(connection: duckdb.DuckDBPyConnection, sources: Iterable[ParquetSource]) -> None:
    """Let DuckDB read the sources that aren't local.

    Raises:
        UsageError: two of them need one protocol with different options, which DuckDB can't tell apart.
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
    for filesystem in {id(found): found for found in known.values()}.values():
        connection.register_filesystem(filesystem)


def _protocols(filesystem: Any) -> tuple[str, ...]:
    return (filesystem.protocol,) if isinstance(filesystem.protocol, str) else tuple(filesystem.protocol)
