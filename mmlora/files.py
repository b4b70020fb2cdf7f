"""Files of the workspace: each is there as a whole or not at all, and is written by one process at a time."""

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
"""How a file ends that isn't written to its end; what a killed process has left of it does no harm."""

DISCARDED = f".discarded{ASIDE}"
"""How a folder ends whose removal has begun; what a killed process has left of it can go at any time."""


@contextmanager
def replacing(path: Path, *, alone: bool = False) -> Iterator[Path]:
    """Yield a path to write a file or a folder to, which takes its place when the block ends well.

    A file's content is on the disk before it has its name. Where the block fails, or the process is killed,
    what was at ``path`` stays.

    Args:
        path: where it is to be; the folder above is made. A folder must not be there yet.
        alone: nobody else writes it meanwhile (a lock is held), so what a killed process has left is
            written over; else each writer has a name of its own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}{'' if alone else f'.{uuid4().hex}'}{ASIDE}")
    _remove(aside)
    try:
        yield aside
        if aside.is_file():
            with aside.open("rb") as written:
                os.fsync(written.fileno())
        aside.replace(path)
    finally:
        _remove(aside)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file in one step, safe on the disk when it appears."""
    with replacing(path) as aside:
        aside.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file in one step."""
    write_atomically(path, json.dumps(value, indent=1))


def read_json(path: Path, remedy: str) -> Any:
    """Return what a JSON file holds.

    Args:
        path: the file.
        remedy: what to do when it is broken, e.g. ``"import the data anew"``.

    Raises:
        DataError: it isn't JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no UTF-8
        raise DataError(str(path), f"is broken ({error}): restore it, or {remedy}") from None


@contextmanager
def locked(path: Path, *, wait: float = -1, busy: str = "", waiting: str = "") -> Iterator[None]:
    """Hold a lock of all processes of this machine; a process that ends, however, has let go of it.

    Args:
        path: the lock's file, which stays.
        wait: seconds to wait for another process; without end below 0.
        busy: the message when it takes longer.
        waiting: logged once another process has to be waited for.

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
    """Remove a file or a folder, and return how many bytes it had; what isn't there has none.

    A folder loses its name first, so no half of it is ever found under that, whenever the process is killed.
    """
    with suppress(FileNotFoundError):
        size, gone = size_of(path), path
        if path.is_dir():
            gone = path.with_name(f".{path.name.lstrip('.')}.{uuid4().hex}{DISCARDED}")
            path.replace(gone)
        _remove(gone)
        return size
    return 0


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files under a folder."""
    return sum(stat.st_size for stat in _stats(path) if S_ISREG(stat.st_mode))


def last_change(path: Path) -> float:
    """Return when a file, or anything under a folder, was last written, as seconds since 1970."""
    return max((stat.st_mtime for stat in _stats(path)), default=0.0)


def _stats(path: Path) -> Iterator[os.stat_result]:
    for each in (path, *path.rglob("*")):
        with suppress(FileNotFoundError):  # another process removed it
            stat = each.stat()
            if each == path or not each.is_dir():
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
