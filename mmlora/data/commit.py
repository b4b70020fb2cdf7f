"""Changes many files of the store as if they were one.

Files are staged under ``.staging`` (mirroring their final paths), then the folder is renamed to ``.pending``:
that rename is the commit. Afterwards each file moves to its final path. If the process is killed before the
rename, nothing has happened, and the next change deletes the leftovers; if it is killed after the rename,
whoever opens the store next moves the remaining files. Globs over the store's tables never see either folder,
and they see only complete files.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from mmlora import files
from mmlora.data.manifest import MANIFEST, manifest_bytes, read_manifest
from mmlora.manifest import FileRecord, record_of

STAGING = ".staging"
PENDING = ".pending"
LOCK = ".lock"
# In .pending beside the tables: paths to delete once all files have moved.
_REMOVALS = "removals.json"
_SETTLE_SECONDS = 60.0


@contextmanager
def locked(root: Path, *, wait: float = 0.0) -> Iterator[None]:
    """Hold the store's lock: one writer at a time.

    Raises:
        TransientError: another process holds it for longer than ``wait`` seconds.
    """
    busy = f"another import is writing to {root}: try again when it is done"
    with files.locked(root / LOCK, wait=wait, busy=busy):
        yield


def settle(root: Path) -> None:
    """Finish a commit whose process died, or wait for one that is in progress.

    Raises:
        TransientError: another process still holds the lock.
    """
    if (root / PENDING).exists():
        with locked(root, wait=_SETTLE_SECONDS):
            finish(root)


def finish(root: Path) -> None:
    """Move committed files to their final paths (the caller holds the lock)."""
    pending = root / PENDING
    if not pending.exists():
        return
    removals = pending / _REMOVALS
    for source in sorted(pending.rglob("*")):
        if source.is_file() and source != removals:
            target = root / source.relative_to(pending)
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target)
    if removals.exists():
        for name in json.loads(removals.read_text(encoding="utf-8")):
            (root / name).unlink(missing_ok=True)
    shutil.rmtree(pending)


class Commit:
    """The files of one change, as a context manager: without a call of :meth:`apply`, nothing changes.

    The lock is held throughout.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._staging = root / STAGING
        self._removals: list[str] = []
        self._added: dict[str, FileRecord] = {}

    def __enter__(self) -> Self:
        self._discard()  # leftovers of a process that died
        return self

    def __exit__(self, *error: object) -> None:
        self._discard()

    def _discard(self) -> None:
        if self._staging.exists():
            shutil.rmtree(self._staging)

    def add_table(self, folder: str, table: pa.Table) -> None:
        """Stage a Parquet file, named by the hash of its bytes, for ``folder`` of the store."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        content = sink.getvalue().to_pybytes()
        self.add_bytes(f"{folder}/{hashlib.sha256(content).hexdigest()[:32]}.parquet", content)

    def add_bytes(self, name: str, content: bytes) -> None:
        """Stage a file and record it in the manifest."""
        self._added[name] = record_of(content)
        self._write(name, content)

    def _write(self, name: str, content: bytes) -> None:
        path = self._staging / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def remove(self, path: Path) -> None:
        """Schedule a file of the store for deletion once the new files are in place."""
        self._removals.append(path.relative_to(self.root).as_posix())

    def apply(self) -> None:
        """Commit the change, if anything was staged or is to be removed."""
        if not self._staging.exists() and not self._removals:
            return
        every = {**read_manifest(self.root), **self._added}
        kept = {name: record for name, record in every.items() if name not in self._removals}
        self._write(MANIFEST, manifest_bytes(kept))
        if self._removals:
            self._write(_REMOVALS, json.dumps(self._removals).encode())
        # One sync for all, because a sync per file takes seconds with a thousand files: after a power cut a
        # committed file must not be empty.
        os.sync()
        self._staging.rename(self.root / PENDING)
        finish(self.root)
