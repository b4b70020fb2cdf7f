"""Find the files of a workspace that are no longer needed, for ``mmlora gc``.

A file is needed while something needed refers to it: decisions and loads refer to bundles, bundles and runs
to parts; a run is needed by its age. Files written within the last day are left alone, because the reference
to them may not be written yet, and so are files of training while a training step is running.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from mmlora.errors import UsageError
from mmlora.files import ASIDE, DISCARDED, is_held, last_change, size_of
from mmlora.scoring.shard_manifest import MANIFEST
from mmlora.warehouse.loads import OPEN
from mmlora.warehouse.shadows import shadows
from mmlora.warehouse.warehouse import Warehouse
from mmlora.workspace import STAGING_LOCK, Workspace

GRACE_SECONDS = 86_400.0
_PART = re.compile(r"\b[0-9a-f]{64}\b")
_TRAINING_SET = re.compile(r'"training_set_id": "(\w+)"')
_BASE = re.compile(r'"(?:base|start)": "([\w-]+)"')


@dataclass(frozen=True)
class Unused:
    """A file or a folder that can be removed.

    Attributes:
        kind: a description of the kind of file, for the report.
        lock: the lock that its users hold; None if only its age counts.
    """

    kind: str
    path: Path
    bytes: int
    lock: Path | None = None


class UnusedFiles:
    """The files that can be removed, ordered so that a file comes before the files that it refers to.

    Args:
        workspace: the workspace.
        warehouse: its open warehouse.
        versions: model versions that are needed at any age.
        days: days for which unneeded files are kept after their last use.
    """

    def __init__(
        self, workspace: Workspace, warehouse: Warehouse, versions: Collection[str], days: int
    ) -> None:
        now = time.time()
        self._workspace, self._warehouse, self._home = workspace, warehouse, workspace.home
        self._lately, self._old = now - GRACE_SECONDS, now - max(days * 86_400.0, GRACE_SECONDS)
        self._steps = self._home / "runs" / "steps"
        self._training = any(is_held(lock) for lock in self._steps.glob("*.lock"))
        self._runs = self._needed_runs()
        self._records = self._needed_records()
        bases = {base for text in self._texts(self._runs) for base in _BASE.findall(text)}
        self._versions = {*versions, *bases}

    def __iter__(self) -> Iterator[Unused]:
        yield from self._staged()
        yield from self._digests()
        yield from self._spilled()
        yield from self._pages()
        if not self._training:
            yield from self._runs_and_steps()
            yield from self._training_sets()
        yield from self.bundles()
        yield from self._parts()
        yield from self._left_by_killed()

    def bundles(self) -> Iterator[Unused]:
        """Yield the bundles that are not needed by any decision, load or run."""
        for file in sorted(self._home.glob("registry/bundles/[!.]*/manifest.json")):
            if file.parent.name not in self._versions and last_change(file) < self._old:
                yield _unused("models", file.parent)

    def _staged(self) -> Iterator[Unused]:
        # List the folders before reading their loads, so that folders of new loads are not included.
        folders = sorted(self._home.glob("staging/[!.]*"))
        with self._warehouse.reads_in_a_row():
            given_up = {
                load.load_id for load in self._warehouse.stale_loads(timedelta(seconds=GRACE_SECONDS))
            }
            kept = self._kept_shadows()
            for folder in folders:
                if folder.name not in kept and not self._is_staging(folder, given_up):
                    yield _unused("staged files", folder, folder / STAGING_LOCK)

    def _kept_shadows(self) -> set[str]:
        """Return the shadow loads that are not too old."""
        loads = shadows(self._warehouse.database, self._warehouse.tables)
        return {load.load_id for load in loads if load.scored_at.timestamp() >= self._old}

    def _is_staging(self, folder: Path, given_up: Collection[str]) -> bool:
        """Return whether a load needs its folder, or may be resumed from it."""
        recent = last_change(folder) >= self._lately
        try:
            state = self._warehouse.load(folder.name).state
        except UsageError:  # a folder of a dry run, of an old shadow, or of another warehouse
            return recent
        if state == "failed":
            return recent and (folder / MANIFEST).exists()
        return state == "staged" or (state == "running" and (recent or folder.name not in given_up))

    def _digests(self) -> Iterator[Unused]:
        files = sorted(self._home.glob("user_digests/*/*.parquet"))
        with self._warehouse.reads_in_a_row():
            for file in files:
                try:
                    state = self._warehouse.load(file.stem).state
                except UsageError:  # of another warehouse
                    state = "failed"
                if state not in (*OPEN, "published") and last_change(file) < self._lately:
                    yield _unused("digests of users", file)

    def _spilled(self) -> Iterator[Unused]:
        for folder in sorted(self._home.glob("offline/.spill/duckdb-*")):
            if last_change(folder) < self._lately:
                yield _unused("spilled queries", folder)

    def _pages(self) -> Iterator[Unused]:
        files = sorted(self._home.glob("data_docs/verdicts/*.json"), key=last_change)
        for file in files[:-1]:
            if last_change(file) < self._old:
                yield _unused("data docs", file)
                yield _unused("data docs", file.with_suffix(".html"))

    def _runs_and_steps(self) -> Iterator[Unused]:
        for run in self._all_runs():
            if run not in self._runs:
                yield _unused("training runs", run)
        for record in sorted(self._steps.glob("*.json")):
            if record not in self._records:
                yield _unused("training steps", record, record.with_suffix(".lock"))
        for checkpoint in sorted(self._steps.glob("*.checkpoint")):
            if last_change(checkpoint) < self._old:
                yield _unused("training steps", checkpoint, checkpoint.with_suffix(".lock"))

    def _training_sets(self) -> Iterator[Unused]:
        used = {name for text in self._texts(self._runs) for name in _TRAINING_SET.findall(text)}
        for folder in sorted(self._home.glob("training_sets/[!.]*")):
            if folder.name not in used and last_change(folder) < self._old:
                yield _unused("training sets", folder, folder.with_name(f".{folder.name}.lock"))
        for file in sorted(self._home.glob("training_sets/.features/*.arrow")):
            if last_change(file) < self._old:
                yield _unused("retrieved features", file, file.with_name(f".{file.stem}.lock"))

    def _parts(self) -> Iterator[Unused]:
        parts, needed = self._workspace.parts.root, self._named_parts()
        for file in sorted(parts.glob("[!.]*")):
            if file.name.partition(".")[0] not in needed and last_change(file) < self._lately:
                yield _unused("parts", file)

    def _left_by_killed(self) -> Iterator[Unused]:
        for folder in (
            "staging",
            "runs",
            "runs/steps",
            "training_sets",
            "training_sets/.features",
            "registry/*",
            "offline/.spill",
        ):
            for path in sorted(self._home.glob(f"{folder}/.*{ASIDE}")):
                if path.name.endswith(DISCARDED) or last_change(path) < self._lately:
                    yield _unused("half-written files", path)

    def _named_parts(self) -> set[str]:
        """Return the parts that needed bundles and runs refer to, directly or through other parts."""
        unused = {bundle.path for bundle in self.bundles()}
        bundles = [folder for folder in self._home.glob("registry/bundles/[!.]*") if folder not in unused]
        files = self._records if not self._training else self._steps.glob("*.json")
        named = {
            part for text in self._texts([*bundles, *self._runs, *files]) for part in _PART.findall(text)
        }
        new = named
        while new:  # a manifest names that of the model as judged, which names an encoder, which names tables
            listing = (self._workspace.parts.root / f"{part}.json" for part in new)
            new = {part for text in self._texts(listing) for part in _PART.findall(text)} - named
            named |= new
        return named

    def _all_runs(self) -> list[Path]:
        return sorted(folder for folder in self._home.glob("runs/[!.]*") if folder != self._steps)

    def _needed_runs(self) -> list[Path]:
        """Return the runs to keep: the recent ones, and the newest."""
        runs = sorted(self._all_runs(), key=last_change)
        return [run for run in runs if self._training or run == runs[-1] or last_change(run) >= self._old]

    def _needed_records(self) -> set[Path]:
        """Return the records of shared steps to keep: the recent ones, and those of kept runs."""
        named = {part for text in self._texts(self._runs) for part in _PART.findall(text)}
        return {
            file
            for file in self._steps.glob("*.json")
            if last_change(file) >= self._old or named.intersection(_PART.findall(file.read_text()))
        }

    def _texts(self, paths: Iterable[Path]) -> Iterator[str]:
        """Yield the content of JSON files, given directly or as folders."""
        for path in paths:
            for file in path.rglob("*.json") if path.is_dir() else (path,):
                if file.exists():
                    yield file.read_text(encoding="utf-8")


def _unused(kind: str, path: Path, lock: Path | None = None) -> Unused:
    return Unused(kind, path, size_of(path), lock if lock is not None and lock.exists() else None)
