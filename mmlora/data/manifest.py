"""The store's manifest: every file that imports have written, updated in the same commit as the files."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mmlora.errors import DataError, Fault
from mmlora.files import write_json
from mmlora.manifest import FileRecord, faults, record, refusal

MANIFEST = "manifest.json"
_TABLES = ("interactions", "profiles")
_PLAIN = ("ids.json", "domains.json")

logger = logging.getLogger(__name__)


def read_manifest(root: Path) -> dict[str, FileRecord]:
    """Return the record of each stored file by its path below the store's folder.

    A store older than manifests has none; its files are accepted as they are.
    """
    path = root / MANIFEST
    if not path.exists():
        return {name: record(root / name) for name in _present(root)}
    try:
        found: dict[str, FileRecord] = json.loads(path.read_text(encoding="utf-8"))["files"]
    except (ValueError, KeyError, TypeError):
        raise refusal(root, [Fault(f"{MANIFEST} can't be read")], _MEND) from None
    return found


def manifest_bytes(files: dict[str, FileRecord]) -> bytes:
    """Return the manifest's content."""
    return (json.dumps({"files": dict(sorted(files.items()))}, indent=1) + "\n").encode()


def store_faults(root: Path) -> list[Fault]:
    """Return what is wrong with the store's files: missing, changed, or not written by an import."""
    if not (root / MANIFEST).exists():
        return []
    files = read_manifest(root)
    strange = [Fault(f"{name} was not written by an import") for name in _present(root) if name not in files]
    return [*faults(root, files), *strange]


_MEND = (
    "restore the files from a backup. If they are lost for good, `mmlora data accept-files` carries on "
    "without them; then import their rows again, with --history"
)


def refuse(root: Path, found: list[Fault]) -> None:
    """Raise the error for a store whose files differ from those imported."""
    raise refusal(root, found, _MEND)


def accept_files(root: Path) -> list[str]:
    """Accept the existing files as the store, and return what was wrong (the caller holds the lock).

    An unreadable file is moved to ``damaged/``.
    """
    try:
        wrong = [fault.what for fault in store_faults(root)]
    except DataError as error:
        wrong = [str(error)]
    for name in _present(root):
        if name.endswith(".parquet") and not _is_whole(root / name):
            target = root / "damaged" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (root / name).replace(target)
    write_json(root / MANIFEST, {"files": {name: record(root / name) for name in _present(root)}})
    return wrong


def adopt(root: Path) -> None:
    """Write the manifest of a store that is older than manifests (the caller holds the lock)."""
    if not (root / MANIFEST).exists() and (root / _PLAIN[0]).exists():
        logger.warning("%s has no %s: its current files are accepted", root, MANIFEST)
        accept_files(root)


def _present(root: Path) -> list[str]:
    tables = [path for table in _TABLES for path in (root / table).rglob("*.parquet")]
    paths = [*tables, *(root / name for name in _PLAIN if (root / name).exists())]
    return sorted(path.relative_to(root).as_posix() for path in paths)


def _is_whole(path: Path) -> bool:
    try:
        pq.read_table(path)
    except (OSError, pa.ArrowException):
        return False
    return True
