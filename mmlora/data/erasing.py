"""Erasing users from the offline store: the files that hold their rows are rewritten without them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmlora.data.commit import Commit, finish, locked
from mmlora.data.manifest import refuse, store_faults
from mmlora.schema import USER_ID

_LOCK_SECONDS = 60.0


def first_days(root: Path, users: pa.Array) -> dict[object, date]:
    """Return the day of each user's first stored interaction; users without any are absent."""
    found: dict[object, date] = {}
    for path in sorted((root / "interactions").glob("day=*/*.parquet")):
        day = date.fromisoformat(path.parent.name.removeprefix("day="))
        ids = pq.ParquetFile(path).read([USER_ID])[USER_ID]
        for user in pc.unique(ids.filter(pc.is_in(ids, users))).to_pylist():
            found.setdefault(user, day)
    return found


def erase_from_store(root: Path, users: pa.Array) -> dict[str, int]:
    """Remove all versions of the users' interactions and profiles, all of them or, if killed, none.

    Args:
        root: the offline store's folder.
        users: ids, of the stored type.

    Returns:
        The rows removed from ``interactions`` and ``profiles``.

    Raises:
        TransientError: an import is under way.
        DataError: a stored file is missing or was changed.
    """
    removed = {"interactions": 0, "profiles": 0}
    with locked(root, wait=_LOCK_SECONDS):
        finish(root)
        if wrong := store_faults(root):
            refuse(root, wrong)
        with Commit(root) as commit:
            for path in _files(root):
                stored = pq.ParquetFile(path).read()
                theirs = pc.is_in(stored[USER_ID], users)
                count = pc.sum(theirs).as_py() or 0
                if not count:
                    continue
                removed[path.relative_to(root).parts[0]] += count
                if count < stored.num_rows:
                    folder = path.parent.relative_to(root).as_posix()
                    commit.add_table(folder, stored.filter(pc.invert(theirs)))
                commit.remove(path)
            commit.apply()
    return removed


def _files(root: Path) -> Iterator[Path]:
    yield from sorted((root / "interactions").glob("day=*/*.parquet"))
    yield from sorted((root / "profiles" / "user").glob("*.parquet"))
