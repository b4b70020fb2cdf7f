"""What a features build remembers, and whether the next one can go on from there."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import duckdb

from mmlora.errors import UsageError
from mmlora.features.views import ACTIVITY_VIEWS
from mmlora.resources import sql
from mmlora.schema import fingerprint


@dataclass(frozen=True)
class BuildState:
    """What ``state.json`` remembers.

    Attributes:
        definition: hash of settings and queries.
        through: the last date built, ISO.
        restated: the last late instant restated, ISO in UTC, or None.
        builds: builds since everything was built anew; numbers the files.
        inputs: size of each interactions file that was read, by path.
        files: Parquet files of each view.
    """

    definition: str
    through: str
    restated: str | None
    builds: int
    inputs: dict[str, int]
    files: dict[str, list[str]]

    @classmethod
    def load(cls, folder: Path) -> BuildState | None:
        """Read the state, or None when nothing was built."""
        path = folder / "state.json"
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def save(self, folder: Path) -> None:
        """Replace the state in one step."""
        aside = folder / "state.json.new"
        aside.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        aside.replace(folder / "state.json")


@dataclass(frozen=True)
class Plan:
    """One build.

    Attributes:
        kept: the state to go on from, or None when everything is built anew.
        reason: why it is; empty otherwise.
        through: the last date to build.
    """

    kept: BuildState | None
    reason: str
    through: date


def definition_hash(prior_ctr: float, prior_weight: float) -> str:
    """Hash what decides the rows beside the data: settings and queries."""
    texts = [sql("features/increments.sql")]
    for view in ACTIVITY_VIEWS:
        texts += [view.name, view.entries_sql(), view.rows_sql()]
    return fingerprint([prior_ctr, prior_weight, *texts])


def input_files(offline: Path) -> dict[str, int]:
    """Return the size of each interactions file.

    Raises:
        UsageError: there is none.
    """
    files = sorted((offline / "interactions").glob("**/*.parquet"))
    if not files:
        raise UsageError(
            f"no interactions under {offline}: import some first, e.g. `mmlora data import --help`"
        )
    return {str(path.relative_to(offline)): path.stat().st_size for path in files}


def make_plan(
    connection: duckdb.DuckDBPyConnection,
    offline: Path,
    inputs: dict[str, int],
    definition: str,
    through: date,
) -> Plan:
    """Decide between an increment and building anew."""
    state = BuildState.load(offline / "features")
    if state is None:
        return Plan(None, "first build", through)
    through = max(through, date.fromisoformat(state.through))
    if state.definition != definition:
        return Plan(None, "other settings or queries", through)
    if any(inputs.get(path) != size for path, size in state.inputs.items()):
        return Plan(None, "interactions that were read before are gone or changed", through)
    new = [str(offline / path) for path in inputs if path not in state.inputs]
    if new and _contradicts(connection, new, state):
        return Plan(None, "interactions came that belong to what was already built", through)
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
