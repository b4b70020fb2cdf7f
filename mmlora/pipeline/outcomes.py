"""Records of the results of a night's commands; ``--json`` prints their JSON form."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from mmlora.load_checks import CandidateFacts, Carried, Resumed
from mmlora.names import LoadState
from mmlora.nights.planning import BackfillRequest, PlannedNight
from mmlora.records import Record


@dataclass(frozen=True)
class LoadOutcome(Record):
    """The outcome of one domain and date.

    Attributes:
        domain_id: the domain.
        score_date: the date.
        state: state of its load; ``failed`` also if there is no load.
        users, items, pairs: numbers of users, items and pairs scored; None if nothing was scored.
        rows: number of rows kept.
        model_version: the model.
        candidates: the policy, and the pairs that it removed.
        exit_code: the command line's exit status for the failure; 0 without one.
        load_id: the load; None if there is none.
        reason: the reason of the failure.
        seconds: time from the first pair to publication; None if nothing was tried.
        top_10_changed: share of users whose first 10 items or their order differ from the scores that this
            load replaced; None if it replaced none, or they were not compared.
        mean_score_change: mean absolute difference from the scores that this load replaced.
        resumed: the shards that were taken over from an interrupted run; None if there were none.
        carried: the rows that were carried over from an earlier night; None if there were none.
    """

    domain_id: str
    score_date: date
    state: LoadState
    users: int | None = None
    items: int | None = None
    pairs: int | None = None
    rows: int | None = None
    model_version: str | None = None
    candidates: CandidateFacts | None = None
    exit_code: int = 0
    load_id: str | None = None
    reason: str | None = None
    seconds: float | None = None
    top_10_changed: float | None = None
    mean_score_change: float | None = None
    resumed: Resumed | None = None
    carried: Carried | None = None

    def to_json(self) -> dict[str, object]:
        """Return a JSON-serialisable mapping, without a missing load, comparison or candidates."""
        row = super().to_json()
        if self.load_id is None:
            del row["load_id"]
        if self.top_10_changed is None:
            del row["top_10_changed"], row["mean_score_change"]
        for name in ("resumed", "carried"):
            if row[name] is None:
                del row[name]
        if self.seconds is None:
            del row["candidates"]
        return row


@dataclass(frozen=True)
class SkippedDomain(Record):
    """A domain that is not scored, and the reason."""

    domain_id: str
    reason: str


@dataclass(frozen=True)
class NightOutcome(Record):
    """The outcome of a night, or of a backfill's nights.

    Attributes:
        loads: one load per domain and date.
        skipped: the domains that were not scored.
        seconds: total time.
    """

    loads: tuple[LoadOutcome, ...]
    skipped: tuple[SkippedDomain, ...]
    seconds: float

    @property
    def pairs(self) -> int:
        """Number of pairs that were scored and published."""
        return sum(load.pairs or 0 for load in self.loads if load.state == "published")

    def to_json(self) -> dict[str, object]:
        """Return a JSON-serialisable mapping."""
        raw = super().to_json()
        seconds = raw.pop("seconds")
        return {**raw, "pairs": self.pairs, "seconds": seconds}


@dataclass(frozen=True)
class BackfillOutcome(Record):
    """A backfill's plan and its outcome.

    Attributes:
        request: the request.
        plan: one entry per domain and date.
        night: the outcome of the dates that were not kept; None if only the plan was requested.
    """

    request: BackfillRequest
    plan: tuple[PlannedNight, ...]
    night: NightOutcome | None = None

    @property
    def loads(self) -> tuple[LoadOutcome, ...]:
        """The outcome of each date that was not kept."""
        return self.night.loads if self.night else ()

    def to_json(self) -> dict[str, object]:
        """Return a JSON-serialisable mapping."""
        plan = [planned.to_json() for planned in self.plan]
        return {"plan": plan, **(self.night.to_json() if self.night else {})}
