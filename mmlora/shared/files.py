"""The files of a version of the shared workspace, and how two machines' changes of them are merged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from mmlora.errors import TransientError
from mmlora.files import ASIDE
from mmlora.manifest import VERIFIED

STATE = ".shared"
"""Folder of a home with what its last pull and push left; it is not shared."""
STORE = "offline/"
"""Where a commit of an import, or a build of features, is done as a whole or not at all."""
OWN_ROWS = ("offline/.spill/", "offline/.staging/", "training_sets/.features/")
"""Folders of one machine that have rows of users."""
_OWN_FOLDERS = (f"{STATE}/", "cache/", "experiments/", "mlartifacts/", *OWN_ROWS)
_OWN_FILES = ("feast/feature_store.yaml",)
_OWN_SUFFIXES = (
    *(".lock", ASIDE, VERIFIED, "__pycache__"),
    *(".db", ".db-journal", ".db-shm", ".db-wal", ".duckdb", ".duckdb.wal"),
)
_SHOWN = 3


@dataclass(frozen=True)
class Entry:
    """A file of a version.

    Attributes:
        sha256: hash of its content, the name of its object.
        size: bytes.
        mtime: time of its last write in nanoseconds since 1970; `mmlora gc` goes by it.
    """

    sha256: str
    size: int
    mtime: int


Files = dict[str, Entry]
"""Files by their path below the workspace's folder."""


def is_own(path: str) -> bool:
    """Return whether a file or folder (with a slash at its end) belongs to one machine, so isn't shared.

    These are locks, databases, caches, experiments, and leftovers of processes that were killed.
    """
    name = path.rstrip("/")
    return path.startswith(_OWN_FOLDERS) or path in _OWN_FILES or name.endswith(_OWN_SUFFIXES)


def on_demand(path: str) -> str | None:
    """Return the folder that a file is fetched with when it is first opened; None if it is always pulled.

    These are the training sets: most of a workspace's bytes, of which a night reads none.
    """
    parts = PurePosixPath(path).parts
    return "/".join(parts[:2]) if parts[0] == "training_sets" and len(parts) > 2 else None


def merge(base: Mapping[str, Entry], theirs: Mapping[str, Entry], ours: Mapping[str, Entry]) -> Files:
    """Return the files with the changes of both sides since ``base``.

    Raises:
        TransientError: both have changed the same file in different ways.
    """
    merged, clashes = Files(), []
    for path in sorted({*base, *theirs, *ours}):
        before, their, our = base.get(path), theirs.get(path), ours.get(path)
        if our == before or not _differ(their, our):
            chosen = _later(their, our) if their and our else their
        elif their == before or (their and our and _only_touched(before, their)):
            chosen = our
        elif their and _only_touched(before, our):
            chosen = their
        else:
            clashes.append(path)
            continue
        if chosen:
            merged[path] = chosen
    if clashes:
        raise TransientError(
            f"another machine has changed the same files of the shared workspace: {shown(clashes)}; nothing "
            "of this command's work was shared: run it again, and it starts from what the other has left"
        )
    return merged


def shown(paths: list[str]) -> str:
    """Return the first paths as text."""
    more = f" and {len(paths) - _SHOWN:,} more" if len(paths) > _SHOWN else ""
    return ", ".join(paths[:_SHOWN]) + more


def _differ(one: Entry | None, other: Entry | None) -> bool:
    return (one and one.sha256) != (other and other.sha256)


def _only_touched(before: Entry | None, after: Entry | None) -> bool:
    """Return whether a file has the content that it had, so that only its time may be another."""
    return before is not None and not _differ(before, after)


def _later(one: Entry, other: Entry) -> Entry:
    return one if one.mtime >= other.mtime or _differ(one, other) else other
