"""Plan what a backfill does with each domain and date, and why."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache
from statistics import median
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from mmlora.errors import UsageError
from mmlora.names import BackfillState
from mmlora.nights.candidates import INPUTS, KNOWN_AS_OF, deciding_policy
from mmlora.nights.domains import is_broken
from mmlora.nights.inputs import Data, Inputs
from mmlora.nights.overrides import Overrides
from mmlora.records import Record
from mmlora.runs.champions import CHAMPION, bundle_of
from mmlora.schema import Id, midnight
from mmlora.workspace import Progress, Workspace

if TYPE_CHECKING:
    from mmlora.warehouse.decisions import Promotion
    from mmlora.warehouse.loads import Load
    from mmlora.warehouse.warehouse import Warehouse

NightState = Literal["missing", "stale", "failed", "current"]
Action = Literal["keep", "score", "refuse"]
AT_THE_TIME = "champion-at-the-time"
_RECENT_LOADS = 5
"""Number of a domain's newest loads from which rows and seconds are estimated."""


@dataclass(frozen=True)
class PlannedNight(Record):
    """The plan of a backfill for a domain and date.

    Attributes:
        domain_id: the domain.
        score_date: the date.
        state: state of the publication: ``missing``, ``stale``, ``failed`` (nothing published) or
            ``current``.
        action: ``keep`` the publication, ``score`` the night, or ``refuse`` it.
        reason: why it is scored or refused; empty when it is kept.
        model_version: the model that scores it; None if there was none at the time.
        load_id: the published load; None if there is none.
        rows: estimated rows to publish, from the domain's newest loads; None without loads.
        seconds: estimated seconds, likewise.
    """

    domain_id: str
    score_date: date
    state: NightState
    action: Action
    reason: str
    model_version: str | None
    load_id: str | None = None
    rows: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class BackfillRequest(Record):
    """The request of a backfill, which together with the publications determines its plan.

    Attributes:
        domains: the domains, in order.
        start: the first date.
        end: the last date, included.
        state: nights in this state only, or ``all`` that are not current. ``late`` are those that late rows
            would change; each is scored by the model that published it.
        model: ``champion``, ``champion-at-the-time`` or a version.
        known_as_of: the moment whose knowledge is used, late rows included; None for each night's 00:00 UTC.
        top_k: rows kept per user.
        allow_stale: whether to score dates that the data does not reach.
        max_rows: stop before the estimated rows exceed this; None for no limit.
        override: checks that may fail; needs ``reason``.
        reason: why, for the ledger.
    """

    domains: tuple[str, ...]
    start: date
    end: date
    state: BackfillState
    model: str
    known_as_of: datetime | None
    top_k: int
    allow_stale: bool = False
    max_rows: int | None = None
    override: tuple[str, ...] = ()
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.start > self.end:
            raise UsageError(f"--start {self.start} is after --end {self.end}: give the earlier date first")
        if self.state not in get_args(BackfillState):
            raise UsageError(f"--state {self.state}: use one of {', '.join(get_args(BackfillState))}")
        if self.state == "late" and (self.known_as_of is None or self.model != CHAMPION):
            raise UsageError(
                "--state late scores nights by the models that published them, with the rows that are known "
                "now: give --known-as-of now, and no --model"
            )
        Overrides.of(self.override, self.reason)

    @property
    def days(self) -> list[date]:
        """The dates, in order."""
        return [self.start + timedelta(days=n) for n in range((self.end - self.start).days + 1)]


def plan_nights(
    workspace: Workspace, warehouse: Warehouse, request: BackfillRequest, progress: Progress
) -> tuple[PlannedNight, ...]:
    """Plan each domain and date of a request, without validating, scoring or writing anything.

    The plan has the domains in the request's order with the oldest date first. A plan of stale or late nights
    only has the newest dates first, because they matter most to readers.

    Raises:
        UsageError: a domain or the model does not exist.
        ContractError: the champion's files are missing.
    """
    known = _Known.read(workspace, warehouse, request)
    nights: list[PlannedNight] = []
    for number, name in enumerate(request.domains):
        progress("plan", number, len(request.domains))
        nights += _Domain.read(workspace, warehouse, request, workspace.domain(name), known).nights()
    progress("plan", len(request.domains), len(request.domains))
    if request.state in ("stale", "late"):
        nights.sort(key=lambda night: night.score_date, reverse=True)
    return tuple(_within(nights, request.max_rows))


def _within(nights: Sequence[PlannedNight], max_rows: int | None) -> list[PlannedNight]:
    """Leave out the nights that would exceed ``max_rows``, by the estimates."""
    if max_rows is None:
        return list(nights)
    kept, total = [], 0
    for night in nights:
        total += (night.rows or 0) if night.action == "score" else 0
        if night.action != "score" or total <= max_rows:
            kept.append(night)
    return kept


@dataclass(frozen=True)
class _Known:
    """Facts shared by all domains of a plan."""

    data_days: Sequence[date]
    broken: Mapping[tuple[str, date], str]
    data: Data
    reads_computed: Callable[[str], bool]

    @classmethod
    def read(cls, workspace: Workspace, warehouse: Warehouse, request: BackfillRequest) -> _Known:
        broken = {}
        for verdict in warehouse.verdicts(request.start, request.end):
            broken_by_checks = is_broken(verdict, allow_stale=request.allow_stale, override=request.override)
            if verdict.verdict == "absent" or broken_by_checks:
                why = "; ".join(verdict.reasons) or "nobody to score"
                broken[str(verdict.domain_id), verdict.as_of] = f"{verdict.verdict}: {why}"
        data = Data.of(workspace)
        return cls(workspace.store.days(), broken, data, _reads_computed(workspace, data))


def _reads_computed(workspace: Workspace, data: Data) -> Callable[[str], bool]:
    """Return a function that says whether a model version reads computed features."""
    computed = {view.name for view in data.recipe.views} if data.recipe else set()

    @cache
    def reads(version: str) -> bool:
        return any(field.view in computed for field in workspace.bundles.load(version).contract.fields)

    return reads


@dataclass(frozen=True)
class _Domain:
    """A domain's history, from which its nights are planned."""

    workspace: Workspace
    request: BackfillRequest
    domain: Id
    known: _Known
    published: Mapping[date, Load]
    failed: Mapping[date, Load]
    promotions: Sequence[Promotion]
    champion: str | None
    estimate: tuple[int | None, float | None]

    @classmethod
    def read(
        cls,
        workspace: Workspace,
        warehouse: Warehouse,
        request: BackfillRequest,
        domain: Id,
        known: _Known,
    ) -> _Domain:
        named, champion = None if request.model in (CHAMPION, AT_THE_TIME) else request.model, None
        if request.state != "late":
            champion = bundle_of(workspace, warehouse, domain, named).manifest.model_version
        loads = warehouse.loads(domain=domain, states=("published", "failed", "rejected"))
        published = {load.score_date: load for load in loads if load.state == "published"}
        failed = {load.score_date: load for load in reversed(loads) if load.state != "published"}
        return cls(
            workspace,
            request,
            domain,
            known,
            published,
            failed,
            warehouse.promotions(alias=CHAMPION, domain=domain) if request.model == AT_THE_TIME else (),
            champion,
            _estimate(list(published.values())),
        )

    def nights(self) -> list[PlannedNight]:
        """Plan the domain's dates, in order."""
        return [night for day in self.request.days if (night := self._night(day)) is not None]

    def _night(self, day: date) -> PlannedNight | None:
        load, version = self.published.get(day), self._model_of(day)
        state, why = self._state(load, day, version)
        if self.request.state == "late":
            wanted = load is not None and self._late_rows(load, day) > 0
        else:
            wanted = self.request.state in ("all", state)
        if not wanted:
            return None
        refused = self._refused(day, version) if state != "current" else ""
        action: Action = "keep" if state == "current" else "refuse" if refused else "score"
        rows, seconds = self.estimate if action == "score" else (None, None)
        return PlannedNight(
            str(self.domain),
            day,
            state,
            action,
            refused or why,
            version,
            None if load is None else load.load_id,
            rows,
            seconds,
        )

    def _model_of(self, day: date) -> str | None:
        if self.request.state == "late":
            return self.published[day].model_version if day in self.published else None
        if self.request.model != AT_THE_TIME:
            return self.champion
        began = midnight(day)
        return next((p.model_version for p in self.promotions if p.promoted_at <= began), None)

    def _state(self, load: Load | None, day: date, version: str | None) -> tuple[NightState, str]:
        if load is None:
            failed = self.failed.get(day)
            if failed is None:
                return "missing", "not published"
            return "failed", f"the last try was {failed.state}: {failed.reason}"
        why = self._why_stale(load, day, version)
        return ("stale", why) if why else ("current", "")

    def _why_stale(self, load: Load, day: date, version: str | None) -> str:
        changes = []
        if version is not None and load.model_version != version:
            changes.append(f"published by {load.model_version}")
        top_k = load.checks.top_k if load.checks else None
        if top_k not in (None, self.request.top_k):
            changes.append(f"published with top_k {top_k}")
        changes += self._other_candidates(load, day)
        changes += self._other_data(load, day)
        return "; ".join(changes)

    def _other_candidates(self, load: Load, day: date) -> list[str]:
        from mmlora.candidates.policy import differences

        facts = load.checks.candidates if load.checks else None
        before = None
        if facts is not None:
            beside = (INPUTS, KNOWN_AS_OF)
            before = {name: value for name, value in facts.policy.items() if name not in beside}
        return differences(before, deciding_policy(self.workspace, self.domain, day))

    def _other_data(self, load: Load, day: date) -> list[str]:
        """Return what has become of the data that a load was computed from."""
        policy = load.checks.candidates.policy if load.checks and load.checks.candidates else {}
        changes, seen = [], known_at(load)
        if (raw := policy.get(INPUTS)) is not None and self.workspace.bundles.exists(load.model_version):
            computed = self.known.reads_computed(load.model_version)
            before = Inputs.from_json(cast(dict[str, Any], raw))
            changes += before.changes(self.known.data.inputs(day, seen), computed=computed)
        if late := self._late_rows(load, day):
            changes.append(f"{late:,} late rows from before that day have become known since")
        elif self.request.known_as_of is None and KNOWN_AS_OF in policy:
            changes.append(f"scored on what was known at {policy[KNOWN_AS_OF]}")
        return changes

    def _late_rows(self, load: Load, day: date) -> int:
        """Return how many rows of before a date the request knows that a load of it didn't know."""
        by = self.request.known_as_of
        if by is None:
            return 0
        return self.known.data.interactions.late(before=day, after=known_at(load), by=by)

    def _refused(self, day: date, version: str | None) -> str:
        """Return why a date can't be scored, as far as is known without validating it."""
        if version is None:
            return "there was no champion at the time"
        if not self.workspace.bundles.exists(version):
            return f"model {version} is no longer stored"
        days, settings = self.known.data_days, self.workspace.settings.scoring
        before = bisect_left(days, day)
        if not before:
            return f"there is no interaction from before {day}"
        if self.request.allow_stale:
            return ""
        if midnight(day) - midnight(days[before - 1] + timedelta(days=1)) > timedelta(
            hours=settings.max_age_hours
        ):
            return f"the newest interaction before {day} is of {days[before - 1]}"
        return self.known.broken.get((str(self.domain), day), "")


def known_at(load: Load) -> datetime:
    """Return up to when (UTC) a load knew its data: 00:00 of its date unless it was restated."""
    candidates = load.checks.candidates if load.checks else None
    seen = candidates.policy.get(KNOWN_AS_OF) if candidates else None
    return midnight(load.score_date) if seen is None else datetime.fromisoformat(str(seen))


def _estimate(published: Sequence[Load]) -> tuple[int | None, float | None]:
    """Return the median rows and seconds of a domain's newest loads."""
    newest = [load for load in published if load.rows is not None and load.finished_at is not None]
    newest = sorted(newest, key=lambda load: load.load_key)[-_RECENT_LOADS:]
    if not newest:
        return None, None
    seconds = [(load.finished_at - load.started_at).total_seconds() for load in newest if load.finished_at]
    return int(median(load.rows or 0 for load in newest)), round(median(seconds), 1)
