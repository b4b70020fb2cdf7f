"""Build the activity features: windowed counts of the interactions, as rows for Feast's point-in-time joins.

A row stamped T (a midnight, UTC) summarises the interactions strictly before T. Let F(e, T, k) be the
features of entity e at T, computed from everything that had arrived by k. A build through D writes

* the base rows F(e, T, T), created at T, at every T <= D where a field changes;
* for every *late* instant k (when an interaction or a correction arrived after the midnight that ended its
  day) the rows F(e, T, k), created at k, from the first day that it touches up to k.

A reader of "the latest T at or before t, among rows created by k" therefore gets F(e, t, k). The SQL works
with deltas and cumulative sums: a day's counts enter a series at one midnight and leave each window at
another (``sql/features/entries.sql``, ``activity.sql``). Because the latest T wins over the latest k, a
restated series has a row at every midnight where any row known before has one; and because restated rows
would otherwise stay the newest, a base row is written whenever late data arrived since the midnight before.

An incremental build equals a full one, because the row at (T, k) depends only on what happened before T and
was known by k. After a build through D', an increment adds base rows for D' < T <= D, rows at the same T for
instants restated before, and rows at all T for new instants. Interactions imported since that happened before
D' *and* were known by D' (or by the last instant restated) would change rows already written; everything is
then rebuilt, as it is after a change of settings or queries.

An increment reads the stored interactions once. For each view it then keeps those of the entities that can
have new rows, and of these sums what lies before every window (``sql/features/narrowed.sql``), so that the
views' queries cost in proportion to what is new. The rows are the same as without this.

Choices made from the data at the first build (the prior CTR, the content of the affinity views) are kept in
``state.json`` for the increments; ``decide`` chooses again, and only adds to them.

Files are written to a staging folder and renamed under a lock to names never used before; ``state.json`` is
replaced last, and only the files it names are read. Files out of use stay for a day, for running readers.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path

import duckdb

from mmlora.duck import in_memory
from mmlora.features.affinity import Affinity, choose_affinity, prepare
from mmlora.features.built import retire, sweep
from mmlora.features.columns import analyse
from mmlora.features.plan import (
    FORMER_PRIOR_CTR,
    BuildState,
    Plan,
    Recipe,
    View,
    input_files,
    item_files,
    make_plan,
)
from mmlora.features.profile_stats import profile_schema
from mmlora.files import locked
from mmlora.manifest import FileRecord, record
from mmlora.records import Record
from mmlora.resources import sql

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
Limits = dict[str, date | str | None]
"""The parameters of the views' queries: ``after``, ``through`` and ``restated``."""

LOCK_SECONDS = 300.0
_BEGINNING = date(1, 1, 2)


@dataclass(frozen=True)
class BuildReport(Record):
    """The result of a build.

    Attributes:
        through: features are complete for scoring dates up to this one.
        since: the last date of the previous build, or None when everything was rebuilt.
        reason: why everything was rebuilt; empty for an increment.
        rows: rows written, by view.
        seconds: wall-clock time.
    """

    through: date
    since: date | None
    reason: str
    rows: dict[str, int]
    seconds: float


def build(
    offline: Path,
    *,
    through: date,
    prior_ctr: float | None = None,
    prior_weight: float = 20.0,
    columns: Mapping[str, str] | None = None,
    decide: bool = False,
    progress: Progress | None = None,
) -> BuildReport:
    """Compute the activity features for scoring dates up to ``through``.

    Args:
        offline: the offline store's folder.
        through: rows stamped T <= ``through`` 00:00 UTC are built; later rows of an earlier build stay.
        prior_ctr: CTR of an entity without rows, in (0, 1); None takes the overall CTR at the first build.
        prior_weight: weight of the prior in rows:
            ctr = (clicks + prior_ctr * prior_weight) / (rows + prior_weight).
        columns: kinds set for profile columns (:func:`mmlora.features.columns.analyse`).
        decide: add attributes that item profiles have gained to the affinity views.
        progress: called with ``("features", views done, views)``.

    Raises:
        UsageError: nothing was imported yet.
        TransientError: another build holds the lock.
    """
    started = time.monotonic()
    folder = offline / "features"
    busy = (
        f"another features build has held {folder / '.lock'} for {LOCK_SECONDS:.0f} s: "
        "try again when it is done"
    )
    with (
        locked(folder / ".lock", wait=LOCK_SECONDS, busy=busy),
        in_memory(offline / ".spill", ordered=False) as connection,
    ):
        _sweep(folder)
        inputs = input_files(offline)
        recipe = _recipe(connection, offline, through, prior_ctr, prior_weight, columns, decide)
        plan = make_plan(connection, offline, inputs, recipe, through)
        if (
            plan.kept
            and not plan.reason
            and plan.kept.inputs == inputs
            and plan.kept.through >= str(plan.through)
        ):
            rows = dict.fromkeys((view.name for view in recipe.views), 0)
            return BuildReport(plan.through, plan.through, "", rows, time.monotonic() - started)
        rows, restated = _compute(connection, offline, plan, recipe, progress)
        state = BuildState(
            definition=recipe.hash,
            through=str(plan.through),
            restated=restated,
            builds=0,
            inputs=inputs,
            files={},
            prior_ctr=recipe.prior_ctr,
            affinity=recipe.affinity.to_json(),
        )
        _publish(folder, plan, rows, state)
    since = date.fromisoformat(plan.kept.through) if plan.kept else None
    report = BuildReport(plan.through, since, plan.reason, rows, time.monotonic() - started)
    logger.info("features built through %s: %s rows", plan.through, f"{sum(rows.values()):,}")
    return report


def _recipe(
    connection: duckdb.DuckDBPyConnection,
    offline: Path,
    through: date,
    prior_ctr: float | None,
    prior_weight: float,
    columns: Mapping[str, str] | None,
    decide: bool,
) -> Recipe:
    """Return the settings and the choices made from the data at the first build, which determine the rows."""
    state = BuildState.load(offline / "features")
    affinity = Affinity.from_json(state.affinity) if state else Affinity()
    interactions = str(offline / "interactions" / "**" / "*.parquet")
    if decide or state is None or state.prior_ctr is None:
        profile_columns = analyse(offline, columns)
        chosen = choose_affinity(connection, interactions, profile_columns, by_domain=affinity.by_domain)
        affinity = affinity.union(chosen)
    affinity = affinity.within(profile_schema(offline / "profiles" / "item").names)
    if state:  # models were trained on features built with this prior
        prior_ctr = prior_ctr or state.prior_ctr or FORMER_PRIOR_CTR
    prior = prior_ctr or _overall_ctr(connection, interactions, through)
    return Recipe(prior, prior_weight, affinity)


def _overall_ctr(connection: duckdb.DuckDBPyConnection, interactions: str, through: date) -> float:
    """Return the CTR over all stored versions before ``through``, smoothed away from 0 and 1."""
    query = """
        SELECT (count(*) FILTER (label = 1) + 1) / (count(*) + 2)
        FROM read_parquet($interactions, hive_partitioning = false)
        WHERE event_timestamp < $through::TIMESTAMPTZ
    """
    row = connection.execute(query, {"interactions": interactions, "through": through}).fetchone()
    return float(f"{row[0]:.4g}") if row else 0.5


def _sweep(folder: Path) -> None:
    """Remove what a killed build left: its staging folder, and files that the state doesn't name."""
    shutil.rmtree(folder / ".staging", ignore_errors=True)
    state = BuildState.load(folder)
    sweep(folder, state.paths if state else (), state.retired if state else {})


def _compute(
    connection: duckdb.DuckDBPyConnection,
    offline: Path,
    plan: Plan,
    recipe: Recipe,
    progress: Progress | None,
) -> tuple[dict[str, int], str | None]:
    """Write each view's new rows to the staging folder; return their counts and the last late instant."""
    limits: Limits = {
        "after": date.fromisoformat(plan.kept.through) if plan.kept else _BEGINNING,
        "through": plan.through,
        "restated": plan.kept.restated if plan.kept else None,
    }
    if recipe.affinity.views:
        prepare(connection, item_files(offline), recipe.affinity)
    restated = _read_increments(connection, offline, plan, recipe, limits)
    staging = offline / "features" / ".staging"
    staging.mkdir()
    views, rows = recipe.views, {}
    for done, view in enumerate(views):
        if progress:
            progress("features", done, len(views))
        if plan.kept:
            _execute(connection, view.narrowed_sql(), limits)
        rows[view.name] = write_view(connection, view, staging / f"{view.name}.parquet", limits, recipe)
    if progress:
        progress("features", len(views), len(views))
    return rows, restated.isoformat() if restated else None


def _read_increments(
    connection: duckdb.DuckDBPyConnection, offline: Path, plan: Plan, recipe: Recipe, limits: Limits
) -> datetime | None:
    """Create ``increments``, or what each view's is taken from; return the last late instant."""
    pattern = str(offline / "interactions" / "**" / "*.parquet")
    _execute(connection, sql("features/versions.sql"), {"interactions": pattern, **limits})
    connection.execute(sql("features/increments.sql"))
    last = connection.execute("SELECT max(known) FROM all_increments WHERE late").fetchone()
    if plan.kept:
        _execute(connection, sql("features/recent.sql"), limits)
    else:
        connection.execute("CREATE TEMP TABLE increments AS FROM all_increments; DROP TABLE versions")
        if recipe.affinity.views:
            connection.execute(sql("features/versioned.sql"))
    return last[0] if last else None


def write_view(
    connection: duckdb.DuckDBPyConnection,
    view: View,
    path: Path,
    limits: Limits,
    recipe: Recipe,
) -> int:
    """Write a view's new rows to a Parquet file, and return their count."""
    target = str(path).replace("'", "''")
    *steps, query = view.rows_sql().split(";\n")
    script = ";\n".join([view.entries_sql(), *steps, f"COPY ({query}) TO '{target}' (FORMAT parquet)"])
    row = _execute(connection, script, {**limits, **recipe.prior}).fetchone()
    return int(row[0]) if row else 0


def _execute(
    connection: duckdb.DuckDBPyConnection, script: str, parameters: Mapping[str, object]
) -> duckdb.DuckDBPyConnection:
    """Execute a script's statements, each with those parameters that it reads."""
    for statement in script.split(";\n"):
        used = {name: value for name, value in parameters.items() if f"${name}" in statement}
        connection.execute(statement, used)
    return connection


def _publish(folder: Path, plan: Plan, rows: dict[str, int], state: BuildState) -> None:
    """Move the files in under new names, then replace the state, which alone says which files count."""
    kept, old = plan.kept, BuildState.load(folder)
    number = old.builds if old else 0
    files: dict[str, list[str]] = {}
    records: dict[str, FileRecord] = {}
    for name, count in rows.items():
        files[name] = list(kept.files.get(name, ())) if kept else []
        if count or not files[name]:  # an empty first file still has the columns
            target = f"{number:06d}-{plan.through}.parquet"
            (folder / name).mkdir(exist_ok=True)
            staged = folder / ".staging" / f"{name}.parquet"
            records[f"{name}/{target}"] = record(staged)
            staged.replace(folder / name / target)
            files[name].append(target)
    new = replace(state, builds=number + 1, files=files)
    earlier = kept.records if kept else {}
    records |= {path: earlier.get(path) or record(folder / path) for path in new.paths if path not in records}
    retired = retire(old.retired, old.paths, new.paths) if old else {}
    replace(new, records=records, retired=retired).save(folder)
    shutil.rmtree(folder / ".staging")
