"""Weigh a challenger against the champion, by domain and pooled, and decide whether it is promoted.

The intervals are simultaneous (Bonferroni): chance alone makes any of them leave out 0 in at most 1 of 20
comparisons of two equal models. Bonferroni rather than Holm, so that the interval shown is what decided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mmlora.metrics import Difference, differences, domain_metrics
from mmlora.records import Record

CONFIDENCE = 0.95
LEAST_OF_A_LABEL = 20
"""Rows of either label below which a domain's AUC says too little."""
ALL_DOMAINS = "all domains"

Standing = Literal["better", "level", "worse", "not compared"]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Compared(Record):
    """A challenger and the champion on a domain's rows, or on those of all domains.

    Attributes:
        domain: the domain, or ``all domains``.
        champion: its champion; None for all domains if they have several.
        rows: number of rows that neither has seen.
        clicks: clicks among them.
        auc: the challenger's; of all domains the wauc. None if it isn't defined or wasn't compared.
        champion_auc: likewise the champion's.
        difference: the challenger's minus the champion's, with the bounds ``low`` and ``high``.
        standing: ``better`` if the interval is above 0, ``worse`` if it is below -margin, else ``level``.
        note: why it wasn't compared.
    """

    domain: str
    champion: str | None
    rows: int
    clicks: int
    auc: float | None = None
    champion_auc: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    standing: Standing = "not compared"
    note: str = ""

    def __str__(self) -> str:
        if self.difference is None or self.low is None or self.high is None:
            return f"{self.domain} ({self.note})"
        return f"{self.domain} ({self.difference:+.4f} auc, {self.low:+.4f} to {self.high:+.4f})"


@dataclass(frozen=True)
class Evidence(Record):
    """A comparison of a challenger with the champion of each domain.

    Attributes:
        challenger: its version.
        margin: how far below the champion's auc a challenger's may be.
        min_rows: rows below which a domain doesn't matter.
        level: confidence of each interval; of all together it is 95%.
        first: time of the first row; None without rows.
        last: time of the last one.
        pooled: all domains.
        domains: each domain.
    """

    challenger: str
    margin: float
    min_rows: int
    level: float
    first: datetime | None
    last: datetime | None
    pooled: Compared
    domains: tuple[Compared, ...]

    def of(self, *standings: Standing) -> tuple[Compared, ...]:
        """Return what has one of these standings, all domains first."""
        return tuple(each for each in (self.pooled, *self.domains) if each.standing in standings)


@dataclass(frozen=True)
class Ruling(Record):
    """What the policy says of a challenger.

    Attributes:
        promoted: the domains to promote it for; ``all domains`` alone for all of them, empty for none.
        reason: why, in a sentence.
    """

    promoted: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class HeldOut:
    """Rows that neither the challenger nor a champion has seen.

    Attributes:
        names: the domains.
        champions: the champion of each, by name.
        excluded: why a domain's rows are not compared, by name.
        domain: each row's index in ``names``, ``[N]``.
        user: code of each row's user, ``[N]``.
        label: 0/1, ``[N]``.
        first: time of the first row; None without rows.
        last: time of the last one.
    """

    names: Sequence[str]
    champions: Mapping[str, str]
    excluded: Mapping[str, str]
    domain: Array
    user: Array
    label: Array
    first: datetime | None
    last: datetime | None

    @property
    def included(self) -> Array:
        """Whether a row's domain is compared, ``[N]``."""
        return np.isin(self.domain, [n for n, name in enumerate(self.names) if name not in self.excluded])

    def enough(self, min_rows: int) -> bool:
        """Return whether there are rows enough to compare anything."""
        return int(self.included.sum()) >= min_rows


def weigh(
    challenger: str, rows: HeldOut, scores: tuple[Array, Array] | None, *, margin: float, min_rows: int
) -> Evidence:
    """Compare a challenger with the champions.

    Args:
        challenger: its version.
        rows: the rows.
        scores: click probabilities of the challenger, and of each row's champion, ``[N]``; None if there are
            too few rows to compare anything.
        margin: see :class:`Evidence`.
        min_rows: see :class:`Evidence`.
    """
    names, included = rows.names, rows.included
    why_not = {name: _why_not(rows, number, min_rows) for number, name in enumerate(names)}
    matters = [number for number, name in enumerate(names) if scores is not None and not why_not[name]]
    level = 1 - (1 - CONFIDENCE) / (len(matters) + 1)
    versions = {rows.champions[name] for name in names if name not in rows.excluded}
    version = versions.pop() if len(versions) == 1 else None
    pooled = Compared(ALL_DOMAINS, version, *_count(rows.label[included]))
    domains = [
        Compared(
            name, rows.champions.get(name), *_count(rows.label[rows.domain == number]), note=why_not[name]
        )
        for number, name in enumerate(names)
    ]
    if scores is None:
        pooled = replace(
            pooled, note=f"only {pooled.rows:,} rows that neither has seen (min_rows = {min_rows:,})"
        )
    else:
        label, domain, user = (values[included] for values in (rows.label, rows.domain, rows.user))
        ours, theirs = (values[included] for values in scores)
        whole, each = differences(label, ours, theirs, domain, user)
        mine, champions = (domain_metrics(label, values, domain) for values in (ours, theirs))
        pooled = _compared(pooled, (mine.wauc, champions.wauc), whole, level, margin)
        for n in matters:
            aucs = mine.by_domain[n].auc, champions.by_domain[n].auc
            domains[n] = _compared(domains[n], aucs, each[n], level, margin)
    return Evidence(challenger, margin, min_rows, level, rows.first, rows.last, pooled, tuple(domains))


def rule(evidence: Evidence, *, by_domain: bool) -> Ruling:
    """Decide whether a challenger is promoted.

    It is for all domains if it is nowhere worse than the champion beyond the margin, and better somewhere.

    Args:
        evidence: the comparison.
        by_domain: otherwise promote it for the domains in which it is better.
    """
    better, worse = evidence.of("better"), evidence.of("worse")
    if not evidence.of("better", "level", "worse"):
        return Ruling((), f"it was not compared with the champion: {evidence.pooled.note}")
    if better and not worse:
        return Ruling((ALL_DOMAINS,), f"it is better in {_listed(better)}, and nowhere worse")
    own = [each for each in better if each.domain != ALL_DOMAINS]
    if by_domain and own:
        return Ruling(
            tuple(each.domain for each in own),
            f"it is better in {_listed(own)}, but worse in {_listed(worse)}",
        )
    if worse:
        beyond = f"beyond the margin of {evidence.margin:g} auc"
        return Ruling((), f"it is worse {beyond} in {_listed(worse)}")
    return Ruling((), f"it is better nowhere beyond noise: {evidence.pooled}")


def _listed(compared: Sequence[Compared], most: int = 5) -> str:
    more = f" and {len(compared) - most} more" if len(compared) > most else ""
    return ", ".join(map(str, compared[:most])) + more


def _count(label: Array) -> tuple[int, int]:
    """Return the number of rows, and of clicks."""
    return len(label), int((label > 0).sum())


def _why_not(rows: HeldOut, number: int, min_rows: int) -> str:
    """Return why a domain isn't compared; empty if it is."""
    count, clicks = _count(rows.label[rows.domain == number])
    if why := rows.excluded.get(rows.names[number]):
        return why
    if count < min_rows:
        return f"fewer than {min_rows:,} rows"
    if min(clicks, count - clicks) < LEAST_OF_A_LABEL:
        return f"fewer than {LEAST_OF_A_LABEL} rows of a label"
    return ""


def _compared(
    compared: Compared,
    aucs: tuple[float | None, float | None],
    difference: Difference,
    level: float,
    margin: float,
) -> Compared:
    if difference.value is None or difference.error is None:
        return replace(compared, note="auc isn't defined: the rows have one label only")
    reach = NormalDist().inv_cdf((1 + level) / 2) * difference.error
    low, high = difference.value - reach, difference.value + reach
    return replace(
        compared,
        auc=aucs[0],
        champion_auc=aucs[1],
        difference=difference.value,
        low=low,
        high=high,
        standing="better" if low > 0 else "worse" if high < -margin else "level",
    )
