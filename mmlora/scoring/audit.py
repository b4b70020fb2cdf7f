"""The audit of a staged load: the last gate before its rows may be published.

It reads the files back, so it sees what is on disk and not what was meant. DuckDB aggregates them
(and spills), and the content hash streams over them, so memory stays bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from mmlora.candidates.pairs import Candidates
from mmlora.content_hash import ContentHash
from mmlora.resources import sql
from mmlora.schema import Id, IdTypes, scores_schema
from mmlora.scoring.score import Staged
from mmlora.scoring.staging import part_files

_BATCH_ROWS = 250_000


@dataclass(frozen=True)
class Expected:
    """What a load must hold.

    Attributes:
        rows: sum over the users of min(k, pairs to score).
        users: users with a pair to score.
        top_k: rows kept a user; 0: all.
        content_hash: as it was staged.
    """

    rows: int
    users: int
    top_k: int
    content_hash: str

    @classmethod
    def of(cls, candidates: Candidates, staged: Staged, *, top_k: int) -> Expected:
        """Work it out from the candidates, not from what was written."""
        return cls(candidates.expected_rows(top_k), candidates.num_users, top_k, staged.content_hash)


@dataclass(frozen=True)
class AuditCheck:
    """One check: its name, whether it passed, and the figures it looked at."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class AuditReport:
    """All checks of a load, in order."""

    checks: tuple[AuditCheck, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[str, ...]:
        """One line a failed check."""
        return tuple(f"{check.name}: {check.detail}" for check in self.checks if not check.passed)


def audit_load(folder: Path, *, ids: IdTypes, domain: Id, on: date, expected: Expected) -> AuditReport:
    """Audit the staged rows of a load.

    A file that cannot be read, or has other columns, fails ``schema``, and the checks that need its
    rows are left out.

    Args:
        folder: the load's folder.
        ids: the id types.
        domain: the load's domain.
        on: the load's score date.
        expected: what the load must hold.
    """
    files = part_files(folder)
    schema = _check_schema(files, scores_schema(ids))
    if not schema.passed:
        return AuditReport((schema,))
    try:
        found_hash = _content_hash(files, scores_schema(ids))
    except (OSError, pa.ArrowInvalid) as error:
        return AuditReport((AuditCheck("schema", False, f"{folder} cannot be read through: {error}"),))
    figures = _figures(files, domain, on)
    return AuditReport((schema, *_checks(figures, expected), _check_hash(found_hash, expected)))


def _checks(figures: dict[str, Any], expected: Expected) -> list[AuditCheck]:
    """Judge the figures; a load without rows passes all but ``rows`` and ``users`` by itself."""
    at = figures.__getitem__
    constant = at("rows") > 1 and at("lowest") == at("highest")
    too_deep = bool(expected.top_k) and (at("deepest") or 0) > expected.top_k
    return [
        AuditCheck("rows", at("rows") == expected.rows, f"{at('rows'):,} rows, {expected.rows:,} expected"),
        AuditCheck(
            "users", at("users") == expected.users, f"{at('users'):,} users, {expected.users:,} expected"
        ),
        AuditCheck("nulls", at("nulls") == 0, f"{at('nulls'):,} rows with a null"),
        AuditCheck("range", at("out_of_range") == 0, f"{at('out_of_range'):,} scores not in [0, 1]"),
        AuditCheck("constant", not constant, f"scores from {at('lowest')} to {at('highest')}"),
        AuditCheck("keys", at("repeated") == 0, f"{at('repeated'):,} rows repeat a user and item"),
        AuditCheck(
            "positions",
            at("misplaced") == 0 and not too_deep,
            f"{at('misplaced'):,} positions leave a gap, come twice or begin after 1; "
            f"the last is {at('deepest')}, {expected.top_k or 'any'} at most",
        ),
        AuditCheck("order", at("rising") == 0, f"{at('rising'):,} rows score above the position before"),
        AuditCheck(
            "domain and date", at("foreign") == 0, f"{at('foreign'):,} rows of another domain or date"
        ),
    ]


def _check_hash(found: str, expected: Expected) -> AuditCheck:
    return AuditCheck(
        "content hash",
        found == expected.content_hash,
        f"{found[:12]} on disk, {expected.content_hash[:12]} staged",
    )


def _check_schema(files: list[Path], wanted: pa.Schema) -> AuditCheck:
    if not files:
        return AuditCheck("schema", False, "no part-*.parquet")
    wanted_columns = dict(zip(wanted.names, wanted.types, strict=True))
    for file in files:
        try:
            found = ds.dataset(file, format="parquet").schema
        except (OSError, pa.ArrowInvalid) as error:
            return AuditCheck("schema", False, f"{file.name} cannot be read: {error}")
        if dict(zip(found.names, found.types, strict=True)) != wanted_columns:
            columns = ", ".join(f"{field.name} {field.type}" for field in found)
            return AuditCheck("schema", False, f"{file.name} has {columns}")
    return AuditCheck("schema", True, f"{len(files)} files")


def _figures(files: list[Path], domain: Id, on: date) -> dict[str, Any]:
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("SET TimeZone='UTC'")
        parameters = {"files": [str(file) for file in files], "domain": domain, "on": on}
        found: pa.Table = connection.sql(sql("audit.sql"), params=parameters).to_arrow_table()
    return dict(found.to_pylist()[0])


def _content_hash(files: list[Path], schema: pa.Schema) -> str:
    content = ContentHash(schema)
    for file in files:
        for batch in ds.dataset(file, format="parquet").to_batches(
            columns=schema.names, batch_size=_BATCH_ROWS
        ):
            content.update(pa.Table.from_batches([batch]))
    return content.hexdigest()
