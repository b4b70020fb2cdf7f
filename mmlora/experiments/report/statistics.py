r"""Confidence intervals of means over seeds and of differences, with few seeds and many rows of few users.

The interval covers two sources of variation:

    rows    which users are among the test rows. A user's rows depend on each other, so users are resampled,
            not rows. An AUC is a mean over pairs; to first order, the effect of a row on it is the row's
            influence (from its placement, DeLong et al. 1988), so the variance under resampled users has a
            closed form, the infinitesimal jackknife:
            V = G / (G - 1) * sum over the G users of (sum of the influences of the user's rows)^2.
            A paired bootstrap of users converges to it, but with the noise of its draws. Obuchowski,
            "Nonparametric analysis of clustered ROC curve data" (1997). For a difference of two models, a
            row's influence is the difference of its influences on each, hence paired; the influences of a
            user with test rows in several seeds are summed over the seeds.
    seeds   the split of the rows and the initial weights: s^2 / S, from the values of the S seeds.

    variance T = V + s^2 / S
    interval = mean -+ t(0.975, v) * sqrt(T),   v = T^2 / (V^2 / (G - 1) + (s^2 / S)^2 / (S - 1))

v is Satterthwaite's (1946). s^2 also contains the variation of each seed's test rows, so rows may count
twice: the interval tends to be too wide. In simulations with normal errors, the 95% interval of 3 seeds
covers the truth in 94 to 99% of cases, however the variance divides between rows and seeds. An interval from
rows alone would in 68 to 95%, and one from seeds alone (Student's t) in 0 to 95%, because seeds share users.
Two seeds cover 91% or more. With one seed s^2 is unknown, and the interval covers rows only.

wauc weights domains by their test rows, which are held fixed; a domain with one label has no AUC and is left
out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mmlora.experiments.report.reading import Array, CellResult, Domain, Results, ScoredRows

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and its interval.

    Attributes:
        value: the mean.
        low: lower bound of the 95% interval; None if there are too few users.
        high: upper bound.
        by_seed: the value of each seed.
        rows_error: standard error due to the choice of test users.
        seed_spread: standard deviation of ``by_seed``; None with one seed.
    """

    value: float
    low: float | None
    high: float | None
    by_seed: tuple[float, ...]
    rows_error: float | None
    seed_spread: float | None

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len(self.by_seed)

    @property
    def half(self) -> float | None:
        """Half the width of the interval."""
        return None if self.high is None else self.high - self.value

    @property
    def sign(self) -> int:
        """1 or -1 if the whole interval is on that side of 0, else 0."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True)
class Term:
    """A cell's term in an estimate: ``weight`` times its value, summed over the cells of a seed."""

    tested: CellResult
    weight: float


class Evidence:
    """The AUCs of an experiment's cells and each user's influence on them, computed once per cell.

    Args:
        results: cells and rows.
    """

    def __init__(self, results: Results) -> None:
        users = np.unique(np.concatenate([np.unique(rows.user) for rows in results.rows.values()]))
        self._users = len(users)
        self._rows = {key: _UserDomains(rows, users) for key, rows in results.rows.items()}
        self._cells = {cell.key: self._rows[cell.data_key].measure(cell.scores) for cell in results.cells}

    def auc(self, cell: CellResult, domain: str) -> float | None:
        """Return a domain's AUC; None if the domain has one label or no rows."""
        return _defined(self._cells[cell.key], self._rows[cell.data_key], domain)

    def wauc(self, cell: CellResult) -> float | None:
        """Return the mean of the domains' AUCs, weighted by rows; None if no domain has one."""
        return _defined(self._cells[cell.key], self._rows[cell.data_key], None)

    def domains(self, data_keys: Iterable[str]) -> list[Domain]:
        """Return the domains of these keys' test rows, with figures averaged over the keys that have them."""
        by_name: dict[str, list[Domain]] = {}
        for key in sorted(set(data_keys)):
            for domain in self._rows[key].domains:
                by_name.setdefault(domain.name, []).append(domain)
        return [
            Domain(
                name,
                round(_mean(domain.train_rows for domain in domains)),
                round(_mean(domain.test_rows for domain in domains)),
                round(_mean(domain.users for domain in domains)),
                round(_mean(domain.items for domain in domains)),
                _mean(domain.density for domain in domains),
            )
            for name, domains in by_name.items()
        ]

    def estimate(self, terms: Iterable[Term], domain: str | None = None) -> Estimate | None:
        """Return the mean over seeds of the weighted sum of cells.

        Args:
            terms: the cells, summed per seed. Seeds with a cell whose AUC is undefined are left out.
            domain: the domain whose AUC is estimated; None for wauc.

        Returns:
            The estimate, or None if it is undefined for every seed.
        """
        by_seed: dict[int, list[Term]] = {}
        for term in terms:
            by_seed.setdefault(term.tested.cell.seed, []).append(term)
        values: dict[int, float] = {}
        for seed, parts in sorted(by_seed.items()):
            aucs = [_defined(self._cells[t.tested.key], self._rows[t.tested.data_key], domain) for t in parts]
            if all(auc is not None for auc in aucs):
                values[seed] = math.fsum(
                    term.weight * auc for term, auc in zip(parts, aucs, strict=True) if auc is not None
                )
        if not values:
            return None
        used = [Term(t.tested, t.weight / len(values)) for seed in values for t in by_seed[seed]]
        return combine(list(values.values()), self._by_user(used, domain))

    def _by_user(self, terms: Sequence[Term], domain: str | None) -> Array:
        """Return each user's influence on the weighted sum of all terms, ``[users]``."""
        total = np.zeros(self._users)
        by_data_key: dict[str, Array] = {}
        for term in terms:
            influence = term.weight * self._cells[term.tested.key].influence
            by_data_key[term.tested.data_key] = by_data_key.get(term.tested.data_key, 0.0) + influence
        for key, influence in by_data_key.items():
            total += self._rows[key].by_user(influence, domain, self._users)
        return total


def combine(values: Sequence[float], by_user: Array) -> Estimate:
    """Return the mean of the seeds' values with the interval of the module's formula.

    Args:
        values: one value per seed.
        by_user: each user's influence on the mean, ``[users]``; zero for users without test rows.
    """
    mean, seeds = math.fsum(values) / len(values), len(values)
    spread = float(np.std(values, ddof=1)) if seeds > 1 else None
    users = int(np.count_nonzero(by_user))
    between = 0.0 if spread is None else spread**2 / seeds
    if users == 1:
        return Estimate(mean, None, None, tuple(values), None, spread)
    rows = 0.0 if users == 0 else users / (users - 1) * float(by_user @ by_user)
    variance = rows + between
    if variance == 0.0:
        return Estimate(mean, mean, mean, tuple(values), 0.0, spread)
    slack = rows**2 / max(users - 1, 1) + (between**2 / (seeds - 1) if seeds > 1 else 0.0)
    half = _student(variance**2 / slack) * math.sqrt(variance)
    return Estimate(mean, mean - half, mean + half, tuple(values), math.sqrt(rows), spread)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


@lru_cache(maxsize=4096)
def _student(freedom: float) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + LEVEL) / 2, min(freedom, 1e9)))


@dataclass(frozen=True, eq=False)
class _Measured:
    """A cell's AUC by domain, NaN if undefined, and the influence of each user-domain pair, ``[P]``."""

    aucs: Array
    influence: Array


class _UserDomains:
    """Test rows grouped by user and domain: P pairs, sorted by domain."""

    def __init__(self, rows: ScoredRows, users: Array) -> None:
        self.domains = rows.domains
        self.names = {domain.name: index for index, domain in enumerate(rows.domains)}
        self._positive = rows.label > 0
        self._domain = rows.domain
        code = rows.domain.astype(np.int64) * len(users) + np.searchsorted(users, rows.user)
        pairs, self._pair = np.unique(code, return_inverse=True)
        self._user, self._pair_domain = pairs % len(users), pairs // len(users)
        self.size = np.bincount(rows.domain, minlength=len(rows.domains))
        clicks = np.bincount(rows.domain, self._positive, minlength=len(self.size))
        # Whether a domain has both labels depends on the rows only, and so do wauc's weights.
        shares = self.shares(np.where((clicks > 0) & (clicks < self.size), 0.0, np.nan))
        self._pair_share = shares[self._pair_domain]

    def measure(self, scores: Array) -> _Measured:
        aucs, influence = auc_influence(self._positive, scores, self._domain, len(self.size))
        return _Measured(aucs, np.bincount(self._pair, influence, minlength=len(self._user)))

    def shares(self, aucs: Array) -> Array:
        """Return each domain's weight in wauc, 0 if it has no AUC."""
        size = np.where(np.isnan(aucs), 0.0, self.size)
        return np.asarray(size / max(size.sum(), 1.0))

    def by_user(self, influence: Array, domain: str | None, users: int) -> Array:
        if domain is None:
            return np.bincount(self._user, influence * self._pair_share, minlength=users)
        chosen = self._pair_domain == self.names[domain]
        return np.bincount(self._user[chosen], influence[chosen], minlength=users)


def auc_influence(positive: Array, scores: Array, domain: Array, domains: int) -> tuple[Array, Array]:
    """Return each domain's AUC and each row's influence on it.

    The placement of a positive is the share of its domain's negatives below it; that of a negative is the
    share of positives above it; ties count half. The AUC is the mean placement of either.
    A row's influence is (placement - AUC) / rows of its label.

    Args:
        positive: whether the label is 1, ``[N]``.
        scores: scores, ``[N]``.
        domain: domain index, ``[N]``.
        domains: number of domains.

    Returns:
        AUCs, ``[domains]``, NaN for a domain with one label; influences, ``[N]``, 0 in such domains.
    """
    order = np.lexsort((scores, domain))
    group, score, click = domain[order], scores[order], positive[order].astype(np.float64)
    new = np.ones(len(order), bool)
    new[1:] = (group[1:] != group[:-1]) | (score[1:] != score[:-1])
    run = np.cumsum(new) - 1
    above = np.bincount(run, click) if len(run) else np.zeros(0)
    below = np.bincount(run) - above if len(run) else np.zeros(0)
    clicks = np.bincount(group, click, minlength=domains)
    others = np.bincount(group, minlength=domains) - clicks
    of_run = group[new]
    others_before = (np.cumsum(others) - others)[of_run]
    clicks_before = (np.cumsum(clicks) - clicks)[of_run]
    negatives_below = np.cumsum(below) - below / 2 - others_before
    positives_above = clicks[of_run] - (np.cumsum(above) - above / 2 - clicks_before)
    with np.errstate(divide="ignore", invalid="ignore"):
        aucs = np.bincount(of_run, above * negatives_below, minlength=domains) / (clicks * others)
        centred = aucs[of_run]
        of_positive = (negatives_below / others[of_run] - centred) / clicks[of_run]
        of_negative = (positives_above / clicks[of_run] - centred) / others[of_run]
    influence = np.empty(len(order))
    by_row = np.where(click > 0, of_positive[run], of_negative[run])
    influence[order] = np.nan_to_num(by_row, posinf=0, neginf=0)
    return aucs, influence


def _defined(measured: _Measured, rows: _UserDomains, domain: str | None) -> float | None:
    aucs = measured.aucs
    if domain is None:
        kept = ~np.isnan(aucs)
        return float(rows.shares(aucs)[kept] @ aucs[kept]) if kept.any() else None
    index = rows.names.get(domain)
    return None if index is None or math.isnan(aucs[index]) else float(aucs[index])
