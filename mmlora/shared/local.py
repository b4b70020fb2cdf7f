"""A machine's copy of the shared workspace: which version its files are of, and which have changed since."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from typing import Any

from mmlora.files import ASIDE, discard, write_atomically
from mmlora.shared.files import OWN_ROWS, STATE, Entry, Files, is_own, on_demand

_Stamp = list[int]
"""Size, times and inode of a file, which change whenever it is written or replaced."""


class LocalCopy:
    """The files under a home, and what is known of them.

    Attributes:
        version: the number of the version that they were last in step with; 0 before the first pull.
        whole: whether all files of that version are here, but for the folders on demand.
        base: the entry that each file had there.
        absent: folders on demand that were not fetched: each stands for its files as an empty folder.

    Args:
        home: the workspace's folder.
        url: the shared workspace's URL; what was known of another is forgotten.
    """

    def __init__(self, home: Path, url: str) -> None:
        self.home, self._url = home, url
        self._path = home / STATE / "state.json"
        raw = self._load()
        self.version: int = raw.get("version", 0)
        self.whole: bool = raw.get("whole", False)
        self.base: Files = {path: Entry(*entry) for path, entry in raw.get("base", {}).items()}
        self.absent: set[str] = set(raw.get("absent", ()))
        self._known: dict[str, tuple[_Stamp, Entry]] = {
            path: (stamp, Entry(*entry)) for path, (stamp, entry) in raw.get("known", {}).items()
        }
        self._resume({path: entry and Entry(*entry) for path, entry in raw.get("coming", {}).items()})

    @property
    def incoming(self) -> Path:
        """The folder for files that are being downloaded."""
        return self.home / STATE / "incoming"

    def save(self, coming: Mapping[str, Entry | None] | None = None) -> None:
        """Record what is known.

        Args:
            coming: what is about to become of files, so that a pull that is killed doesn't leave what looks
                like changes of this machine.
        """
        state = {
            "url": self._url,
            "version": self.version,
            "whole": self.whole,
            "base": {path: astuple(entry) for path, entry in self.base.items()},
            "absent": sorted(self.absent),
            "known": {path: [stamp, astuple(entry)] for path, (stamp, entry) in self._known.items()},
            "coming": {path: entry and astuple(entry) for path, entry in (coming or {}).items()},
        }
        write_atomically(self._path, json.dumps(state))

    def scan(self) -> Files:
        """Return the files as they are; those that have changed since the last look are hashed."""
        found = Files()
        for path, stat in _walk(self.home):
            if on_demand(path) not in self.absent:
                found[path] = self._entry(path, stat)
        self._known = {path: known for path, known in self._known.items() if path in found}
        standing = {folder for folder in self.absent if (self.home / folder).is_dir()}
        return found | {path: entry for path, entry in self.base.items() if on_demand(path) in standing}

    def place(self, path: str, entry: Entry, content: Path) -> None:
        """Move a file with an entry's content to its path."""
        target = self.home / path
        target.parent.mkdir(parents=True, exist_ok=True)
        content.replace(target)
        self.date(path, entry)

    def date(self, path: str, entry: Entry) -> None:
        """Give a file that has an entry's content its time."""
        os.utime(self.home / path, ns=(entry.mtime, entry.mtime))
        self._known[path] = (_stamp((self.home / path).stat()), entry)
        self.base[path] = entry

    def remove(self, path: str) -> None:
        """Remove a file, and the folders that become empty."""
        target = self.home / path
        target.unlink(missing_ok=True)
        self.base.pop(path, None)
        self._known.pop(path, None)
        for folder in target.parents:
            if folder == self.home or (folder.is_dir() and any(folder.iterdir())):
                return
            if folder.is_dir():
                folder.rmdir()

    def discard_own(self) -> None:
        """Remove caches and leftovers, which may hold rows of erased users and aren't shared."""
        for path in (*(self.home / name for name in OWN_ROWS), *self.home.rglob(f".*{ASIDE}")):
            discard(path)

    def date_folders(self, changed: Collection[str]) -> None:
        """Give the folders of changed files the time of their newest file, for `mmlora gc`."""
        times: dict[Path, int] = {}
        for path, entry in self.base.items():
            for folder in Path(path).parents:
                times[folder] = max(entry.mtime, times.get(folder, 0))
        touched = {folder for path in changed for folder in Path(path).parents} - {Path()}
        for folder in touched.intersection(times):
            if (self.home / folder).is_dir():
                os.utime(self.home / folder, ns=(times[folder], times[folder]))

    def unchanged(self, path: str) -> bool:
        """Return whether a file is as it was last seen."""
        known = self._known.get(path)
        return known is not None and _stamp((self.home / path).stat()) == known[0]

    def _entry(self, path: str, stat: os.stat_result) -> Entry:
        stamp, known = _stamp(stat), self._known.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        entry = Entry(_hash(self.home / path), stat.st_size, stat.st_mtime_ns)
        self._known[path] = (stamp, entry)
        return entry

    def _resume(self, coming: Mapping[str, Entry | None]) -> None:
        """Tell what a killed pull has done from what this machine has changed."""
        shutil.rmtree(self.incoming, ignore_errors=True)
        self.incoming.mkdir(parents=True)
        for path, entry in coming.items():
            file = self.home / path
            if not file.is_file():
                self.base.pop(path, None)
            elif entry is not None and _hash(file) == entry.sha256:
                self.date(path, entry)
            elif not self.unchanged(path):  # written by the pull, and cut short with the machine's power
                self.remove(path)

    def _load(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return state if state.get("url") == self._url else {}


def _walk(home: Path) -> Iterator[tuple[str, os.stat_result]]:
    for folder, folders, files in os.walk(home):
        inside = Path(folder).relative_to(home).as_posix()
        prefix = "" if inside == "." else f"{inside}/"
        folders[:] = [name for name in folders if not is_own(f"{prefix}{name}/")]
        for name in files:
            if not is_own(f"{prefix}{name}"):
                with suppress(FileNotFoundError):  # a link to nothing
                    yield f"{prefix}{name}", Path(folder, name).stat()


def _stamp(stat: os.stat_result) -> _Stamp:
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _hash(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
