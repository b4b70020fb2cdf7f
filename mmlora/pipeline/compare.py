"""``mmlora compare`` and ``mmlora score --dry-run``: how the scores of two nights or loads differ."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from mmlora.errors import DataError, UsageError
from mmlora.nights.failures import describe
from mmlora.nights.labels import shown_in
from mmlora.nights.load import ScoreOptions, score
from mmlora.pipeline.differences import (
    ComparedLoad,
    DryRun,
    LaterLabels,
    LoadDifference,
    Mover,
    RehearsedLoad,
    RowDifference,
)
from mmlora.pipeline.score import domains_to_score
from mmlora.schema import Id
from mmlora.warehouse.shadows import ShadowLoad, is_shadow, shadow, shadows
from mmlora.workspace import Progress, Workspace, open_workspace, silent

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from mmlora.warehouse.loads import Load
    from mmlora.warehouse.publish import Publication
    from mmlora.warehouse.warehouse import Warehouse

RowReader = Callable[[], "pa.RecordBatchReader"]


def compare(
    domain: str | None = None,
    *,
    on: date | None = None,
    against: date | None = None,
    load_id: str | None = None,
) -> LoadDifference:
    """Compare two nights of a domain, or a load with what readers see.

    Args:
        domain: the domain; not with ``load_id``.
        on: a published night; the newest if None.
        against: the published night to compare with; the previous one if None.
        load_id: a staged, published, superseded or shadow load, instead of a published night. It is compared
            with what readers see for its date, else for the newest date before.

    Raises:
        UsageError: the domain, night or load does not exist, or there is nothing to compare with.
        DataError: the rows of a load were removed.
    """
    if (domain is None) == (load_id is None):
        raise UsageError("give a domain, or a load")
    workspace = open_workspace()
    with workspace.open_warehouse() as warehouse:
        after: Load | ShadowLoad
        if load_id is None:
            night = _published(warehouse, workspace.domain(str(domain)), on)
            after = warehouse.load(night.load_id)
        elif is_shadow(load_id):
            after = shadow(warehouse.database, warehouse.tables, load_id)
        else:
            after = warehouse.load(load_id)
        return _compared(workspace, warehouse, after, against)


def compare_shadows(on: date, *, domain: str | None = None) -> tuple[LoadDifference, ...]:
    """Compare the newest shadow load of each domain with what readers see for a date, or for the one before.

    Args:
        on: the score date.
        domain: this domain only.

    Raises:
        UsageError: there is no shadow load of the date, or nothing to compare it with.
        DataError: the rows of a load were removed.
    """
    workspace = open_workspace()
    target = None if domain is None else workspace.domain(domain)
    with workspace.open_warehouse() as warehouse:
        known = shadows(warehouse.database, warehouse.tables, domain=target, score_date=on)
        newest = {load.domain_id: load for load in reversed(known)}
        if not newest:
            raise UsageError(
                f"there is no shadow load of {domain or 'any domain'} for {on}: "
                f"mmlora score --date {on} --shadow challenger"
            )
        return tuple(_compared(workspace, warehouse, newest[name], None) for name in sorted(newest, key=str))


def _compared(
    workspace: Workspace, warehouse: Warehouse, after: Load | ShadowLoad, against: date | None
) -> LoadDifference:
    before = _before(warehouse, after, against)
    shown = None
    if before.score_date == after.score_date:
        shown = shown_in(workspace, after.domain_id, after.score_date, datetime.now(UTC))
    with _tables(_rows(workspace, warehouse, before), _rows(workspace, warehouse, after)) as connection:
        return LoadDifference(
            str(after.domain_id),
            ComparedLoad.of(before),
            ComparedLoad.of(after),
            _row_difference(connection),
            _movers(connection),
            None if shown is None else _labels(connection, shown),
        )


def dry_run(
    on: date,
    *,
    domain: str | None = None,
    progress: Progress = silent,
    **options: Unpack[ScoreOptions],
) -> DryRun:
    """Score a date's domains and compare them with what readers see, without publishing them.

    Missing features and verdicts are computed and stored, because they do not depend on who computes them.
    The arguments are those of ``score_and_publish``.
    """
    workspace = open_workspace()
    options["workspace"] = workspace
    with workspace.open_warehouse():  # opened once for all domains
        domains, skipped = domains_to_score(workspace, on, [domain] if domain else [], options)
        loads = [_rehearse(workspace, on, name, progress, options) for name in domains]
    return DryRun(tuple(loads), tuple(skipped))


def change_since(workspace: Workspace, before: str, after: str) -> RowDifference | None:
    """Compare a load with an earlier load of its domain and date; None if the earlier rows were freed."""
    with workspace.open_warehouse() as warehouse:
        replaced = warehouse.load(before)
        if replaced.rows_freed_at is not None:
            return None
        new = warehouse.load(after)
        return _difference(_rows(workspace, warehouse, replaced), _rows(workspace, warehouse, new))


def _rehearse(
    workspace: Workspace, on: date, domain: str, progress: Progress, options: ScoreOptions
) -> RehearsedLoad:
    begun = time.monotonic()
    try:
        name = score(on, domain, dry_run=True, progress=progress, **options)
    except Exception as error:
        code = getattr(error, "exit_code", 1)
        return RehearsedLoad(domain, on, "would fail", exit_code=code, reason=describe(error))
    folder = workspace.staging_folder(name)
    try:
        with workspace.open_warehouse() as warehouse:
            published = warehouse.publications(domain=workspace.domain(domain), end=on)
            before = warehouse.load(published[0].load_id) if published else None
            published_rows = None if before is None else _rows(workspace, warehouse, before)
            rows = _difference(published_rows, lambda: _staged(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = time.monotonic() - begun
    compared = None if before is None else ComparedLoad.of(before)
    return RehearsedLoad(domain, on, "would publish", before=compared, rows=rows, seconds=seconds)


def _published(warehouse: Warehouse, domain: Id, on: date | None) -> Publication:
    night = warehouse.publication(domain, on)
    if night is None:
        raise UsageError(f"nothing is published for domain {domain!r}{f' on {on}' if on else ''}")
    return night


def _before(warehouse: Warehouse, after: Load | ShadowLoad, against: date | None) -> Load:
    """Return the load to compare a load with."""
    if against is not None:
        return warehouse.load(_published(warehouse, after.domain_id, against).load_id)
    nights = warehouse.publications(domain=after.domain_id, end=after.score_date)
    others = [night for night in nights if night.load_id != after.load_id]
    if not others:
        raise UsageError(
            f"no other night of domain {after.domain_id!r} is published up to {after.score_date}"
        )
    return warehouse.load(others[0].load_id)


def _rows(workspace: Workspace, warehouse: Warehouse, load: Load | ShadowLoad) -> RowReader:
    """Return a reader of a load's rows, from the warehouse or from its staged files."""
    folder = workspace.staging_folder(load.load_id)
    if isinstance(load, ShadowLoad):
        return lambda: _staged(folder)
    if load.state in ("published", "superseded"):
        return lambda: warehouse.rows_of(load)
    if load.state != "staged" or not any(folder.glob("part-*.parquet")):
        raise DataError(f"load {load.load_id}", f"is {load.state}, and its rows were removed")
    return lambda: _staged(folder)


def _staged(folder: Path) -> pa.RecordBatchReader:
    import pyarrow.dataset as ds

    return ds.dataset(sorted(folder.glob("part-*.parquet"))).scanner().to_reader()


def _difference(before: RowReader | None, after: RowReader) -> RowDifference:
    """Return how the rows of two loads differ; without a load before, all rows are new."""
    with _tables(before, after) as connection:
        return _row_difference(connection)


@contextmanager
def _tables(before: RowReader | None, after: RowReader) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection with the tables ``before`` and ``after``."""
    from mmlora.duck import in_memory

    columns = "user_id, item_id, score, position"
    with in_memory(Path(tempfile.gettempdir())) as connection:
        connection.register("rows", after())
        connection.execute(f"CREATE TEMP TABLE after AS SELECT {columns} FROM rows")
        if before is None:
            connection.execute("CREATE TEMP TABLE before AS SELECT * FROM after WHERE false")
        else:
            connection.register("rows", before())
            connection.execute(f"CREATE TEMP TABLE before AS SELECT {columns} FROM rows")
        yield connection


def _row_difference(connection: duckdb.DuckDBPyConnection) -> RowDifference:
    from mmlora.resources import sql

    return RowDifference(**connection.sql(sql("difference.sql")).to_arrow_table().to_pylist()[0])


def _movers(connection: duckdb.DuckDBPyConnection) -> tuple[Mover, ...]:
    from mmlora.resources import sql

    return tuple(Mover(**row) for row in connection.sql(sql("movers.sql")).to_arrow_table().to_pylist())


def _labels(connection: duckdb.DuckDBPyConnection, shown: pa.Table) -> LaterLabels:
    from mmlora.resources import sql

    connection.register("shown", shown)
    return LaterLabels.of(connection.sql(sql("labelled.sql")).to_arrow_table())
