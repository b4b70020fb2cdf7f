"""Take over the shards that interrupted runs of the same load have staged.

A process holds the lock in its load's folder from the first shard until the load is staged. A folder is taken
over only from a process that has ended, by one process at a time, and only for a load with the same
fingerprint, so its shards are the ones that would be scored.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from mmlora.errors import MmloraError, TransientError, UsageError
from mmlora.files import discard, locked
from mmlora.nights.carrying import CARRIED
from mmlora.nights.rehearsal import Rehearsal
from mmlora.scoring.shard_manifest import (
    MANIFEST,
    InterruptedShards,
    is_staging,
    read_shards,
    staging_host,
)
from mmlora.workspace import STAGING_LOCK, Workspace

if TYPE_CHECKING:
    from mmlora.warehouse.loads import Load
    from mmlora.warehouse.warehouse import Warehouse


@contextmanager
def being_staged(folder: Path) -> Iterator[None]:
    """Hold a load's folder while its rows are staged; if they all are, only its parts stay in it."""
    with locked(folder / STAGING_LOCK, wait=0):
        yield
        for name in (MANIFEST, CARRIED, STAGING_LOCK):
            (folder / name).unlink(missing_ok=True)


def can_be_resumed(folder: Path) -> bool:
    """Return whether a folder has shards that a later run may take over."""
    return (folder / MANIFEST).exists()


@contextmanager
def taken_over(
    workspace: Workspace, warehouse: Warehouse | Rehearsal, load: Load, fingerprint: str
) -> Iterator[InterruptedShards]:
    """Yield the shards of interrupted runs, which no other process takes meanwhile.

    Their folders are removed if the block succeeds; otherwise they stay for the next run. A dry run takes
    nothing over.

    Args:
        workspace: the workspace.
        warehouse: the warehouse, in which the interrupted loads are ended.
        load: the load that takes the shards over.
        fingerprint: its fingerprint.
    """
    if isinstance(warehouse, Rehearsal):
        yield InterruptedShards()
        return
    with ExitStack() as held:
        folders = [
            folder
            for folder in sorted(workspace.staging_folder(load.load_id).parent.glob("[!.]*"))
            if folder.name != load.load_id
            and is_staging(folder, fingerprint)
            and _claim(workspace, warehouse, folder, fingerprint, held)
        ]
        for folder in folders:
            _end(warehouse, folder, f"its process has ended; load {load.load_id} takes its shards over")
        yield read_shards(folders, fingerprint)
        for folder in folders:
            discard(folder)


def _claim(
    workspace: Workspace, warehouse: Warehouse, folder: Path, fingerprint: str, held: ExitStack
) -> bool:
    """Hold a folder's lock if its process has ended before the load was staged."""
    with suppress(TransientError), ExitStack() as lock:
        lock.enter_context(locked(folder / STAGING_LOCK, wait=0))
        if is_staging(folder, fingerprint) and _has_ended(workspace, warehouse, folder):
            held.push(lock.pop_all())
            return True
    return False


def _has_ended(workspace: Workspace, warehouse: Warehouse, folder: Path) -> bool:
    """Return whether a folder, whose lock is free, belongs to a load that ended before it was staged."""
    try:
        load = warehouse.load(folder.name)
    except UsageError:  # a dry run
        return True
    if load.state != "running" or staging_host(folder) == socket.gethostname():
        return load.state in ("running", "failed")
    # A lock says nothing about processes of other machines.
    silent = timedelta(seconds=workspace.settings.scoring.stale_after_seconds)
    return load.load_key in {stale.load_key for stale in warehouse.stale_loads(silent)}


def _end(warehouse: Warehouse, folder: Path, reason: str) -> None:
    with suppress(MmloraError):
        if (load := warehouse.load(folder.name)).state == "running":
            warehouse.fail(load, reason)
