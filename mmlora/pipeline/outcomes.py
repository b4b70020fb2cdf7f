"""What a night's commands return, as records; their ``to_json`` is what ``--json`` prints."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

from mmlora.load_checks import CandidateFacts, Resumed
from mmlora.names import LoadState
from mmlora.nights.planning import BackfillRequest, PlannedNight
from mmlora.records import Record


@dataclass(frozen=True)
class LoadOutcome(Record):
    """The outcome of one domain and date.

    Attributes:
        domain_id: the domain.
        score_date: the date.
        state: of its load; ``failed`` also where there is none.
        users, items, pairs: that were scored; None where nothing was.
        rows: that were kept.
        model_version: the model.
        candidates: the policy, and what it removed.
        exit_code: the command line's exit status for what went wrong; 0 where nothing did.
        load_id: the load; None where there is none.
        reason: what went wrong.
        seconds: from the first pair to publication; None where nothing was tried.
        top_10_changed: share of users whose first 10 items are not those that readers had for the date
            before, in their order; None where readers had nothing, or it wasn't compared.
        mean_score_change: mean absolute difference to the scores that readers had.
        resumed: the shards that were taken over from an interrupted run; None if there were none.
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

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping, less a load and candidates that there never were."""
        row = super().to_json()
        if self.load_id is None:
            del row["load_id"]
        if self.top_10_changed is None:
            del row["top_10_changed"], row["mean_score_change"]
        if self.resumed is None:
            del row["resumed"]
        if self.seconds is None:
            del row["candidates"]
        return row


@dataclass(frozen=True)
class SkippedDomain(Record):
    """A domain that is not scored, and why."""

    domain_id: str
    reason: str


@dataclass(frozen=True)
class NightOutcome(Record):
    """The outcome of a night, or of a backfill's nights.

    Attributes:
        loads: one a domain and date.
        skipped: the domains that were not to be scored.
        seconds: in all.
    """

    loads: tuple[LoadOutcome, ...]
    skipped: tuple[SkippedDomain, ...]
    seconds: float

    @property
    def pairs(self) -> int:
        """Pairs that were scored and published."""
        return sum(load.pairs or 0 for load in self.loads if load.state == "published")

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        raw = super().to_json()
        seconds = raw.pop("seconds")
        return {**raw, "pairs": self.pairs, "seconds": seconds}


@dataclass(frozen=True)
class BackfillOutcome(Record):
    """A backfill's plan and its outcome.

    Attributes:
        request: what was asked for.
        plan: one entry per domain and date.
        night: the outcome of the dates that were not kept; None where only the plan was asked for.
    """

    request: BackfillRequest
    plan: tuple[PlannedNight, ...]
    night: NightOutcome | None = None

    @property
    def loads(self) -> tuple[LoadOutcome, ...]:
        """The outcome of each date that was not kept."""
        return self.night.loads if self.night else ()

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        plan = [planned.to_json() for planned in self.plan]
        return {"plan": plan, **(self.night.to_json() if self.night else {})}
