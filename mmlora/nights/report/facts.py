"""The figures of a night's report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from mmlora.load_checks import AuditCheck
from mmlora.metrics.reliability import ReliabilityBin
from mmlora.names import LoadState
from mmlora.records import Record
from mmlora.schema import Verdict
from mmlora.warehouse.quality import NightQuality


@dataclass(frozen=True)
class ReportedDomain(Record):
    """A domain on the night.

    Attributes:
        domain: the domain.
        verdict: of its data as of the night; None if it wasn't validated.
        rows: interactions in the window of the verdict.
        ctr: share of them that were clicked.
        policy: what follows from the verdict.
        reasons: why it isn't rich.
    """

    domain: str
    verdict: Verdict | None
    rows: int | None = None
    ctr: float | None = None
    policy: str = ""
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReportedLoad(Record):
    """The newest load of a domain for the night; counts are None until it is scored.

    Attributes:
        domain: the domain.
        load_id: the load.
        state: its state; readers have it if it is ``published``.
        model_version: its model.
        reason: why it failed or was rejected.
        rows: rows written.
        users: users scored.
        pairs: pairs of user and item considered.
        seconds: time to score them.
        carried: share of the rows that were carried over from an earlier night.
        checks: its checks.
    """

    domain: str
    load_id: str
    state: LoadState
    model_version: str
    reason: str | None
    rows: int | None
    users: int | None
    pairs: int | None
    seconds: float | None
    carried: float | None
    checks: tuple[AuditCheck, ...]

    @property
    def pairs_per_second(self) -> float | None:
        """Pairs considered per second of scoring."""
        return self.pairs / self.seconds if self.pairs is not None and self.seconds else None


@dataclass(frozen=True)
class Lift(Record):
    """A model's AUC on a domain's test rows minus that of its best baseline, with its 95% interval."""

    domain: str
    model_version: str
    baseline: str
    rows: int
    auc: float | None
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class GateWeights(Record):
    """A model's gate.

    Attributes:
        model_version: the model.
        experts: the domain and slot of each expert.
        weights: by domain of the rows, the weight of each expert; the mean over layers with their own gates.
    """

    model_version: str
    experts: tuple[tuple[str, int], ...]
    weights: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Reliability(Record):
    """Published scores beside the share that was clicked.

    Attributes:
        domain: the domain; None for all domains together.
        nights: published nights with labels.
        rows: impressions of published pairs.
        clicks: of these.
        ece: expected calibration error.
        bins: rows with similar scores.
    """

    domain: str | None
    nights: int
    rows: int
    clicks: int
    ece: float | None
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True)
class NightReport(Record):
    """Everything that a night's report shows.

    Attributes:
        score_date: the night.
        domains: its domains.
        loads: the newest load of each domain that has one.
        lifts: of the models that scored it.
        gates: of the models whose gate sees only the domain.
        reliability: all domains together first.
        quality: figures of published nights up to this one, by domain and date.
        notes: what is missing, and why.
    """

    score_date: date
    domains: tuple[ReportedDomain, ...]
    loads: tuple[ReportedLoad, ...]
    lifts: tuple[Lift, ...]
    gates: tuple[GateWeights, ...]
    reliability: tuple[Reliability, ...]
    quality: tuple[NightQuality, ...]
    notes: tuple[str, ...]
