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

Files are written aside and renamed under a lock; ``state.json`` is replaced last, and files that it doesn't
name are removed by the next build. A killed build leaves nothing behind but rows that are true anyway.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path

import duckdb
from filelock import FileLock, Timeout

from mmlora.errors import TransientError
from mmlora.features.database import database
from mmlora.features.plan import BuildState, Plan, definition_hash, input_files, make_plan
from mmlora.features.views import ACTIVITY_VIEWS, ActivityView
from mmlora.resources import sql

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]

LOCK_SECONDS = 300.0
_BEGINNING = date(1, 1, 2)


@dataclass(frozen=True)
class BuildReport:
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
    prior_ctr: float,
    prior_weight: float,
    progress: Progress | None = None,
) -> BuildReport:
    """Compute the activity features for scoring dates up to ``through``.

    Args:
        offline: the offline store's folder.
        through: rows stamped T <= ``through`` 00:00 UTC are built; what was built beyond stays.
        prior_ctr: CTR of an entity without rows, in (0, 1).
        prior_weight: rows that the prior counts for:
            ctr = (clicks + prior_ctr * prior_weight) / (rows + prior_weight).
        progress: called with ``("features", views done, views)``.

    Raises:
        UsageError: nothing was imported yet.
        TransientError: another build holds the lock.
    """
    started = time.monotonic()
    folder = offline / "features"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=LOCK_SECONDS), database(offline / ".spill") as connection:
            _sweep(folder)
            inputs = input_files(offline)
            definition = definition_hash(prior_ctr, prior_weight)
            plan = make_plan(connection, offline, inputs, definition, through)
            if (
                plan.kept
                and not plan.reason
                and plan.kept.inputs == inputs
                and plan.kept.through >= str(plan.through)
            ):
                return BuildReport(
                    plan.through, plan.through, "", dict.fromkeys(_names(), 0), time.monotonic() - started
                )
            rows, restated = _compute(connection, offline, plan, prior_ctr, prior_weight, progress)
            _publish(folder, plan, rows, BuildState(definition, str(plan.through), restated, 0, inputs, {}))
    except Timeout:
        raise TransientError(
            f"another features build has held {folder / '.lock'} for {LOCK_SECONDS:.0f} s: "
            "try again when it is done"
        ) from None
    since = date.fromisoformat(plan.kept.through) if plan.kept else None
    report = BuildReport(plan.through, since, plan.reason, rows, time.monotonic() - started)
    logger.info("features built through %s: %s rows", plan.through, f"{sum(rows.values()):,}")
    return report


def _names() -> list[str]:
    return [view.name for view in ACTIVITY_VIEWS]


def _sweep(folder: Path) -> None:
    """Remove what a killed build left: its staging folder, and files that the state doesn't name."""
    shutil.rmtree(folder / ".staging", ignore_errors=True)
    state = BuildState.load(folder)
    for name in _names():
        named = set(state.files.get(name, ())) if state else set()
        for path in (folder / name).glob("*.parquet"):
            if path.name not in named:
                path.unlink()


def _compute(
    connection: duckdb.DuckDBPyConnection,
    offline: Path,
    plan: Plan,
    prior_ctr: float,
    prior_weight: float,
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
    prior = {"prior_ctr": prior_ctr, "prior_weight": prior_weight}
    staging = offline / "features" / ".staging"
    staging.mkdir()
    rows: dict[str, int] = {}
    for done, view in enumerate(ACTIVITY_VIEWS):
        if progress:
            progress("features", done, len(ACTIVITY_VIEWS))
        rows[view.name] = _write(connection, view, staging / f"{view.name}.parquet", limits, prior)
    if progress:
        progress("features", len(ACTIVITY_VIEWS), len(ACTIVITY_VIEWS))
    return rows, restated.isoformat() if restated else None


def _write(
    connection: duckdb.DuckDBPyConnection,
    view: ActivityView,
    path: Path,
    limits: dict[str, date | str | None],
    prior: dict[str, float],
) -> int:
    connection.execute(view.entries_sql(), limits)
    target = str(path).replace("'", "''")
    written = connection.execute(f"COPY ({view.rows_sql()}) TO '{target}' (FORMAT parquet)", prior).fetchone()
    return int(written[0]) if written else 0


def _publish(folder: Path, plan: Plan, rows: dict[str, int], state: BuildState) -> None:
    """Move the files in, and the state last."""
    kept = plan.kept
    if kept is None:  # without a state until the end, so that old rows are never taken for new ones
        (folder / "state.json").unlink(missing_ok=True)
        _sweep_files(folder)
    number = kept.builds if kept else 0
    files: dict[str, list[str]] = {}
    for name, count in rows.items():
        files[name] = list(kept.files.get(name, ())) if kept else []
        if count or not files[name]:  # an empty first file still tells the columns
            target = f"{number:06d}-{plan.through}.parquet"
            (folder / name).mkdir(exist_ok=True)
            (folder / ".staging" / f"{name}.parquet").replace(folder / name / target)
            files[name].append(target)
    replace(state, builds=number + 1, files=files).save(folder)
    shutil.rmtree(folder / ".staging")


def _sweep_files(folder: Path) -> None:
    for name in _names():
        shutil.rmtree(folder / name, ignore_errors=True)
