"""How loads differ, as records; their ``to_json`` is what ``mmlora diff`` and ``--dry-run`` print as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from mmlora.names import LoadState
from mmlora.pipeline.outcomes import SkippedDomain
from mmlora.records import Record
from mmlora.warehouse.loads import Load


@dataclass(frozen=True)
class ComparedLoad(Record):
    """A load that is compared."""

    load_id: str
    score_date: date
    model_version: str
    state: LoadState

    @classmethod
    def of(cls, load: Load) -> ComparedLoad:
        """Return what is said of a load."""
        return cls(load.load_id, load.score_date, load.model_version, load.state)


@dataclass(frozen=True)
class RowDifference(Record):
    """How the rows of two loads differ (``sql/difference.sql``); means are None without rows.

    Attributes:
        rows_before, rows_after: rows of each.
        mean_score_before, mean_score_after: mean of their scores.
        users_before, users_after: users of each.
        users_gone, users_new: users of one of them only.
        same_first_item: share of the users in both whose first item is the same.
        top_10_changed: share of these users whose first 10 items are others, or in another order.
        pairs_in_both: pairs of a user and an item that both have.
        mean_score_change, largest_score_change: of those pairs, without its sign.
    """

    rows_before: int
    rows_after: int
    mean_score_before: float | None
    mean_score_after: float | None
    users_before: int
    users_after: int
    users_gone: int
    users_new: int
    same_first_item: float | None
    top_10_changed: float | None
    pairs_in_both: int
    mean_score_change: float | None
    largest_score_change: float | None


@dataclass(frozen=True)
class LoadDifference(Record):
    """Two loads of a domain, and how their rows differ."""

    domain_id: str
    before: ComparedLoad
    after: ComparedLoad
    rows: RowDifference

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping in one level."""
        raw = super().to_json()
        rows = raw.pop("rows")
        return {**raw, **rows}


@dataclass(frozen=True)
class RehearsedLoad(Record):
    """What publishing a domain's load would change, or why it would fail.

    Attributes:
        domain_id: the domain.
        score_date: the date.
        state: ``would publish`` or ``would fail``.
        exit_code: the command line's exit status for what would go wrong; 0 where nothing would.
        reason: what would go wrong.
        before: what readers have; None where nothing is published.
        rows: how its rows differ from them; None where it would fail.
        seconds: taken to score and to compare; None where it would fail.
    """

    domain_id: str
    score_date: date
    state: Literal["would publish", "would fail"]
    exit_code: int = 0
    reason: str | None = None
    before: ComparedLoad | None = None
    rows: RowDifference | None = None
    seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping in one level, of the difference or of the failure."""
        raw = super().to_json()
        load = {name: raw[name] for name in ("domain_id", "score_date", "state")}
        if self.rows is None:
            return {**load, "exit_code": self.exit_code, "reason": self.reason}
        return {**load, "before": raw["before"], **raw["rows"], "seconds": self.seconds}


@dataclass(frozen=True)
class DryRun(Record):
    """What scoring a night would change.

    Attributes:
        loads: one a domain.
        skipped: the domains that would not be scored.
    """

    loads: tuple[RehearsedLoad, ...]
    skipped: tuple[SkippedDomain, ...]
