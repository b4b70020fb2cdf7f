"""``mmlora status``: what readers get for each domain, by which model, and what went wrong."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from mmlora.data.known_rows import known_interactions
from mmlora.judgement import Standing
from mmlora.load_checks import CandidateFacts, ExpertUse
from mmlora.names import Alias, LoadState
from mmlora.nights.planning import known_at
from mmlora.numerics import Numerics, here
from mmlora.records import Record
from mmlora.runs.champions import CHALLENGER, CHAMPION
from mmlora.schema import Id
from mmlora.warehouse.decisions import Promotion
from mmlora.warehouse.ledger import LedgerEntry
from mmlora.warehouse.loads import Load
from mmlora.warehouse.nights import Night
from mmlora.warehouse.quality import NightQuality, qualities
from mmlora.warehouse.shadows import shadows
from mmlora.warehouse.warehouse import Warehouse
from mmlora.workspace import Workspace, open_workspace

_TROUBLES = 20
_NIGHTS = 7
_DECISIONS = 5
LOAD_COLUMNS = (
    *("load_id", "score_date", "state", "rows", "model_version"),
    *("finished_at", "rows_freed_at", "reason"),
)
"""What a domain's status says of a load."""


@dataclass(frozen=True)
class PublishedDomain(Record):
    """What readers get for a domain; None where nothing is published.

    Attributes:
        domain_id: the domain.
        score_date: the newest date published.
        rows: its rows.
        model_version: the model that scored it.
        published_at: when, in ISO 8601 to the second.
        champion: the model that scores the domain's next night; None before the first.
        candidates: how its candidates came about.
        experts: the experts that its scores depend on; None in loads of before this was kept.
    """

    domain_id: str
    score_date: date | None = None
    rows: int | None = None
    model_version: str | None = None
    published_at: str | None = None
    champion: str | None = None
    candidates: CandidateFacts | None = None
    experts: ExpertUse | None = None


@dataclass(frozen=True)
class TroubledLoad(Record):
    """A load that is under way or went wrong; ``stalled`` when its process is silent."""

    load_id: str
    domain_id: str
    score_date: date
    state: LoadState | Literal["stalled"]
    reason: str | None


@dataclass(frozen=True)
class StoredModel(Record):
    """A model version, whether it is champion or challenger of all domains, and its judgement's verdict."""

    model_version: str
    alias: Alias | None
    beside_baselines: Standing | None


@dataclass(frozen=True)
class Decided(Record):
    """A decision about a model.

    Attributes:
        promoted_at: when, in ISO 8601 to the second.
        model_version: the model.
        alias: what it became, or stays.
        domain: whose; ``all domains`` for all.
        who: who decided.
        why: the reason.
        evidence: the comparison that it was based on (docs/judging.md), JSON-ready; None without one.
    """

    promoted_at: str
    model_version: str
    alias: str
    domain: str
    who: str
    why: str
    evidence: Mapping[str, object] | None = None


@dataclass(frozen=True)
class Shadow(Record):
    """A load that another model scored beside the published ones (``mmlora compare --shadow``)."""

    load_id: str
    domain_id: str
    score_date: date
    rows: int
    model_version: str


@dataclass(frozen=True)
class LateNights(Record):
    """Published nights that late rows and corrections would change.

    Attributes:
        nights: domains and dates.
        first, last: their dates.
        rows: late rows that the night of ``last`` was scored without, of all domains.
        command: plans to restate them.
    """

    nights: int
    first: date
    last: date
    rows: int
    command: str


@dataclass(frozen=True)
class Status(Record):
    """The state of a workspace.

    Attributes:
        home: its folder.
        numerics: what this machine computes with on its CPU.
        domains: what readers get.
        nights: the last nights, newest first.
        troubles: loads under way or gone wrong, newest first.
        models: the stored models, newest first.
        decisions: the last decisions about them, newest first.
        shadows: the newest shadow loads, which readers never see.
        late: nights that late rows would change; None without any.
    """

    home: str
    numerics: Numerics
    domains: tuple[PublishedDomain, ...]
    nights: tuple[Night, ...]
    troubles: tuple[TroubledLoad, ...]
    models: tuple[StoredModel, ...]
    decisions: tuple[Decided, ...] = ()
    shadows: tuple[Shadow, ...] = ()
    late: LateNights | None = None

    def to_json(self) -> dict[str, object]:
        """Return a JSON-ready mapping."""
        return {**super().to_json(), "nights": [_as_text(vars(night)) for night in self.nights]}


@dataclass(frozen=True)
class DomainStatus(Record):
    """A domain's newest loads, whatever became of them, and what people did to its publications.

    Attributes:
        quality: the figures that ``mmlora evaluate`` kept of its nights, newest first.
    """

    domain_id: str
    loads: tuple[Load, ...]
    ledger: tuple[LedgerEntry, ...]
    quality: tuple[NightQuality, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return a JSON-ready mapping, with ``LOAD_COLUMNS`` of each load."""
        return {
            "domain_id": self.domain_id,
            "loads": [_as_text({name: getattr(load, name) for name in LOAD_COLUMNS}) for load in self.loads],
            "ledger": [_as_text({**vars(entry), "domain_id": self.domain_id}) for entry in self.ledger],
            "quality": [night.to_json() for night in self.quality],
        }


@dataclass(frozen=True)
class LoadStatus(Record):
    """What became of a load, and the newest date that its domain's readers get; None for none."""

    load_id: str
    domain_id: str
    score_date: date
    state: LoadState
    latest: date | None


def _as_text(row: Mapping[str, object]) -> dict[str, object]:
    """Return a row with its dates and times as text, times with a space."""
    return {name: str(value) if isinstance(value, date) else value for name, value in row.items()}


def status() -> Status:
    """Return each domain's newest publication and champion, the last nights, loads in trouble, the models."""
    workspace = open_workspace()
    versions = workspace.bundles.versions()
    with workspace.open_warehouse() as warehouse, warehouse.reads_in_a_row():
        aliases = {warehouse.current(alias): alias for alias in (CHALLENGER, CHAMPION)}
        domains = tuple(_published(warehouse, domain) for domain in workspace.expected_domains())
        silence = timedelta(seconds=workspace.settings.scoring.stale_after_seconds)
        stalled = {load.load_key for load in warehouse.stale_loads(silence)}
        loads = warehouse.loads(states=("running", "staged", "failed", "rejected"), limit=_TROUBLES)
        nights = tuple(warehouse.nights(limit=_NIGHTS))
        late = _late(workspace, warehouse)
        newest = shadows(warehouse.database, warehouse.tables, limit=_TROUBLES)
        beside = tuple(
            Shadow(load.load_id, str(load.domain_id), load.score_date, load.rows, load.model_version)
            for load in newest
        )
        decisions = tuple(_decided(each) for each in warehouse.decisions(limit=_DECISIONS))
    return Status(
        home=str(workspace.home),
        numerics=here(),
        domains=domains,
        nights=nights,
        troubles=tuple(_troubled(load, stalled) for load in loads),
        models=tuple(
            StoredModel(version, aliases.get(version), _verdict(workspace, version))
            for version in reversed(versions)
        ),
        decisions=decisions,
        shadows=beside,
        late=late,
    )


def _decided(decision: Promotion) -> Decided:
    return Decided(
        promoted_at=decision.promoted_at.isoformat(timespec="seconds"),
        model_version=decision.model_version,
        alias=decision.alias,
        domain="all domains" if decision.domain_id is None else str(decision.domain_id),
        who=decision.who,
        why=decision.why,
        evidence=decision.evidence,
    )


def _late(workspace: Workspace, warehouse: Warehouse) -> LateNights | None:
    """Find the published nights that were scored without rows which are known by now."""
    known, now = known_interactions(workspace.offline), datetime.now(UTC)
    counts = [
        (load.score_date, rows)
        for load in warehouse.loads(states=("published",))
        if (rows := known.late(before=load.score_date, after=known_at(load), by=now))
    ]
    if not counts:
        return None
    (first, _), (last, rows) = min(counts), max(counts)
    days = f"--start {first} --end {last}"
    command = f"mmlora backfill --all-domains {days} --state late --known-as-of now --plan"
    return LateNights(len(counts), first, last, rows, command)


def _published(warehouse: Warehouse, domain: Id) -> PublishedDomain:
    champion, publication = warehouse.current(CHAMPION, domain), warehouse.publication(domain)
    if publication is None:
        return PublishedDomain(str(domain), champion=champion)
    checks = warehouse.load(publication.load_id).checks
    return PublishedDomain(
        domain_id=str(domain),
        score_date=publication.score_date,
        rows=publication.rows,
        model_version=publication.model_version,
        published_at=publication.published_at.isoformat(timespec="seconds"),
        champion=champion,
        candidates=None if checks is None else checks.candidates,
        experts=None if checks is None else checks.experts,
    )


def _troubled(load: Load, stalled: Collection[int]) -> TroubledLoad:
    state = "stalled" if load.load_key in stalled else load.state
    return TroubledLoad(load.load_id, str(load.domain_id), load.score_date, state, load.reason)


def domain_status(domain: str) -> DomainStatus:
    """Return a domain's newest loads, the decisions about its publications, and how good its nights were.

    Raises:
        UsageError: no such domain.
    """
    workspace = open_workspace()
    target = workspace.domain(domain)
    with workspace.open_warehouse() as warehouse:
        loads = warehouse.loads(domain=target, limit=_TROUBLES)
        ledger = warehouse.ledger(target, limit=_TROUBLES)
        quality = qualities(warehouse.database, warehouse.tables, target, limit=_TROUBLES)
    return DomainStatus(str(target), tuple(loads), tuple(ledger), tuple(quality))


def load_state(load_id: str, *, workspace: Workspace | None = None) -> LoadStatus:
    """Return what became of a load, and the newest date that its domain's readers get."""
    with (workspace or open_workspace()).open_warehouse() as warehouse:
        load = warehouse.load(load_id)
        latest = warehouse.publication(load.domain_id)
    return LoadStatus(
        load.load_id,
        str(load.domain_id),
        load.score_date,
        load.state,
        None if latest is None else latest.score_date,
    )


def _verdict(workspace: Workspace, version: str) -> Standing | None:
    """Return how a model stands to its best baseline; None when it wasn't judged."""
    judgement = workspace.bundles.load(version).manifest.judgement
    return None if judgement is None else judgement.verdict
