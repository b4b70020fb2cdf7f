"""Which files a table is read from: single files, folders (also hive partitions) and patterns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from mmlora.errors import DataError, UsageError

_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_WILD = frozenset("*?[")


@dataclass(frozen=True)
class TableFile:
    """A file of a table.

    Attributes:
        path: its path.
        partitions: name and value of each folder ``name=value`` in its path; null is None.
        named: whether the user named the file itself, rather than a folder or pattern.
    """

    path: Path
    partitions: tuple[tuple[str, str | None], ...] = ()
    named: bool = False


def find_files(given: Sequence[Path]) -> list[TableFile]:
    """Return the files of one table, in order; hidden files and ``_temporary`` folders are skipped.

    Raises:
        UsageError: a path does not exist, or a pattern has no match.
        DataError: a folder contains no data file.
    """
    files: list[TableFile] = []
    for path in given:
        if path.is_dir():
            files += _in_folder(path, path)
        elif path.exists():
            files.append(TableFile(path, named=True))
        elif _WILD & set(str(path)):
            files += _matches(path)
        else:
            raise UsageError(
                f"{path}: the file does not exist; give Parquet or CSV files, folders of them, or a pattern"
            )
    seen: dict[Path, TableFile] = {}
    for file in files:
        if file.path.resolve() in seen:
            raise UsageError(f"{file.path} is given twice")
        seen[file.path.resolve()] = file
    return files


def _matches(pattern: Path) -> list[TableFile]:
    parts = pattern.parts
    wild = next(n for n, part in enumerate(parts) if _WILD & set(part))
    root = Path(*parts[:wild])
    found = [path for path in sorted(root.glob(str(Path(*parts[wild:])))) if not _hidden(path, root)]
    if not found:
        raise UsageError(f"{pattern}: no file matches this pattern")
    files: list[TableFile] = []
    for path in found:
        files += _in_folder(path, root) if path.is_dir() else [TableFile(path, _partitions(path, root))]
    return files


def _in_folder(folder: Path, root: Path) -> list[TableFile]:
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and not _hidden(path, root)]
    if not found:
        raise DataError(str(folder), "no Parquet or CSV files in this folder")
    return [TableFile(path, _partitions(path, root)) for path in found]


def _hidden(path: Path, root: Path) -> bool:
    """As in Spark and Hive: names that begin with a dot or underscore, except ``_name=value``."""
    parts = path.relative_to(root).parts
    return any(part.startswith(".") or (part.startswith("_") and "=" not in part) for part in parts)


def _partitions(path: Path, root: Path) -> tuple[tuple[str, str | None], ...]:
    pairs = [part.partition("=") for part in path.relative_to(root).parts[:-1] if "=" in part]
    return tuple(
        (unquote(name), None if value == _NULL_PARTITION else unquote(value)) for name, _, value in pairs
    )
