"""Records of how loads differ; ``mmlora diff --json`` and ``mmlora score --dry-run --json`` print them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal

from mmlora.names import LoadState
from mmlora.pipeline.outcomes import SkippedDomain
from mmlora.records import Record
from mmlora.warehouse.loads import Load


@dataclass(frozen=True)
class ComparedLoad(Record):
    """A load in a comparison."""

    load_id: str
    score_date: date
    model_version: str
    state: LoadState

    @classmethod
    def of(cls, load: Load) -> ComparedLoad:
        """Return the record of a load."""
        return cls(load.load_id, load.score_date, load.model_version, load.state)


@dataclass(frozen=True)
class RowDifference(Record):
    """How the rows of two loads differ (``sql/difference.sql``); means are None without rows.

    Attributes:
        rows_before, rows_after: number of rows.
        mean_score_before, mean_score_after: mean score.
        users_before, users_after: number of users.
        users_gone, users_new: number of users in only one of the loads.
        same_first_item: share of the users in both loads with the same first item.
        top_10_changed: share of these users whose first 10 items or their order differ.
        pairs_in_both: number of user-item pairs in both loads.
        mean_score_change, largest_score_change: absolute difference of the scores of those pairs.
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

    def to_json(self) -> dict[str, object]:
        """Return a flat JSON-serialisable mapping."""
        raw = super().to_json()
        del raw["rows"]
        return {**raw, **self.rows.to_json()}


@dataclass(frozen=True)
class RehearsedLoad(Record):
    """The effect of publishing a domain's load, or the reason why it would fail.

    Attributes:
        domain_id: the domain.
        score_date: the date.
        state: ``would publish`` or ``would fail``.
        exit_code: the command line's exit status for the failure; 0 without one.
        reason: the reason of the failure.
        before: the load that readers see; None if nothing is published.
        rows: how the rows differ from those of ``before``; None if the load would fail.
        seconds: time to score and compare; None if the load would fail.
    """

    domain_id: str
    score_date: date
    state: Literal["would publish", "would fail"]
    exit_code: int = 0
    reason: str | None = None
    before: ComparedLoad | None = None
    rows: RowDifference | None = None
    seconds: float | None = None

    def to_json(self) -> dict[str, object]:
        """Return a flat JSON-serialisable mapping of the difference or of the failure."""
        raw = super().to_json()
        load = {name: raw[name] for name in ("domain_id", "score_date", "state")}
        if self.rows is None:
            return {**load, "exit_code": self.exit_code, "reason": self.reason}
        return {**load, "before": raw["before"], **self.rows.to_json(), "seconds": self.seconds}


@dataclass(frozen=True)
class DryRun(Record):
    """The effect of scoring a night.

    Attributes:
        loads: one load per domain.
        skipped: the domains that would not be scored.
    """

    loads: tuple[RehearsedLoad, ...]
    skipped: tuple[SkippedDomain, ...]
