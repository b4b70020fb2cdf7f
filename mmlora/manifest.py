"""Manifests: size and SHA-256 of stored files, to detect missing, truncated or replaced ones.

Hashing every file on each read would be too expensive. A file is hashed when it is first read, and again when
its size or times have changed since; they include the time of its inode's last change (``ctime``), which no
copy or ``touch`` can set.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypedDict

from mmlora.errors import DataError, Fault
from mmlora.files import write_json

VERIFIED = ".verified.json"
"""File beside the stored files with the size and times of each when it was last hashed."""
_SHOWN = 5


class FileRecord(TypedDict):
    """Size and hash of a stored file."""

    size: int
    sha256: str


def record_of(content: bytes) -> FileRecord:
    """Return the record of a file's content."""
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def record(path: Path) -> FileRecord:
    """Return the record of a file."""
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def faults(folder: Path, files: Mapping[str, FileRecord]) -> list[Fault]:
    """Return the faults of files under a folder; empty when all are as they were stored."""
    known, verified, wrong = _load(folder / VERIFIED), {}, []
    for name, stored in files.items():
        path = folder / name
        try:
            stat = path.stat()
        except FileNotFoundError:
            wrong.append(Fault(f"{name} is missing"))
            continue
        stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stored["sha256"]]
        if known.get(name) == stamp:
            continue
        if stat.st_size != stored["size"]:
            wrong.append(Fault(f"{name} has {stat.st_size:,} bytes, and {stored['size']:,} were stored"))
        elif record(path) != stored:
            wrong.append(Fault(f"{name} holds other bytes than were stored"))
        else:
            verified[name] = stamp
    if verified:
        kept = {name: stamp for name, stamp in known.items() if (folder / name).exists()}
        with suppress(OSError):  # in a read-only folder, files are hashed again the next time
            write_json(folder / VERIFIED, {**kept, **verified})
    return wrong


def refusal(folder: Path, found: list[Fault], mend: str) -> DataError:
    """Return the error for files that aren't as they were stored.

    Args:
        folder: the files' folder.
        found: the faults.
        mend: what to do, as a sentence.
    """
    more = [Fault(f"and {len(found) - _SHOWN:,} more")] if len(found) > _SHOWN else []
    return DataError(f"the files of {folder}", [*found[:_SHOWN], *more, Fault(mend)])


def _load(path: Path) -> dict[str, list[Any]]:
    try:
        stamps: dict[str, list[Any]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamps if isinstance(stamps, dict) else {}
