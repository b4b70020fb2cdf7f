"""Manifests: size and SHA-256 of each stored file, so that one that is gone, cut or swapped is noticed.

To hash everything on each read would cost more than it finds. A file is hashed when it is first read, and
again when its size or times differ from those of then; the time of its inode's last change (``ctime``) is one
of them, which no copy or ``touch`` can set.
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
"""Beside the files: size and times of each when it was last hashed."""
_SHOWN = 5


class FileRecord(TypedDict):
    """What is known of a stored file."""

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
    """Return what is wrong with files under a folder, by name; nothing when all are as they were stored."""
    known, fresh, found = _load(folder / VERIFIED), {}, []
    for name, stored in files.items():
        path = folder / name
        try:
            stat = path.stat()
        except FileNotFoundError:
            found.append(Fault(f"{name} is missing"))
            continue
        stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stored["sha256"]]
        if known.get(name) == stamp:
            continue
        if stat.st_size != stored["size"]:
            found.append(Fault(f"{name} has {stat.st_size:,} bytes, and {stored['size']:,} were stored"))
        elif record(path) != stored:
            found.append(Fault(f"{name} holds other bytes than were stored"))
        else:
            fresh[name] = stamp
    if fresh:
        kept = {name: stamp for name, stamp in known.items() if (folder / name).exists()}
        with suppress(OSError):  # of a folder that may only be read: hashed again the next time
            write_json(folder / VERIFIED, {**kept, **fresh})
    return found


def refusal(folder: Path, found: list[Fault], mend: str) -> DataError:
    """Return the error for files that aren't as they were stored.

    Args:
        folder: where they lie.
        found: what is wrong.
        mend: what to do, as a sentence.
    """
    more = [Fault(f"and {len(found) - _SHOWN:,} more")] if len(found) > _SHOWN else []
    return DataError(f"the files of {folder}", [*found[:_SHOWN], *more, Fault(mend)])


def _load(path: Path) -> dict[str, list[Any]]:
    try:
        found: dict[str, list[Any]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
