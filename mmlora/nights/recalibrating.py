"""Refit a model's calibration on what users clicked of its published nights, judged on the newest of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmlora.errors import MmloraError, UsageError
from mmlora.metrics.bootstrap import Interval, compare
from mmlora.metrics.probabilities import ece, logloss
from mmlora.models.calibration import Calibration, recalibrate
from mmlora.nights.labels import labelled_nights
from mmlora.records import Record
from mmlora.schema import LABEL, SCORE, Id

if TYPE_CHECKING:
    from mmlora.registry.bundle import Bundle
    from mmlora.warehouse.publish import Publication
    from mmlora.warehouse.warehouse import Warehouse
    from mmlora.workspace import Progress, Workspace

Array = npt.NDArray[Any]
HELD_OUT = 0.25
"""Share of the dates with labels, the newest, that judge the refitted calibration."""
LEAST_CLICKS = 20
"""Fewer clicks than this, in what is fitted or in what is held out, decide nothing."""


@dataclass(frozen=True)
class PublishedRows:
    """Impressions of published pairs.

    Attributes:
        day: the score date, as an ordinal, ``[N]``.
        domain: index of the domain in the model, -1 if it was absent at training, ``[N]``.
        logit: the model's logit before calibration, ``[N]``.
        label: 0/1, ``[N]``.
    """

    day: Array
    domain: Array
    logit: Array
    label: Array

    def where(self, chosen: Array) -> PublishedRows:
        """Return some of the rows."""
        return PublishedRows(self.day[chosen], self.domain[chosen], self.logit[chosen], self.label[chosen])


@dataclass(frozen=True)
class CalibrationFigures(Record):
    """How well scores are calibrated on held-out nights.

    Attributes:
        logloss: mean log loss.
        ece: expected calibration error.
        calibration: sum of the scores per click; None without clicks.
    """

    logloss: float | None
    ece: float | None
    calibration: float | None


@dataclass(frozen=True)
class RecalibratedDomain(Record):
    """A domain on the held-out nights; ``domain`` is None for all together."""

    domain: str | None
    rows: int
    clicks: int
    before: CalibrationFigures
    after: CalibrationFigures


@dataclass(frozen=True)
class Recalibrated:
    """A refitted calibration.

    Attributes:
        calibration: it.
        fitted: its score dates and number of rows.
        held_out: the score dates that judge it.
        domains: figures on these, all domains first.
        gain: log loss after minus before on these rows, with its 95% interval: below 0 is better.
    """

    calibration: Calibration
    fitted: tuple[tuple[date, ...], int]
    held_out: tuple[date, ...]
    domains: tuple[RecalibratedDomain, ...]
    gain: Interval

    @property
    def better(self) -> bool:
        """Whether it is better on the held-out nights, by more than noise."""
        return self.gain.high is not None and self.gain.high < 0


def published_rows(
    workspace: Workspace,
    warehouse: Warehouse,
    bundle: Bundle,
    nights: Collection[Publication],
    progress: Progress,
) -> PublishedRows:
    """Return the labelled rows of those nights that a model scored, with any calibration."""
    calibrations = _Calibrations(workspace, bundle)
    mine = [night for night in nights if calibrations.of(night) is not None]
    index = {domain: place for place, domain in enumerate(with_own_shift(bundle)[0])}
    parts, now = [], datetime.now(UTC)
    for done, (night, rows) in enumerate(labelled_nights(workspace, warehouse, mine, now), 1):
        calibration = calibrations.of(night)
        if rows is not None and rows.scored.num_rows and calibration is not None:
            known = bundle.manifest.training_domains
            place = known.index(night.domain_id) if night.domain_id in known else -1
            logit = calibration.logits(rows.scored[SCORE].to_numpy(), place)
            domain = np.full(len(logit), index.get(night.domain_id, -1))
            label = (rows.scored[LABEL].to_numpy() > 0).astype(np.int8)
            parts.append((np.full(len(domain), night.score_date.toordinal()), domain, logit, label))
        progress("read published nights", done, len(mine))
    empty = [(np.empty(0, int), np.empty(0, int), np.empty(0), np.empty(0, np.int8))]
    return PublishedRows(*(np.concatenate(column) for column in zip(*(parts or empty), strict=True)))


class _Calibrations:
    """The calibrations of versions that score a domain like one model but for these."""

    def __init__(self, workspace: Workspace, bundle: Bundle) -> None:
        self._bundles, self._bundle = workspace.bundles, bundle
        self._known: dict[tuple[str, Id], Calibration | None] = {}

    def of(self, night: Publication) -> Calibration | None:
        """Return the calibration of a night; None if another model scored it, or its model is gone."""
        key = night.model_version, night.domain_id
        if key not in self._known:
            self._known[key] = None
            with suppress(MmloraError):  # its nights are left out
                other = self._bundles.load(night.model_version)
                if _scoring(other, night.domain_id) == _scoring(self._bundle, night.domain_id):
                    self._known[key] = other.calibration_of(night.domain_id)
        return self._known[key]


def _scoring(bundle: Bundle, domain: Id) -> object:
    """Return what a domain's logits depend on: parts, and the weights of its mixture."""
    mixture = bundle.manifest.mixture_of(domain)
    parts = {role: part for role, part in bundle.manifest.parts_of(domain).items() if role != "calibration"}
    return parts, None if mixture is None else [expert.weight for expert in mixture.experts]


def with_own_shift(bundle: Bundle) -> tuple[list[Id], Calibration]:
    """Return the domains with their own shift, and the calibration with these shifts by their index."""
    manifest = bundle.manifest
    mixed = [mixture.domain for mixture in manifest.mixtures]
    domains = [*manifest.training_domains, *(d for d in mixed if d not in manifest.training_domains)]
    shifts = list(bundle.calibration.domain_shifts) + [0.0] * (len(domains) - len(manifest.training_domains))
    for mixture in manifest.mixtures:
        shifts[domains.index(mixture.domain)] = mixture.shift
    return domains, replace(bundle.calibration, domain_shifts=tuple(shifts))


def refit_calibration(bundle: Bundle, rows: PublishedRows, domain: Id | None) -> Recalibrated:
    """Refit a model's calibration on published rows, all but the newest dates, and judge it on those.

    Args:
        bundle: the model.
        rows: its labelled rows.
        domain: correct this domain alone; None for all.

    Raises:
        UsageError: there are not enough dates or clicks.
    """
    domains, base = with_own_shift(bundle)
    only = None if domain is None else domains.index(domain)
    if only is not None:
        rows = rows.where(rows.domain == only)
    days = np.unique(rows.day)
    newest = days[len(days) - max(1, round(len(days) * HELD_OUT)) :]
    held = np.isin(rows.day, newest)
    fit, judged = rows.where(~held), rows.where(held)
    for name, part in (("fitted", fit), ("held out", judged)):
        clicks = int(part.label.sum())
        if min(clicks, len(part.label) - clicks) < LEAST_CLICKS:
            raise UsageError(
                f"model {bundle.manifest.model_version} has labels of published nights of {len(days)} "
                f"date{'' if len(days) == 1 else 's'}; those to be {name} have {clicks:,} clicks in "
                f"{len(part.label):,} impressions of published pairs, and {LEAST_CLICKS} clicks and as many "
                f"others are needed: import later interactions"
            )
    after = recalibrate(base, fit.logit, fit.label, fit.domain, only=only)
    figures = tuple(_figures([*map(str, domains)], (base, after), judged))
    before, then = _probabilities(base, judged), _probabilities(after, judged)
    return Recalibrated(
        after,
        (_dates(fit), len(fit.label)),
        _dates(judged),
        figures,
        compare(judged.label, then, before, judged.domain).logloss,
    )


def _figures(
    names: Sequence[str], sides: tuple[Calibration, Calibration], rows: PublishedRows
) -> Iterator[RecalibratedDomain]:
    for domain in (None, *np.unique(rows.domain).tolist()):
        own = rows if domain is None else rows.where(rows.domain == domain)
        name = None if domain is None else names[domain] if domain >= 0 else "absent at training"
        scored = (_probabilities(each, own) for each in sides)
        yield RecalibratedDomain(
            name, len(own.label), int(own.label.sum()), *(_measured(own.label, p) for p in scored)
        )


def _measured(label: Array, probability: Array) -> CalibrationFigures:
    clicks = int(label.sum())
    ratio = float(probability.sum()) / clicks if clicks else None
    return CalibrationFigures(logloss(label, probability), ece(label, probability), ratio)


def _probabilities(calibration: Calibration, rows: PublishedRows) -> Array:
    return np.asarray(1 / (1 + np.exp(-calibration.calibrated_logits(rows.logit, rows.domain))))


def _dates(rows: PublishedRows) -> tuple[date, ...]:
    return tuple(date.fromordinal(int(day)) for day in np.unique(rows.day))
