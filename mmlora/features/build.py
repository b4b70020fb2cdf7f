"""Activity features: windowed counts of the interactions, as rows that Feast joins as of a time.

A row stamped T (a midnight, UTC) summarises the interactions strictly before T. Let F(e, T, k) be what was to
be said at T of entity e by someone who knew all that had reached us by k. A build through D writes

* the base rows F(e, T, T), created at T, at every T <= D where a field changes;
* for every *late* instant k (when something became known after the first midnight it belonged to: an arrival
  or a correction) the rows F(e, T, k), created at k, from the first day that it touches up to k.

So who reads "the latest T at or before t, of those created by k" gets F(e, t, k). It is all deltas and
cumulative sums: a day's counts enter a series at one midnight and leave each window at another
(``sql/features/entries.sql``, ``activity.sql``). Because the latest T wins over the latest k, a restated
series has a row at every midnight where any row known before has one; and because the restated rows are what
was read last, a base row is written whenever late news came since the midnight before.

Incremental equals full, since what is written at (T, k) depends only on what happened before T and was known
by k. After a build through D', an increment takes base rows of D' < T <= D; the same T for the instants
restated before; and all T for new instants. Rows that came since, happened before D' *and* were known by D'
(or by the last instant restated) would change what is written: then all is built anew, as it is with other
settings or changed queries.

What is decided from the data at the first build (the prior CTR, what the affinity views hold) stays in
``state.json``, so that increments go on with it; ``decide`` looks again, and keeps what there was.

Files are written aside and renamed under a lock, to names that no file had; ``state.json`` is replaced last,
and only files that it names are read. Files that go out of use stay for a day, for whoever reads them now.
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

from mmlora.features.affinity import Affinity, choose_affinity, prepare
from mmlora.features.asof.database import database
from mmlora.features.built import retire, sweep
from mmlora.features.columns import analyse
from mmlora.features.plan import BuildState, Plan, Recipe, View, input_files, item_files, make_plan
from mmlora.features.profile_stats import profile_schema
from mmlora.files import locked
from mmlora.manifest import FileRecord, record
from mmlora.records import Record
from mmlora.resources import sql

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]

LOCK_SECONDS = 300.0
_BEGINNING = date(1, 1, 2)
_FORMER_PRIOR_CTR = 0.2
"""What stores were built with whose state doesn't say."""


@dataclass(frozen=True)
class BuildReport(Record):
    """What a build did.

    Attributes:
        through: features are complete for scoring dates up to this one.
        since: the date that was built before, or None when everything was built anew.
        reason: why everything was built anew; empty for an increment.
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
        through: rows stamped T <= ``through`` 00:00 UTC are built; what was built beyond stays.
        prior_ctr: CTR of an entity without rows, in (0, 1); the overall one at the first build when None.
        prior_weight: rows that the prior counts for:
            ctr = (clicks + prior_ctr * prior_weight) / (rows + prior_weight).
        columns: what profile columns are to become (:func:`mmlora.features.columns.analyse`).
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
    with locked(folder / ".lock", wait=LOCK_SECONDS, busy=busy), database(offline / ".spill") as connection:
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
    """Return what decides the rows: the settings, and what the data said when it was first looked at."""
    state = BuildState.load(offline / "features")
    affinity = Affinity.from_json(state.affinity) if state else Affinity()
    interactions = str(offline / "interactions" / "**" / "*.parquet")
    if decide or state is None or state.prior_ctr is None:
        found = choose_affinity(connection, interactions, analyse(offline, columns))
        affinity = affinity.with_those_of(found)
    affinity = affinity.within(profile_schema(offline / "profiles" / "item").names)
    if state:  # models were trained on what was built with it
        prior_ctr = prior_ctr or state.prior_ctr or _FORMER_PRIOR_CTR
    prior = prior_ctr or _overall_ctr(connection, interactions, through)
    return Recipe(prior, prior_weight, affinity)


def _overall_ctr(connection: duckdb.DuckDBPyConnection, interactions: str, through: date) -> float:
    """Return the share of clicks of the versions stored, kept away from 0 and 1."""
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
    """Write each view's new rows aside; return their number by view, and the last late instant."""
    pattern = str(offline / "interactions" / "**" / "*.parquet")
    connection.execute(sql("features/increments.sql"), {"interactions": pattern, "through": plan.through})
    last = connection.execute("SELECT max(known) FROM increments WHERE late").fetchone()
    restated: datetime | None = last[0] if last else None
    limits = {
        "after": date.fromisoformat(plan.kept.through) if plan.kept else _BEGINNING,
        "through": plan.through,
        "restated": plan.kept.restated if plan.kept else None,
    }
    if recipe.affinity.views:
        prepare(connection, item_files(offline), recipe.affinity)
    staging = offline / "features" / ".staging"
    staging.mkdir()
    views, rows = recipe.views, {}
    for done, view in enumerate(views):
        if progress:
            progress("features", done, len(views))
        rows[view.name] = _write(connection, view, staging / f"{view.name}.parquet", limits, recipe)
    if progress:
        progress("features", len(views), len(views))
    return rows, restated.isoformat() if restated else None


def _write(
    connection: duckdb.DuckDBPyConnection,
    view: View,
    path: Path,
    limits: dict[str, date | str | None],
    recipe: Recipe,
) -> int:
    connection.execute(view.entries_sql(), limits)
    target, prior = str(path).replace("'", "''"), recipe.prior
    *steps, query = view.rows_sql().split(";\n")
    for step in steps:
        connection.execute(step, _used(step, prior))
    copy = f"COPY ({query}) TO '{target}' (FORMAT parquet)"
    written = connection.execute(copy, _used(query, prior)).fetchone()
    return int(written[0]) if written else 0


def _used(statement: str, parameters: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in parameters.items() if f"${name}" in statement}


def _publish(folder: Path, plan: Plan, rows: dict[str, int], state: BuildState) -> None:
    """Move the files in, under new names, and the state last: it alone says which files count."""
    kept, old = plan.kept, BuildState.load(folder)
    number = old.builds if old else 0
    files: dict[str, list[str]] = {}
    records: dict[str, FileRecord] = {}
    for name, count in rows.items():
        files[name] = list(kept.files.get(name, ())) if kept else []
        if count or not files[name]:  # an empty first file still tells the columns
            target = f"{number:06d}-{plan.through}.parquet"
            (folder / name).mkdir(exist_ok=True)
            written = folder / ".staging" / f"{name}.parquet"
            records[f"{name}/{target}"] = record(written)
            written.replace(folder / name / target)
            files[name].append(target)
    now = replace(state, builds=number + 1, files=files)
    before = kept.records if kept else {}
    records |= {path: before.get(path) or record(folder / path) for path in now.paths if path not in records}
    retired = retire(old.retired, old.paths, now.paths) if old else {}
    replace(now, records=records, retired=retired).save(folder)
    shutil.rmtree(folder / ".staging")
