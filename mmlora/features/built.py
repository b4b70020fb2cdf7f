"""The files of the computed views, as named by the ``state.json`` beside their folders.

A build overwrites nothing: new files have new names, the state is replaced atomically, and old files are
removed a day later, so that a reader of any state finds its files. Within :func:`snapshot` each state is read
once, so that several retrievals read the same build.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from mmlora.errors import Fault
from mmlora.manifest import FileRecord, faults, refusal

STATE = "state.json"
KEPT_SECONDS = 86_400.0
"""How long a file stays after no state names it any more; no scoring job reads for longer."""

_MEND = "rebuild them: `mmlora features build --through DATE`"
_read: ContextVar[dict[Path, dict[str, Any]] | None] = ContextVar("states of features", default=None)


@contextmanager
def snapshot() -> Iterator[None]:
    """Pin each folder's build inside the context to the newest one at its first read."""
    if _read.get() is not None:
        yield
        return
    token = _read.set({})
    try:
        yield
    finally:
        _read.reset(token)


def built_files(view: Path) -> list[str] | None:
    """Return the files of a computed view's folder; None when the folder isn't a computed view's.

    Raises:
        DataError: one of them is missing or was changed.
    """
    state = _state(view.parent)
    if view.name not in state.get("files", {}):
        return None
    names: list[str] = state["files"][view.name]
    if wrong := file_faults(view.parent, {view.name: names}, state.get("records", {})):
        raise refusal(view.parent, wrong, _MEND)
    return sorted(str(view / name) for name in names)


def file_faults(
    folder: Path, files: Mapping[str, Iterable[str]], records: Mapping[str, FileRecord]
) -> list[Fault]:
    """Return the faults of the views' files; a file without a record is only checked to exist."""
    paths = [f"{view}/{name}" for view, names in files.items() for name in names]
    missing = [
        Fault(f"{path} is missing") for path in paths if path not in records and not (folder / path).exists()
    ]
    return [*faults(folder, {path: records[path] for path in paths if path in records}), *missing]


class _BuiltViews:
    """The ASOF store's listing: the files of each view's newest build."""

    files = staticmethod(built_files)
    snapshot = staticmethod(snapshot)


LISTING = _BuiltViews()


def retire(retired: Mapping[str, float], old: Iterable[str], new: Iterable[str]) -> dict[str, float]:
    """Return when each unused file went out of use: those replaced now, and those of the last day."""
    now, kept = time.time(), set(new)
    since = {path: now for path in old if path not in kept} | dict(retired)
    return {path: moment for path, moment in since.items() if now - moment < KEPT_SECONDS}


def sweep(folder: Path, named: Iterable[str], retired: Mapping[str, float]) -> None:
    """Remove files that no state names: a killed build's, and those out of use for more than a day."""
    now = time.time()
    kept = {*named, *(path for path, moment in retired.items() if now - moment < KEPT_SECONDS)}
    for path in folder.glob("[!.]*/*.parquet"):
        if f"{path.parent.name}/{path.name}" not in kept:
            path.unlink(missing_ok=True)


def read_state(folder: Path) -> dict[str, Any]:
    """Return the newest state of the views in a folder (``files``, ``records``, ``retired``); empty if none.

    Raises:
        DataError: it can't be read.
    """
    path = folder / STATE
    try:
        state = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError:
        raise refusal(folder, [Fault(f"{STATE} can't be read")], _MEND) from None
    return state if isinstance(state, dict) else {}


def _state(folder: Path) -> dict[str, Any]:
    known = _read.get()
    if known is None:
        return read_state(folder)
    if folder not in known:
        known[folder] = read_state(folder)
    return known[folder]
