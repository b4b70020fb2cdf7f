"""The checks of a load's features and candidates, before anything is scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from mmlora.check_rules import AuditCheck, CheckRule
from mmlora.load_checks import LoadChecks
from mmlora.nights.load_size import NO_NIGHT, check_size, night_before
from mmlora.schema import ITEM_ID, USER_ID, DomainVerdict, Id, midnight
from mmlora.workspace import Workspace

if TYPE_CHECKING:
    from mmlora.candidates.pairs import Candidates
    from mmlora.checks.feature_profile import FieldDifference
    from mmlora.encoding import Encoder
    from mmlora.nights.rehearsal import Rehearsal
    from mmlora.registry.bundle import Bundle
    from mmlora.scoring.score import SideFeatures
    from mmlora.warehouse.loads import Load
    from mmlora.warehouse.warehouse import Warehouse

_FIGURES: Mapping[str, Callable[[FieldDifference], float | None]] = {
    "feature_missing": lambda field: field.missing,
    "feature_unknown": lambda field: field.unknown,
    "feature_range": lambda field: field.outside,
    "feature_shift": lambda field: field.shift,
    "vector_change": lambda field: field.change,
}
_OF_GIVEN = ("feature_range", "feature_shift")
"""The checks that leave out what changes by itself: what is computed from interactions, and ages."""


def check_features(
    workspace: Workspace,
    bundle: Bundle,
    encoder: Encoder,
    domain: Id,
    on: date,
    features: SideFeatures,
    *,
    allow_stale: bool,
) -> tuple[AuditCheck, ...]:
    """Compare a night's features with those of the model's training date, and check their age."""
    from mmlora.checks.feature_profile import FieldProfile, differences

    rules = workspace.check_rules
    computed = workspace.feature_repo.newest(bundle.contract, before=midnight(on))
    age = _check_age(rules["feature_age"], computed, on, allow_stale=allow_stale)
    version, trained = bundle.manifest.model_version, bundle.manifest.as_of
    profile = _profile(bundle, domain)
    if profile is None or on < trained:
        why = f"model {version} has no feature profile of the domain"
        if profile is not None:
            why = f"model {version} was trained later, on {trained}"
        return age, *(rules[name].outcome(None, why) for name in _FIGURES)
    fields = {name: FieldProfile.from_json(raw) for name, raw in profile.items()}
    found: list[FieldDifference] = []
    for key, table in ((USER_ID, features.users), (ITEM_ID, features.items)):
        own = {field.name for field in encoder.contract.fields if key in field.keys}
        side = table.select([n for n in table.column_names if n in own])
        found += differences(encoder, table[key], side, fields)
    # Ids come and go. Counts grow with a store's history and ages with time; the interactions that they
    # are computed from have checks of their own.
    found = [field for field in found if field.field.view]
    given = [
        field
        for field in found
        if field.field.view not in computed and field.field.tag("transform") != "days_since"
    ]
    return age, *(
        _worst(rules[name], given if name in _OF_GIVEN else found, figure)
        for name, figure in _FIGURES.items()
    )


def _profile(bundle: Bundle, domain: Id) -> Mapping[str, Mapping[str, Any]] | None:
    part = bundle.manifest.profile
    profiles = {} if part is None else bundle.parts.json(part)["domains"]
    profile: Mapping[str, Mapping[str, Any]] | None = profiles.get(str(domain))
    return profile


def _worst(
    rule: CheckRule, fields: Sequence[FieldDifference], figure: Callable[[FieldDifference], float | None]
) -> AuditCheck:
    """Return the outcome for the field with the largest figure; the largest of other views are named too."""
    by_view: dict[str, tuple[float, str]] = {}
    for field in fields:
        value = figure(field)
        if value is not None and value > by_view.get(field.field.view, (float("-inf"), ""))[0]:
            by_view[field.field.view] = (value, field.field.name)
    if not by_view:
        return rule.outcome(None, "no fields to compare")
    ranked = sorted(by_view.values(), reverse=True)
    others = [f"{name} {value:.3g}" for value, name in ranked[1:] if not rule.passes(value)]
    also = f"; also {', '.join(others)}" if others else ""
    return rule.measured(ranked[0][0], f"{len(fields)} fields, the worst is {ranked[0][1]}{also}")


def _check_age(rule: CheckRule, newest: Mapping[str, datetime], on: date, *, allow_stale: bool) -> AuditCheck:
    """Check the age of the newest row of the computed views that the model reads."""
    if not newest:
        return rule.outcome(None, "the model reads no computed view")
    view, moment = max(newest.items(), key=lambda item: item[1])
    hours = (midnight(on) - moment).total_seconds() / 3600
    return rule.measured(
        hours,
        f"the newest row is of {moment:%Y-%m-%d %H:%M} UTC, in {view}",
        severity="warn" if allow_stale else None,
    )


def check_candidates(
    workspace: Workspace,
    warehouse: Warehouse | Rehearsal,
    load: Load,
    candidates: Candidates,
    verdict: DomainVerdict | None,
    *,
    top_k: int,
) -> tuple[AuditCheck, ...]:
    """Check how many of the domain's users have candidates, and the counts against the last night's."""
    coverage, items = (workspace.check_rules[name] for name in ("active_users", "candidate_items"))
    active, users = (verdict.users if verdict else 0), candidates.num_users
    share = min(1.0, users / active) if active else None
    covered = coverage.measured(share, f"{users:,} users of {active:,} in the window have candidates")
    rows = candidates.expected_rows(top_k)
    size = check_size(workspace.check_rules["size"], warehouse, load, rows=rows, users=users, top_k=top_k)
    if candidates.listed:
        return covered, size, items.outcome(None, "a pair table says which items")
    last = night_before(warehouse, load)
    if last is None:
        return covered, size, items.outcome(None, NO_NIGHT)
    before = (warehouse.load(last.load_id).checks or LoadChecks()).items
    now = len(candidates.items)
    detail = f"{now:,} items; {last.score_date} had {before or 0:,}"
    return covered, size, items.measured(now / before if before else None, detail)
