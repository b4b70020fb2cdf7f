"""The state that a features build keeps, and the decision between an increment and a rebuild."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path

import duckdb

from mmlora.errors import DataError, UsageError
from mmlora.features.affinity import Affinity, AffinityView, TasteView
from mmlora.features.built import STATE, file_faults
from mmlora.features.history import HistoryView
from mmlora.features.profile_stats import profile_schema
from mmlora.features.views import ACTIVITY_VIEWS, ActivityView, filled
from mmlora.files import write_json
from mmlora.manifest import FileRecord
from mmlora.schema import fingerprint

logger = logging.getLogger(__name__)

FORMER_PRIOR_CTR = 0.2
"""Prior CTR of stores whose state was written before it was recorded."""

View = ActivityView | HistoryView | AffinityView | TasteView


@dataclass(frozen=True)
class BuildState:
    """The content of ``state.json``.

    Attributes:
        definition: hash of settings and queries.
        through: the last date built, ISO.
        restated: the last late instant restated, ISO in UTC, or None.
        builds: number of builds; numbers the files.
        inputs: size of each interactions and item profile file that was read, by path.
        files: Parquet files of each view.
        records: size and hash of each file, by ``view/file``; older states have none.
        retired: when files went out of use, by ``view/file`` (seconds since 1970).
        prior_ctr: CTR of an entity without rows.
        affinity: content of the affinity views (:class:`mmlora.features.affinity.Affinity`).
    """

    definition: str
    through: str
    restated: str | None
    builds: int
    inputs: dict[str, int]
    files: dict[str, list[str]]
    records: dict[str, FileRecord] = field(default_factory=dict)
    retired: dict[str, float] = field(default_factory=dict)
    prior_ctr: float | None = None
    affinity: Mapping[str, object] = field(default_factory=lambda: Affinity().to_json())

    @property
    def paths(self) -> list[str]:
        """All files, as ``view/file``."""
        return [f"{view}/{name}" for view, names in self.files.items() for name in names]

    @classmethod
    def load(cls, folder: Path) -> BuildState | None:
        """Read the state; None when nothing was built.

        Raises:
            DataError: it can't be read.
        """
        path = folder / STATE
        if not path.exists():
            return None
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise DataError(
                str(path),
                f"can't be read ({error}): restore it from a backup, or delete {folder} and run `mmlora "
                "features build --through DATE`, which rebuilds all features from scratch",
            ) from None

    def save(self, folder: Path) -> None:
        """Replace the state atomically."""
        write_json(folder / STATE, asdict(self))


@dataclass(frozen=True)
class Plan:
    """What one build has to do.

    Attributes:
        kept: the state to continue from, or None when everything is rebuilt.
        reason: why everything is rebuilt; empty for an increment.
        through: the last date to build.
    """

    kept: BuildState | None
    reason: str
    through: date


@dataclass(frozen=True)
class Recipe:
    """Settings and choices that, with the data, determine the rows.

    Attributes:
        prior_ctr: CTR of an entity without rows.
        prior_weight: weight of the prior in rows.
        affinity: content of the affinity views.
    """

    prior_ctr: float
    prior_weight: float
    affinity: Affinity

    @property
    def views(self) -> tuple[View, ...]:
        """The views to build."""
        return (*ACTIVITY_VIEWS, HistoryView(), *self.affinity.views)

    @property
    def prior(self) -> dict[str, float]:
        """The queries' parameters."""
        return {"prior_ctr": self.prior_ctr, "prior_weight": self.prior_weight}

    @cached_property
    def hash(self) -> str:
        """Hash of the recipe and of a full build's queries, comments left out.

        Another hash makes stores rebuild and published nights stale. What increments leave out
        (``sql/features/recent.sql``, ``narrowed.sql``) changes no value, so it isn't hashed.
        """
        shared = ("versions", "increments", "item_versions", "versioned")
        texts = [filled(f"{name}.sql", {}) for name in shared]
        for view in self.views:
            texts += [view.name, view.entries_sql(), view.rows_sql()]
        return fingerprint([self.prior_ctr, self.prior_weight, self.affinity.to_json(), *texts])


def kept_recipe(offline: Path, *, prior_ctr: float | None, prior_weight: float) -> Recipe | None:
    """Return the recipe by which the next build goes on; None before the first build."""
    state = BuildState.load(offline / "features")
    if state is None:
        return None
    affinity = Affinity.from_json(state.affinity).within(profile_schema(offline / "profiles" / "item").names)
    return Recipe(prior_ctr or state.prior_ctr or FORMER_PRIOR_CTR, prior_weight, affinity)


def input_files(offline: Path) -> dict[str, int]:
    """Return the size of each interactions and item profile file.

    Raises:
        UsageError: there are no interactions.
    """
    files = sorted((offline / "interactions").glob("**/*.parquet"))
    if not files:
        raise UsageError(
            f"no interactions under {offline}: import some first, e.g. `mmlora data import --help`"
        )
    return {str(path.relative_to(offline)): path.stat().st_size for path in [*files, *item_files(offline)]}


def item_files(offline: Path) -> list[Path]:
    """Return the files of the item profiles."""
    return sorted((offline / "profiles" / "item").glob("*.parquet"))


def make_plan(
    connection: duckdb.DuckDBPyConnection,
    offline: Path,
    inputs: dict[str, int],
    recipe: Recipe,
    through: date,
) -> Plan:
    """Decide between an increment and a rebuild."""
    state = BuildState.load(offline / "features")
    if state is None:
        return Plan(None, "first build", through)
    through = max(through, date.fromisoformat(state.through))
    if faults := file_faults(offline / "features", state.files, state.records):
        logger.warning("rebuilding all features, because %s", "; ".join(map(str, faults[:5])))
        return Plan(None, "built files are missing or changed", through)
    if state.definition != recipe.hash:
        return Plan(None, "settings or queries have changed", through)
    if any(inputs.get(path) != size for path, size in state.inputs.items()):
        return Plan(None, "data that was read before is missing or changed", through)
    new = [path for path in inputs if path not in state.inputs]
    interactions = [str(offline / path) for path in new if path.startswith("interactions")]
    if interactions and _contradicts(connection, interactions, state):
        return Plan(None, "new interactions belong to days that were already built", through)
    profiles = [str(offline / path) for path in new if not path.startswith("interactions")]
    if profiles and recipe.affinity.views and _alters(connection, offline, profiles, state):
        return Plan(None, "new item profiles belong to days that were already built", through)
    return Plan(state, "", through)


def _contradicts(connection: duckdb.DuckDBPyConnection, files: list[str], state: BuildState) -> bool:
    query = """
        SELECT count(*) > 0 FROM read_parquet($files)
        WHERE event_timestamp < $through::TIMESTAMPTZ
          AND known_at <= greatest($through::TIMESTAMPTZ, $restated::TIMESTAMP::TIMESTAMPTZ)
    """
    values = {"files": files, "through": state.through, "restated": state.restated}
    row = connection.execute(query, values).fetchone()
    return bool(row and row[0])


def _alters(
    connection: duckdb.DuckDBPyConnection, offline: Path, files: list[str], state: BuildState
) -> bool:
    """Whether the profiles change an item's attributes on a built day on which it had interactions."""
    connection.execute(
        "CREATE TEMP TABLE new_profiles AS "
        "SELECT item_id, greatest(event_timestamp, created_timestamp)::DATE AS since "
        "FROM read_parquet($files, union_by_name = true)",
        {"files": files},
    )
    first = connection.execute("SELECT min(since) FROM new_profiles").fetchone()
    query = """
        SELECT count(*) > 0
        FROM read_parquet($interactions, hive_partitioning = true, hive_types = {'day': DATE}) AS shown
        SEMI JOIN new_profiles ON shown.item_id = new_profiles.item_id AND shown.day >= since
        WHERE day >= $first AND day < $through::DATE
    """
    values = {
        "interactions": str(offline / "interactions" / "**" / "*.parquet"),
        "first": first and first[0],  # days before aren't read
        "through": state.through,
    }
    row = connection.execute(query, values).fetchone()
    return bool(row and row[0])
