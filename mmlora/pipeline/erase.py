"""``mmlora erase``: a person's rows leave the data, what was computed from it, and every night's scores.

Steps, each of which is done as a whole or not at all; erasing the same users again completes a killed call:

1. the ledger of erasures gets an entry;
2. interactions and profiles are rewritten without the users;
3. if the users had any rows, computed features, training sets and retrieved features are removed: they are
   built again when needed;
4. staged rows of unpublished loads that hold the users are removed, and these loads fail; so are those of
   shadow loads;
5. every load in the warehouse loses the users' rows, and its hash becomes that of the other rows;
6. a shared workspace gets a version without these rows, and all objects that it doesn't name are removed;
7. the ledger's entry is complete.
"""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmlora.data.erasing import erase_from_store, first_days
from mmlora.errors import TransientError, UsageError
from mmlora.features.built import STATE, read_state
from mmlora.files import ASIDE, discard, is_held, locked, write_json
from mmlora.records import Record
from mmlora.schema import USER_ID, Id, midnight
from mmlora.warehouse.erasing import begin_erasures, erase_scores, finish_erasures
from mmlora.warehouse.loads import OPEN
from mmlora.warehouse.shadows import free_shadows, is_shadow
from mmlora.warehouse.tables import tables
from mmlora.warehouse.warehouse import Warehouse
from mmlora.workspace import STAGING_LOCK, Progress, Workspace, open_workspace, silent

_BUILD_SECONDS = 60.0


@dataclass(frozen=True)
class Erased(Record):
    """What was erased.

    Attributes:
        users: number of users.
        interactions: rows removed from the stored interactions, corrections included.
        profiles: rows removed from the stored profiles.
        files: computed files removed: features, training sets, staged rows.
        loads: loads that lost rows.
        scores: rows removed from the warehouse.
        models: stored versions that were trained on rows of these users, and keep what they learned.
    """

    users: int
    interactions: int
    profiles: int
    files: int
    loads: int
    scores: int
    models: tuple[str, ...]


def erase(users: Sequence[str], *, reason: str, progress: Progress = silent) -> Erased:
    """Erase users from the workspace and its warehouse.

    Models are not changed: the result names those that were trained on rows of the users. Files that were
    exported, and the files that were imported, are not mmlora's to change.

    Args:
        users: ids of the users.
        reason: why, for the ledger of erasures.
        progress: called with the loads done.

    Raises:
        UsageError: no user or reason was given, or an id isn't of the users' type.
        TransientError: an import, a training step, a load or another erasure is under way.
    """
    workspace = open_workspace()
    if not reason.strip():
        raise UsageError("an erasure needs a reason: --reason TEXT")
    erased = _parse(workspace, users)
    busy = "another `mmlora erase` is under way: wait for it"
    with ExitStack() as held:
        held.enter_context(locked(workspace.home / ".erase.lock", wait=0, busy=busy))
        warehouse = held.enter_context(workspace.open_warehouse())
        held.enter_context(warehouse.database.alone("erase"))
        _refuse_work_under_way(workspace, warehouse)
        database, schema = warehouse.database, tables(warehouse.ids)
        models = _models(workspace, erased)
        entries = begin_erasures(database, schema, models, who=getpass.getuser(), why=reason.strip())
        rows = erase_from_store(workspace.offline, erased)
        files = _discard_staged(workspace, warehouse, erased)
        if any(rows.values()) or any(entry.resumed for entry in entries):
            files += _discard_computed(workspace)
        total, scores, loads = len(warehouse.loads()), 0, 0
        for done, (_, removed) in enumerate(erase_scores(database, schema, warehouse.ids, erased), 1):
            scores, loads = scores + removed, loads + bool(removed)
            progress("erase scores", done, total)
        if (session := workspace.shared) is not None:
            session.push(erase=True)
        finish_erasures(database, schema, [entry.id for entry in entries])
    known = {version for entry in entries for version in entry.models}
    stored = tuple(version for version in workspace.bundles.versions() if version in known)
    return Erased(len(erased), rows["interactions"], rows["profiles"], files, loads, scores, stored)


def _parse(workspace: Workspace, users: Sequence[str]) -> pa.Array:
    """Return the ids as the store has them, each once."""
    parsed: list[Id] = []
    for user in dict.fromkeys(users):
        try:
            parsed.append(workspace.ids.parse("user", user))
        except ValueError:
            raise UsageError(f"user {user!r}: user ids are whole numbers here") from None
    if not parsed:
        raise UsageError("give the users to erase: --user ID, or --users FILE")
    return pa.array(parsed, workspace.ids.arrow("user"))


def _refuse_work_under_way(workspace: Workspace, warehouse: Warehouse) -> None:
    """Refuse to remove what a process reads, or may yet write again."""
    folders = ("runs/steps", "training_sets", "training_sets/.features")
    if any(is_held(lock) for folder in folders for lock in (workspace.home / folder).glob("*.lock")):
        raise TransientError("training is under way: erase when its step is done")
    for folder in (workspace.home / "staging").glob("[!.]*"):  # the warehouse doesn't know of these
        lock = folder / STAGING_LOCK
        if is_shadow(folder.name) and lock.exists() and is_held(lock):
            raise TransientError(f"{folder.name} is being scored: erase when it is done")
    silence = timedelta(seconds=workspace.settings.scoring.stale_after_seconds)
    silent_loads = {load.load_key for load in warehouse.stale_loads(silence)}
    for load in warehouse.loads(states=("running",)):
        if load.load_key not in silent_loads:
            raise TransientError(
                f"load {load.load_id} of domain {load.domain_id!r} is being scored: erase when it is done"
            )


def _models(workspace: Workspace, users: pa.Array) -> dict[Id, list[str]]:
    """Return, for each user, the stored versions that learned from rows later than the user's first day."""
    days = first_days(workspace.offline, users)
    learned = {
        version: workspace.bundles.load(version).manifest.learned_until
        for version in workspace.bundles.versions()
    }
    return {
        user: [version for version, until in learned.items() if user in days and midnight(days[user]) < until]
        for user in users.to_pylist()
    }


def _discard_computed(workspace: Workspace) -> int:
    """Remove what is computed from interactions and profiles, and return the number of files and folders.

    What the builds decided stays in their states, so that models go on with features of the same definition.
    """
    removed = 0
    for folder in (workspace.offline / "features", workspace.offline / "derived"):
        if (folder / STATE).exists():
            with locked(folder / ".lock", wait=_BUILD_SECONDS, busy="features are being built: wait for it"):
                write_json(folder / STATE, {**read_state(folder), "files": {}, "records": {}, "retired": {}})
                removed += sum(1 for path in folder.iterdir() if path.is_dir() and discard(path))
    sets = workspace.home / "training_sets"
    paths = [
        *sets.glob("*"),
        *sets.glob(".features/*"),
        *(workspace.home / "user_digests").glob("*"),
        *(workspace.offline / ".spill").glob("*"),
    ]
    kept = (".lock", ".features")
    return removed + sum(1 for path in sorted(paths) if not path.name.endswith(kept) and discard(path))


def _discard_staged(workspace: Workspace, warehouse: Warehouse, users: pa.Array) -> int:
    """Remove the staged rows of loads that hold the users, which fail, and return the number of folders."""
    waiting = {load.load_id: load for load in warehouse.loads(states=OPEN)}
    folders = [folder for folder in sorted((workspace.home / "staging").glob("*")) if _holds(folder, users)]
    shadows = [folder.name for folder in folders if is_shadow(folder.name)]
    free_shadows(warehouse.database, warehouse.tables, load_ids=shadows)
    for folder in folders:
        if (load := waiting.get(folder.name)) is not None:
            warehouse.fail(load, "users were erased before it was published: score the date again")
        discard(folder)
    return len(folders)


def _holds(folder: Path, users: pa.Array) -> bool:
    """Return whether a staged file has rows of the users, or can't be read since its writer was killed."""
    if any(folder.glob(f".*{ASIDE}")):
        return True
    for path in folder.rglob("*.parquet"):
        try:
            columns = pq.ParquetFile(path).read([USER_ID]).columns
        except (pa.ArrowException, OSError):
            return True
        if any(pc.any(pc.is_in(ids, users)).as_py() for ids in columns):
            return True
    return False
