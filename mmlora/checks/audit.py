"""The audit of a staged load: the last check before its rows may be published.

It reads the files back from disk. DuckDB aggregates them (and spills), and the content hash is computed in a
stream, so memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds

from mmlora.checks.scores import SCORE_RULES, Expected, LoadFigures, ScoreRule
from mmlora.content_hash import ContentHash
from mmlora.duck import in_memory
from mmlora.load_checks import AuditCheck
from mmlora.resources import sql
from mmlora.schema import Id, IdTypes, scores_schema

_BATCH_ROWS = 250_000


@dataclass(frozen=True)
class AuditReport:
    """The results of all checks of a load, in order."""

    checks: tuple[AuditCheck, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[str, ...]:
        """One line per failed check."""
        return tuple(f"{check.name}: {check.detail}" for check in self.checks if not check.passed)


def audit_load(
    files: Sequence[Path], *, ids: IdTypes, domain: Id, on: date, expected: Expected
) -> AuditReport:
    """Audit the staged rows of a load by the rules of :data:`~mmlora.checks.scores.SCORE_RULES`.

    If a file can't be read or has other columns, the check ``schema`` fails, and the checks of rows are
    skipped.

    Args:
        files: the load's files.
        ids: the id types.
        domain: the load's domain.
        on: the load's score date.
        expected: the figures that the load must have.
    """
    schema = _check_schema(files, scores_schema(ids))
    if not schema.passed:
        return AuditReport((schema,))
    try:
        content_hash = _content_hash(files, scores_schema(ids))
    except (OSError, pa.ArrowInvalid) as error:
        where = files[0].parent
        return AuditReport((AuditCheck("schema", False, f"{where} cannot be read through: {error}"),))
    figures = _figures(files, domain, on, content_hash)
    return AuditReport((schema, *(_check(rule, figures, expected) for rule in SCORE_RULES)))


def _check(rule: ScoreRule, figures: LoadFigures, expected: Expected) -> AuditCheck:
    return AuditCheck(rule.name, rule.passes(figures, expected), rule.detail(figures, expected))


def _check_schema(files: Sequence[Path], wanted: pa.Schema) -> AuditCheck:
    if not files:
        return AuditCheck("schema", False, "no part-*.parquet")
    wanted_columns = dict(zip(wanted.names, wanted.types, strict=True))
    for file in files:
        try:
            schema = ds.dataset(file, format="parquet").schema
        except (OSError, pa.ArrowInvalid) as error:
            return AuditCheck("schema", False, f"{file.name} cannot be read: {error}")
        if dict(zip(schema.names, schema.types, strict=True)) != wanted_columns:
            columns = ", ".join(f"{field.name} {field.type}" for field in schema)
            return AuditCheck("schema", False, f"{file.name} has {columns}")
    return AuditCheck("schema", True, f"{len(files)} files")


def _figures(files: Sequence[Path], domain: Id, on: date, content_hash: str) -> LoadFigures:
    with in_memory() as connection:
        parameters = {"files": [str(file) for file in files], "domain": domain, "on": on}
        figures: pa.Table = connection.sql(sql("audit.sql"), params=parameters).to_arrow_table()
    return LoadFigures(**figures.to_pylist()[0], content_hash=content_hash)


def _content_hash(files: Sequence[Path], schema: pa.Schema) -> str:
    content = ContentHash(schema)
    for file in files:
        for batch in ds.dataset(file, format="parquet").to_batches(
            columns=schema.names, batch_size=_BATCH_ROWS
        ):
            content.update(pa.Table.from_batches([batch]))
    return content.hexdigest()
