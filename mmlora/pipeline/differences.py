"""Records of how loads differ; ``mmlora compare --json`` and ``mmlora score --dry-run --json`` print them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Literal

from mmlora.names import LoadState
from mmlora.pipeline.outcomes import SkippedDomain
from mmlora.records import Record
from mmlora.schema import Id
from mmlora.warehouse.loads import Load
from mmlora.warehouse.shadows import ShadowLoad

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class ComparedLoad(Record):
    """A load in a comparison; the state of a shadow load is ``shadow``."""

    load_id: str
    score_date: date
    model_version: str
    state: LoadState | Literal["shadow"]

    @classmethod
    def of(cls, load: Load | ShadowLoad) -> ComparedLoad:
        """Return the record of a load."""
        state = "shadow" if isinstance(load, ShadowLoad) else load.state
        return cls(load.load_id, load.score_date, load.model_version, state)


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
        top_10_overlap: share of their first 10 items that are in both, whatever their order; mean over users.
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
    top_10_overlap: float | None
    pairs_in_both: int
    mean_score_change: float | None
    largest_score_change: float | None


@dataclass(frozen=True)
class Mover(Record):
    """An item, and the number of users with it among their first 10 before and after."""

    item_id: Id
    lists_before: int
    lists_after: int


@dataclass(frozen=True)
class LaterLabels(Record):
    """What users were shown on the loads' date, and how each load had scored it.

    What was shown follows the published lists, so an item that only the other load puts first has few clicks.

    Attributes:
        impressions: the domain's interactions of that date, as they are known now.
        clicks: clicks among them.
        clicks_in_top_10_before: clicks on items among the user's first 10; likewise after.
        scored: interactions that both loads have a score for; the aucs are of these.
        auc_before: None without both labels; likewise after.
        auc_gain: after minus before, with its 95% interval.
    """

    impressions: int
    clicks: int
    clicks_in_top_10_before: int
    clicks_in_top_10_after: int
    scored: int
    auc_before: float | None = None
    auc_after: float | None = None
    auc_gain: float | None = None
    auc_gain_low: float | None = None
    auc_gain_high: float | None = None

    @classmethod
    def of(cls, rows: pa.Table) -> LaterLabels:
        """Return the figures of what was shown.

        Args:
            rows: columns of ``sql/labelled.sql``, one row per interaction.
        """
        import numpy as np
        import pyarrow.compute as pc

        from mmlora.metrics import compare
        from mmlora.metrics.ranking import auc

        clicked = rows.filter(pc.greater(rows["label"], 0))
        both = rows.filter(pc.and_(pc.is_valid(rows["before"]), pc.is_valid(rows["after"])))
        label, before, after = (both[name].to_numpy() for name in ("label", "before", "after"))
        gain = compare(label, after, before, np.zeros(len(label), np.int64)).auc if len(label) else None
        return cls(
            impressions=rows.num_rows,
            clicks=clicked.num_rows,
            clicks_in_top_10_before=pc.sum(clicked["top_before"]).as_py() or 0,
            clicks_in_top_10_after=pc.sum(clicked["top_after"]).as_py() or 0,
            scored=len(label),
            auc_before=auc(label, before),
            auc_after=auc(label, after),
            auc_gain=gain.value if gain else None,
            auc_gain_low=gain.low if gain else None,
            auc_gain_high=gain.high if gain else None,
        )


@dataclass(frozen=True)
class LoadDifference(Record):
    """Two loads of a domain, and how their rows differ.

    Attributes:
        movers: the items that came into, or left, most users' first 10 places.
        labels: what users then clicked, for loads of the same date; None while nothing is known of it.
    """

    domain_id: str
    before: ComparedLoad
    after: ComparedLoad
    rows: RowDifference
    movers: tuple[Mover, ...] = ()
    labels: LaterLabels | None = None

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
