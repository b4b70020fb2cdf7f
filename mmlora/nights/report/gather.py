"""Gather the figures of a night's report from the warehouse, the bundles and the imported labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from mmlora.errors import MmloraError, UsageError
from mmlora.nights.labels import labelled_nights
from mmlora.nights.report.facts import (
    GateWeights,
    Lift,
    NightReport,
    Reliability,
    ReportedDomain,
    ReportedLoad,
)
from mmlora.schema import LABEL, SCORE, DomainVerdict
from mmlora.warehouse.quality import NightQuality, qualities
from mmlora.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np

    from mmlora.registry.bundle import Bundle
    from mmlora.warehouse.loads import Load
    from mmlora.warehouse.warehouse import Warehouse

QUALITY_DAYS = 60
"""Days whose published nights' quality is shown."""
RELIABILITY_DAYS = 14
"""Days whose published nights' labels make up the reliability curves."""


def gather(workspace: Workspace, on: date) -> NightReport:
    """Return the figures of a night.

    Raises:
        UsageError: nothing is known of the night: no verdict and no load.
    """
    notes: list[str] = []
    with workspace.open_warehouse() as warehouse:
        verdicts = warehouse.verdicts(on)
        loads = _newest(warehouse.loads(score_date=on))
        if not verdicts and not loads:
            raise UsageError(
                f"there is neither a verdict nor a load of {on}: run `mmlora status` to see the nights, or "
                f"`mmlora score --date {on}`"
            )
        bundles = list(_bundles(workspace, loads, notes))
        quality = _quality(warehouse, on)
        if not quality:
            notes.append(
                "No published night up to this one has been measured yet: run `mmlora evaluate --published`."
            )
        return NightReport(
            score_date=on,
            domains=_domains(verdicts, loads),
            loads=tuple(_reported(load) for load in loads),
            lifts=tuple(lift for bundle in bundles for lift in _lifts(bundle, loads, notes)),
            gates=tuple(gate for bundle in bundles if (gate := _gate(bundle, notes)) is not None),
            reliability=_reliability(workspace, warehouse, on),
            quality=quality,
            notes=tuple(notes),
        )


def _newest(loads: Sequence[Load]) -> list[Load]:
    """Return the load of each domain that readers have, else its newest, by domain."""
    chosen: dict[str, Load] = {}
    for load in loads:  # newest first
        if str(load.domain_id) not in chosen or load.state == "published":
            chosen[str(load.domain_id)] = load
    return [chosen[domain] for domain in sorted(chosen)]


def _domains(verdicts: Sequence[DomainVerdict], loads: Sequence[Load]) -> tuple[ReportedDomain, ...]:
    validated = {
        str(v.domain_id): ReportedDomain(
            str(v.domain_id), v.verdict, v.rows, v.ctr, v.policy, tuple(v.reasons)
        )
        for v in verdicts
    }
    for load in loads:
        validated.setdefault(str(load.domain_id), ReportedDomain(str(load.domain_id), None))
    return tuple(validated[domain] for domain in sorted(validated))


def _reported(load: Load) -> ReportedLoad:
    checks = load.checks
    return ReportedLoad(
        domain=str(load.domain_id),
        load_id=load.load_id,
        state=load.state,
        model_version=load.model_version,
        reason=load.reason,
        rows=load.rows,
        users=checks.users if checks else None,
        pairs=checks.pairs if checks else None,
        seconds=checks.seconds if checks else None,
        carried=checks.carried.share if checks and checks.carried else None,
        checks=(checks.audit if checks else None) or (),
    )


def _bundles(workspace: Workspace, loads: Sequence[Load], notes: list[str]) -> Iterator[Bundle]:
    for version in sorted({load.model_version for load in loads}):
        try:
            yield workspace.bundles.load(version)
        except MmloraError as error:
            notes.append(f"Model {version} can't be read: {error}")


def _lifts(bundle: Bundle, loads: Sequence[Load], notes: list[str]) -> Iterator[Lift]:
    """Yield a model's lift over its best baseline in the domains that it scored."""
    manifest = bundle.manifest
    judgement, version = manifest.judgement, manifest.model_version
    if judgement is None or judgement.best is None:
        notes.append(f"Model {version} was not compared with baselines, so it has no lift.")
        return
    model = next(row for row in judgement.contenders if row.difference is None)
    scored = {str(load.domain_id) for load in loads if load.model_version == version}
    for domain, difference in sorted(judgement.best.by_domain.items()):
        if domain in scored and difference.value is not None:
            figures = (model.by_domain or {})[domain]
            yield Lift(
                domain,
                version,
                judgement.best_baseline or "",
                figures.rows,
                figures.auc,
                difference.value,
                difference.low,
                difference.high,
            )


def _gate(bundle: Bundle, notes: list[str]) -> GateWeights | None:
    """Return the weights of a model's gate by domain; None without a gate, or if it reads the row."""
    manifest = bundle.manifest
    if manifest.spec["adaptation"] != "moe_mlora" or not manifest.experts:
        return None
    model, weights = bundle.model(), {}
    for domain in manifest.training_domains:
        if manifest.mixture_of(domain) is not None:
            continue  # the gate doesn't apply to it
        own = bundle.gate_weights(domain, model)
        if own is None:
            notes.append(f"The gate of {manifest.model_version} reads the row, so its weights differ by row.")
            return None
        weights[str(domain)] = tuple(own)
    experts = tuple((str(expert.domain), expert.slot) for expert in manifest.experts)
    return GateWeights(manifest.model_version, experts, weights)


def _quality(warehouse: Warehouse, on: date) -> tuple[NightQuality, ...]:
    since = on - timedelta(days=QUALITY_DAYS - 1)
    measured = qualities(warehouse.database, warehouse.tables, start=since, end=on)
    return tuple(sorted(measured, key=lambda night: (str(night.domain_id), night.score_date)))


def _reliability(workspace: Workspace, warehouse: Warehouse, on: date) -> tuple[Reliability, ...]:
    """Return the reliability of published scores by the labels of their dates, all domains first."""
    start, now = on - timedelta(days=RELIABILITY_DAYS - 1), datetime.now(UTC)
    by_domain: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    nights = warehouse.publications(start=start, end=on)
    for night, rows in labelled_nights(workspace, warehouse, nights, now):
        if rows is not None and rows.scored.num_rows:
            pair = (rows.scored[LABEL].to_numpy(), rows.scored[SCORE].to_numpy())
            by_domain.setdefault(str(night.domain_id), []).append(pair)
    every = [pair for pairs in by_domain.values() for pair in pairs]
    if not every:
        return ()
    return (_curve(None, every), *(_curve(domain, by_domain[domain]) for domain in sorted(by_domain)))


def _curve(domain: str | None, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Reliability:
    import numpy as np

    from mmlora.metrics.probabilities import ece
    from mmlora.metrics.reliability import reliability

    label, score = (np.concatenate([pair[n] for pair in pairs]) for n in (0, 1))
    bins = reliability(label, score)
    clicks = int((label > 0).sum())
    return Reliability(domain, len(pairs), len(label), clicks, ece(label, score), bins)
