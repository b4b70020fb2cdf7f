"""Write files of the workspace atomically, and lock them between processes."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

from mmlora.errors import DataError, TransientError

logger = logging.getLogger(__name__)

ASIDE = ".partial"
"""Suffix of a file that is still being written; one left by a killed process does no harm."""

DISCARDED = f".discarded{ASIDE}"
"""Suffix of a folder that is being removed; one left by a killed process can be removed at any time."""


@contextmanager
def replacing(path: Path, *, alone: bool = False) -> Iterator[Path]:
    """Yield a temporary path to write to, which is renamed to ``path`` when the block succeeds.

    A file is synced to the disk before it is renamed. If the block fails or the process is killed, ``path``
    stays as it was.

    Args:
        path: the final path; its parent folder is created. A folder must not exist yet.
        alone: whether a lock prevents other writers, so that the leftover of a killed process is overwritten;
            else each writer has its own temporary name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}{'' if alone else f'.{uuid4().hex}'}{ASIDE}")
    _remove(aside)
    try:
        yield aside
        if aside.is_file():
            with aside.open("rb") as file:
                os.fsync(file.fileno())
        aside.replace(path)
    finally:
        _remove(aside)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file atomically, after its content is synced to the disk."""
    with replacing(path) as aside:
        aside.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file atomically."""
    write_atomically(path, json.dumps(value, indent=1))


def read_json(path: Path, remedy: str) -> Any:
    """Return the content of a JSON file.

    Args:
        path: the file.
        remedy: what to do when it is broken, e.g. ``"import the data anew"``.

    Raises:
        DataError: the file isn't JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, or not UTF-8
        raise DataError(str(path), f"is broken ({error}): restore it, or {remedy}") from None


@contextmanager
def locked(path: Path, *, wait: float = -1, busy: str = "", waiting: str = "") -> Iterator[None]:
    """Hold a lock between the processes of this machine, which is released when its process ends in any way.

    Args:
        path: the lock's file, which isn't removed.
        wait: seconds to wait for another process; below 0 without a limit.
        busy: the error message when the lock isn't released in time.
        waiting: message to log when the lock is held by another process.

    Raises:
        TransientError: another process has held it for ``wait`` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        _acquire(lock, wait, waiting)
    except Timeout:
        raise TransientError(busy or f"another process holds {path}: wait for it") from None
    try:
        yield
    finally:
        lock.release()


def discard(path: Path) -> int:
    """Remove a file or a folder, and return its size in bytes; 0 if it does not exist.

    A folder is renamed first, so that a killed process never leaves a part of it under its name.
    """
    with suppress(FileNotFoundError):
        size, target = size_of(path), path
        if path.is_dir():
            target = path.with_name(f".{path.name.lstrip('.')}.{uuid4().hex}{DISCARDED}")
            path.replace(target)
        _remove(target)
        return size
    return 0


def discard_unheld(path: Path, lock: Path | None) -> int | None:
    """Remove a file or a folder like :func:`discard`, unless a process holds its lock: then return None."""
    if lock is None or not lock.exists():
        return discard(path)
    with suppress(TransientError), locked(lock, wait=0):
        return discard(path)
    return None


def size_of(path: Path) -> int:
    """Return the size in bytes of a file, or of all files under a folder."""
    return sum(stat.st_size for stat in _stats(path) if S_ISREG(stat.st_mode))


def last_change(path: Path) -> float:
    """Return the time of the last write to a file or anything under a folder, in seconds since 1970."""
    return max((stat.st_mtime for stat in _stats(path)), default=0.0)


def _stats(path: Path) -> Iterator[os.stat_result]:
    for entry in (path, *path.rglob("*")):
        with suppress(FileNotFoundError):  # another process removed it
            stat = entry.stat()
            if entry == path or not entry.is_dir():
                yield stat


def is_held(path: Path) -> bool:
    """Whether a process holds a lock (:func:`locked`)."""
    try:
        with locked(path, wait=0):
            return False
    except TransientError:
        return True


def _acquire(lock: FileLock, wait: float, waiting: str) -> None:
    if waiting:
        try:
            lock.acquire(timeout=1)
            return
        except Timeout:
            logger.info(waiting)
    lock.acquire(timeout=wait)


def _remove(aside: Path) -> None:
    if aside.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink(missing_ok=True)
