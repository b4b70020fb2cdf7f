"""Changes many files of the store as if they were one.

Files are staged under ``.staging`` (mirroring where they belong), then the folder is renamed to
``.pending``: that rename is the commit. Afterwards each file moves to its place. Killed before the rename,
nothing has happened, and the next change throws the leftovers away; killed after it, whoever opens the
store next moves what is left. Globs over the store's tables never see either folder, and each file that
they see is whole.
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
    busy = f"{root} is being written by another import; try again when it is done"
    with files.locked(root / LOCK, wait=wait, busy=busy):
        yield


def settle(root: Path) -> None:
    """Finish a commit whose process died; wait for one that is under way.

    Raises:
        TransientError: another process still holds the lock.
    """
    if (root / PENDING).exists():
        with locked(root, wait=_SETTLE_SECONDS):
            finish(root)


def finish(root: Path) -> None:
    """Move committed files to their places (the lock is held)."""
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
    """The files of one change, as a context: left without :meth:`apply`, nothing has happened.

    The lock is held from the start to the end.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._staging = root / STAGING
        self._removals: list[str] = []
        self._added: dict[str, FileRecord] = {}

    def __enter__(self) -> Self:
        self._discard()  # what a process that died has left
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
        """Stage a file, which the manifest then names."""
        self._added[name] = record_of(content)
        self._write(name, content)

    def _write(self, name: str, content: bytes) -> None:
        path = self._staging / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def remove(self, path: Path) -> None:
        """Have a file of the store deleted once the new ones are in place."""
        self._removals.append(path.relative_to(self.root).as_posix())

    def apply(self) -> None:
        """Commit; nothing happens when nothing was staged."""
        if not self._staging.exists():
            return
        every = {**read_manifest(self.root), **self._added}
        kept = {name: record for name, record in every.items() if name not in self._removals}
        self._write(MANIFEST, manifest_bytes(kept))
        if self._removals:
            self._write(_REMOVALS, json.dumps(self._removals).encode())
        # Once for all, for a flush a file takes seconds with a thousand of them: after a power cut a
        # committed file must not be an empty one.
        os.sync()
        self._staging.rename(self.root / PENDING)
        finish(self.root)
