"""``mmlora calibrate``: refit a champion's calibration on what users clicked of its published nights.

The result is a composition like that of ``mmlora swap``: all parts but the calibration are the champion's.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from mmlora.errors import UsageError
from mmlora.metrics.bootstrap import Interval
from mmlora.names import Alias
from mmlora.nights.labels import published_nights
from mmlora.nights.recalibrating import (
    Recalibrated,
    RecalibratedDomain,
    published_rows,
    refit_calibration,
    with_own_shift,
)
from mmlora.records import Record
from mmlora.runs.champions import CHALLENGER, CHAMPION, replace_champion
from mmlora.runs.exchange import champion_bundle, exchanged
from mmlora.workspace import Progress, Workspace, open_workspace, silent

if TYPE_CHECKING:
    from mmlora.registry.bundle import Bundle

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Calibrated(Record):
    """The outcome of refitting a calibration.

    Attributes:
        before: the champion.
        model_version: the composed version; None if nothing was registered.
        alias: what it is now; None if nothing was registered.
        better: whether its log loss on the held-out nights is lower by more than noise.
        fitted: score dates on which it was fitted.
        rows: impressions of published pairs on these.
        held_out: score dates on which it was judged.
        domains: figures on these, all domains first.
        gain: log loss after minus before, with its 95% interval.
    """

    before: str
    model_version: str | None
    alias: Alias | None
    better: bool
    fitted: tuple[date, ...]
    rows: int
    held_out: tuple[date, ...]
    domains: tuple[RecalibratedDomain, ...]
    gain: Interval


def calibrate(
    domain: str | None = None,
    *,
    start: date | None = None,
    end: date | None = None,
    promote: bool = False,
    dry_run: bool = False,
    why: str = "calibration refitted on published nights",
    progress: Progress = silent,
) -> Calibrated:
    """Refit the calibration of a champion on the labels of its published nights.

    It is fitted on all but the newest quarter of the dates, and registered only if its log loss on those is
    lower by more than noise.

    Args:
        domain: correct this domain's shift in its champion; None for all domains of the champion of all.
        start: the first score date to use; the first published one when None.
        end: the last score date to use.
        promote: make it the champion of every domain that this model is champion of, instead of challenger.
        dry_run: only measure, register nothing.
        why: the reason, stored with the decision.
        progress: called after every date.

    Raises:
        UsageError: there is no champion, the domain was absent at its training, or too few labels are known.
    """
    workspace = open_workspace()
    target = None if domain is None else workspace.domain(domain)
    with workspace.open_warehouse() as warehouse:
        bundle = champion_bundle(workspace, target)
        domains, _ = with_own_shift(bundle)
        if target is not None and target not in domains:
            raise UsageError(
                f"{bundle.manifest.model_version} has no shift of its own for domain {domain!r}, which was "
                "absent at its training: `mmlora share` can give it one, or train a model with its data"
            )
        chosen = () if domain is None else (domain,)
        nights = published_nights(workspace, warehouse, chosen, start, end)
        rows = published_rows(workspace, warehouse, bundle, nights, progress)
        refitted = refit_calibration(bundle, rows, target)
        version: str | None = None
        alias: Alias | None = None
        if refitted.better and not dry_run:
            version = composed(workspace, bundle, refitted)
            alias = CHAMPION if promote else CHALLENGER
            replace_champion(workspace, bundle.manifest.model_version, version, alias, why)
            logger.info("%s is the %s, with a refitted calibration", version, alias)
    return Calibrated(
        bundle.manifest.model_version,
        version,
        alias,
        refitted.better,
        refitted.fitted[0],
        refitted.fitted[1],
        refitted.held_out,
        refitted.domains,
        refitted.gain,
    )


def composed(workspace: Workspace, bundle: Bundle, refitted: Recalibrated) -> str:
    """Store the model with its new calibration, and return its version."""
    manifest, fitted = bundle.manifest, refitted.calibration
    shifts = dict(zip(with_own_shift(bundle)[0], fitted.domain_shifts, strict=True))
    trained = tuple(shifts[domain] for domain in manifest.training_domains)
    part = workspace.parts.put_json(replace(fitted, domain_shifts=trained).to_json())
    return workspace.bundles.save(
        replace(
            exchanged(manifest, ()),
            calibration=part,
            mixtures=tuple(replace(each, shift=shifts[each.domain]) for each in manifest.mixtures),
            judged=manifest.judged,  # its ranking is the same, and so is what that was learned from
            seen_until=manifest.seen_until,
            created_at=datetime.now(UTC),
        )
    )
