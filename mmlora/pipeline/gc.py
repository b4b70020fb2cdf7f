"""``mmlora gc``: free rows and files that are no longer needed.

References are removed before the things that they refer to: pointers and records before rows, bundles and
runs before their parts. A killed call therefore leaves unused things, never missing ones, and the next call
removes them.
"""

from __future__ import annotations

import getpass
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from mmlora.files import discard_unheld, locked
from mmlora.pipeline.promote import champion_before
from mmlora.records import Record
from mmlora.runs.champions import CHALLENGER, CHAMPION
from mmlora.runs.unused import Unused, UnusedFiles
from mmlora.warehouse import freeing
from mmlora.warehouse.decisions import Promotion, every_promotion
from mmlora.warehouse.shadows import free_shadows, is_shadow
from mmlora.warehouse.tables import tables
from mmlora.warehouse.warehouse import Warehouse
from mmlora.workspace import Progress, Workspace, open_workspace, silent

MLFLOW_RUNS = "mlflow runs"


@dataclass(frozen=True)
class Freed(Record):
    """The total of what was (or would be) freed of one kind.

    Attributes:
        count: number of nights, loads, files or folders.
        rows: rows of the warehouse; None for files.
        bytes: exact size of files, approximate size of rows; None if unknown.
    """

    kind: str
    count: int = 0
    rows: int | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class GcOutcome(Record):
    """What was freed, or would be in a dry run: a row a kind, and the bytes of all."""

    dry_run: bool
    freed: tuple[Freed, ...]
    bytes: int


def gc(
    *,
    keep_days: int | None = None,
    keep_loads: int | None = None,
    dry_run: bool = False,
    progress: Progress = silent,
) -> GcOutcome:
    """Free everything that the retention doesn't keep; the next call completes a killed one.

    Args:
        keep_days: nights more than this many days before the newest are freed; the setting when None.
        keep_loads: earlier published loads to keep per domain and date; the setting when None.
        dry_run: change nothing, and return what would be freed.
        progress: called with the loads and files done.

    Raises:
        TransientError: another gc is running, or the warehouse or MLflow doesn't respond.
    """
    workspace = open_workspace()
    retention, busy = workspace.settings.retention, "another `mmlora gc` is under way here: wait for it"
    days = retention.nights_days if keep_days is None else keep_days
    with ExitStack() as held:
        warehouse = held.enter_context(workspace.open_warehouse())
        if not dry_run:
            held.enter_context(locked(workspace.home / ".gc.lock", wait=0, busy=busy))
            held.enter_context(warehouse.database.alone("gc"))  # other workspaces may use the warehouse
        planned = freeing.plan(
            warehouse.database,
            tables(warehouse.ids),
            keep_days=days,
            keep_loads=retention.loads if keep_loads is None else keep_loads,
        )
        done = planned.loads if dry_run else tuple(_free_rows(warehouse, planned, progress))
        files = _files(workspace, warehouse, planned.loads, dry_run, progress)
        freed = (*_rows(done), *files, *_shared(workspace, dry_run))
    return GcOutcome(dry_run, freed, sum(row.bytes or 0 for row in freed))


def _free_rows(
    warehouse: Warehouse, planned: freeing.Freeing, progress: Progress
) -> Iterator[freeing.FreeLoad]:
    done = freeing.free(warehouse.database, tables(warehouse.ids), planned, who=getpass.getuser())
    for number, load in enumerate(done, 1):
        progress("free rows", number, max(len(planned.loads), number))
        yield load


def _rows(loads: Collection[freeing.FreeLoad]) -> Iterator[Freed]:
    for kind, night in (("old nights", True), ("replaced loads", False)):
        group = [load for load in loads if load.night == night]
        count = len({load.score_date for load in group}) if night else len(group)
        if count:
            yield Freed(kind, count, sum(load.rows for load in group), sum(load.bytes for load in group))


def _files(
    workspace: Workspace,
    warehouse: Warehouse,
    freed: Collection[freeing.FreeLoad],
    dry_run: bool,
    progress: Progress,
) -> Iterable[Freed]:
    """Remove the files that nobody needs, and return what they were."""
    days = workspace.settings.retention.files_days
    versions = freeing.versions_in_use(
        warehouse.database, tables(warehouse.ids), without=freed if dry_run else ()
    )
    unused = UnusedFiles(workspace, warehouse, versions | _decided(warehouse, days), days)
    files, kinds = list(unused), dict[str, Freed]()
    if not dry_run:
        _forget_pages(workspace, files)
        staged = [file.path.name for file in files if file.kind == "staged files"]
        shadows = [name for name in staged if is_shadow(name)]
        free_shadows(warehouse.database, warehouse.tables, load_ids=shadows)
    for number, file in enumerate(files, 1):
        if file.kind == "models":
            _count(kinds, MLFLOW_RUNS, _forget_runs(workspace, file.path.name, dry_run), None)
        if dry_run:
            _count(kinds, file.kind, 1, file.bytes)
        elif (size := discard_unheld(file.path, file.lock)) is not None:
            _count(kinds, file.kind, 1, size)
        progress("remove files", number, len(files))
    return kinds.values()


def _shared(workspace: Workspace, dry_run: bool) -> Iterator[Freed]:
    """Free what only replaced versions of the shared workspace have; what is removed now goes in a day."""
    if (session := workspace.shared) is not None:
        swept = session.sweep(dry_run=dry_run)
        for kind, count, size in (
            ("shared versions", swept.versions, swept.version_bytes),
            ("shared objects", swept.objects, swept.object_bytes),
        ):
            if count:
                yield Freed(kind, count, None, size)


def _decided(warehouse: Warehouse, days: int) -> set[str]:
    """Return the versions that are champion or challenger, were made so of late, or by a rollback can be."""
    with warehouse.database.reading() as connection:
        decisions = every_promotion(connection, tables(warehouse.ids))
    since = datetime.now(UTC) - timedelta(days=days)
    needed = {decision.model_version for decision in decisions if decision.promoted_at >= since}
    for domain in {None, *(decision.domain_id for decision in decisions)}:
        for alias in (CHAMPION, CHALLENGER):
            of_domain = [d for d in decisions if d.alias == alias and d.domain_id in (None, domain)]
            needed.update(_standing(of_domain))
    return needed


def _standing(decisions: list[Promotion]) -> Iterator[str]:
    """Yield the version that the newest decision names, and the one that a rollback would go back to."""
    if decisions:
        yield decisions[0].model_version
    if (before := champion_before(decisions)) is not None:
        yield before.model_version


def _forget_pages(workspace: Workspace, files: Iterable[Unused]) -> None:
    """Have the Data Docs' index lead to no page that is about to go."""
    from mmlora.checks.pages import write_index

    if pages := [file.path for file in files if file.kind == "data docs"]:
        write_index(workspace.home / "data_docs", without=pages)


def _forget_runs(workspace: Workspace, version: str, dry_run: bool) -> int:
    """Delete the runs in MLflow that a bundle came from, and return how many."""
    runs = workspace.tracking.runs_of(version)
    for run in () if dry_run else runs:
        workspace.tracking.delete_run(run)
    return len(runs)


def _count(kinds: dict[str, Freed], kind: str, count: int, size: int | None) -> None:
    if count:
        row = kinds.get(kind, Freed(kind))
        total = row.bytes if size is None else (row.bytes or 0) + size
        kinds[kind] = replace(row, count=row.count + count, bytes=total)
