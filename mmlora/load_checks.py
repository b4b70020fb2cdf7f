"""What is kept with a load beside its rows: its size, its candidates and its audit, as records.

:mod:`mmlora.nights.load_job` makes it, the warehouse keeps it as ``score_loads.checks``, and later nights,
backfills and the command line read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mmlora.check_rules import AuditCheck as AuditCheck
from mmlora.names import ExpertPolicy
from mmlora.records import Record
from mmlora.schema import Id

What = Literal["users", "items", "pairs"]
_LEAST_WEIGHT = 0.01
_NAMED = 3


@dataclass(frozen=True)
class Removed(Record):
    """The number of users, items or pairs that were removed for one reason.

    Attributes:
        what: ``users``, ``items`` or ``pairs``.
        reason: the reason, in a clause.
        count: the number removed.
    """

    what: What
    reason: str
    count: int

    def __str__(self) -> str:
        return f"{self.count:,} {self.what} ({self.reason})"


@dataclass(frozen=True)
class Unknown(Record):
    """Unknown ids in one of the user's own tables; they aren't scored.

    Attributes:
        table: the table.
        what: ``users`` or ``items``.
        count: number of distinct ids.
        first: the first of these ids, sorted.
    """

    table: str
    what: What
    count: int
    first: tuple[Id, ...]

    def __str__(self) -> str:
        return f"{self.table} names {self.count:,} unknown {self.what}: {self.named}"

    @property
    def named(self) -> str:
        """The first ids, for messages."""
        return ", ".join(map(str, self.first)) + (", ..." if self.count > len(self.first) else "")


@dataclass(frozen=True)
class Recall(Record):
    """How much of the full model's lists a retrieval kept.

    Attributes:
        at: length of the lists.
        users: number of users measured.
        share: share of the lists' entries that were kept, averaged over users; None without users.
    """

    at: int
    users: int
    share: float | None


@dataclass(frozen=True)
class CandidateFacts(Record):
    """How a load's candidates came about.

    Attributes:
        policy: what determines them besides the imported data (:func:`mmlora.candidates.tables.recorded`).
        removed: what the policy removed, and why.
        unknown: unknown ids in the user's own tables.
        recall: of the retrieval; None without one.
    """

    policy: Mapping[str, object]
    removed: tuple[Removed, ...]
    unknown: tuple[Unknown, ...]
    recall: Recall | None = None


@dataclass(frozen=True)
class Resumed(Record):
    """What a load took over from an interrupted run.

    Attributes:
        shards: number of the load's shards.
        staged: how many of them the interrupted run had staged.
    """

    shards: int
    staged: int

    def __str__(self) -> str:
        return f"resumed: {self.staged:,} of {self.shards:,} shards were staged by an interrupted run"


@dataclass(frozen=True)
class Fingerprint(Record):
    """What a load's rows depend on (:mod:`mmlora.scoring.fingerprint`).

    Attributes:
        shared: fingerprint of what the rows of all users depend on.
        users: SHA-256 of the file with a digest per user.
    """

    shared: str
    users: str


@dataclass(frozen=True)
class Carried(Record):
    """What was carried over from an earlier night, because nothing had changed for these users.

    Attributes:
        load_id: the load that had the rows before.
        users: number of users.
        rows: number of their rows.
        share: of the load's rows.
    """

    load_id: str
    users: int
    rows: int
    share: float

    def __str__(self) -> str:
        return (
            f"carried over: {self.share:.1%} of the rows ({self.rows:,} of {self.users:,} users) are those "
            f"of load {self.load_id}, since nothing has changed for these users"
        )


@dataclass(frozen=True)
class ExpertUse(Record):
    """The experts that a domain's scores depend on.

    Attributes:
        policy: ``own`` if most of the weight is on the domain's own, ``shared`` if it is on those of others,
            ``backbone`` if there are none.
        weights: the total weight of each domain's experts, at least 0.01.
    """

    policy: ExpertPolicy
    weights: Mapping[str, float]

    @classmethod
    def of(cls, domain: str, experts: Sequence[tuple[str, float]]) -> ExpertUse:
        """Return the use of experts from the owner and the weight of each."""
        weights: dict[str, float] = {}
        for owner, weight in experts:
            weights[owner] = weights.get(owner, 0.0) + weight
        weights = {owner: round(weight, 6) for owner, weight in weights.items() if weight >= _LEAST_WEIGHT}
        if not weights:
            return cls("backbone", {})
        return cls("own" if 2 * weights.get(domain, 0.0) >= sum(weights.values()) else "shared", weights)

    def __str__(self) -> str:
        if self.policy != "shared":
            return "its own experts" if self.policy == "own" else "the backbone alone"
        largest = sorted(self.weights.items(), key=lambda entry: -entry[1])
        mixed = ", ".join(f"{owner} {weight:.2f}" for owner, weight in largest[:_NAMED])
        more = f" and {len(largest) - _NAMED} more" if len(largest) > _NAMED else ""
        return f"experts of {mixed}{more}"


@dataclass(frozen=True)
class LoadChecks(Record):
    """What is kept with a load.

    Attributes:
        users: users scored, like ``items`` and ``pairs``; None in a load with nothing to score.
        items: see users.
        pairs: see users.
        top_k: rows kept per user; 0 kept all.
        seconds: taken to score them.
        audit: the outcome of each check: features, candidates, rows and scores.
        candidates: how they came about; None in loads of before this was kept.
        below_baseline: the sentence of a judgement that finds the model below its best baseline.
        overridden: why a failed check was overridden, by check.
        resumed: the shards that were taken over from an interrupted run; None if there were none.
        carried: the rows that were carried over from an earlier night; None if there were none.
        fingerprint: of what its rows depend on; None in loads that nothing is carried over from.
        experts: the experts that its scores depend on; None in loads of before this was kept.
    """

    users: int | None = None
    items: int | None = None
    pairs: int | None = None
    top_k: int | None = None
    seconds: float | None = None
    audit: tuple[AuditCheck, ...] | None = None
    candidates: CandidateFacts | None = None
    below_baseline: str | None = None
    overridden: Mapping[str, str] | None = None
    resumed: Resumed | None = None
    carried: Carried | None = None
    fingerprint: Fingerprint | None = None
    experts: ExpertUse | None = None

    def to_json(self) -> dict[str, object]:
        """Return a JSON-ready mapping of what there is."""
        return {name: value for name, value in super().to_json().items() if value is not None}
