r"""How sure a mean over seeds, or a difference of two, is: with few seeds, and with many rows of few users.

Two kinds of luck move a figure, and the interval holds both:

    rows    who happens to be among the test rows. Their rows go together, so users are resampled, not rows.
            An AUC is a mean over pairs; to first order it moves by what each row adds to it (its placement,
            DeLong et al. 1988), so the variance under resampled users has a closed form, the infinitesimal
            jackknife: V = G / (G - 1) * sum over the G users of (sum of what the user's rows add)^2.
            It is what a paired bootstrap of users converges to, without the noise of its draws. Obuchowski,
            "Nonparametric analysis of clustered ROC curve data" (1997). Of a difference of two models, what a
            row adds is the difference of what it adds to each, hence paired; a user found in the test rows of
            several seeds adds over all of them.
    seeds   which rows were split off, how weights were drawn: s^2 / S, of the S seeds' values.

    variance T = V + s^2 / S
    interval = mean -+ t(0.975, v) * sqrt(T),   v = T^2 / (V^2 / (G - 1) + (s^2 / S)^2 / (S - 1))

v is Satterthwaite's (1946). s^2 also sees each seed's own test rows, so rows may count twice: the interval
errs towards being wide. Simulated with normal luck, the 95% interval of 3 seeds covers the truth in 94 to 99%
of cases, however the luck divides; of rows alone it would in 68 to 95%, of seeds alone (Student's t) in 0 to
95%, as seeds share users. Two seeds cover 91% or more. With one, s^2 is unknown: it is of rows only.

wauc weighs domains by their test rows, held fixed; a domain of one class has no AUC and is left out.
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
    """A mean over seeds and where it lies.

    Attributes:
        value: the mean.
        low: lower bound of the 95% interval; None where too few users to say.
        high: upper bound.
        by_seed: the value of each seed.
        rows_error: standard error from the choice of test users.
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
        """How many seeds it is the mean of."""
        return len(self.by_seed)

    @property
    def half(self) -> float | None:
        """Half of the interval's width."""
        return None if self.high is None else self.high - self.value

    @property
    def sign(self) -> int:
        """1 or -1 where the interval lies on that side of 0, else 0."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True)
class Term:
    """A cell's part in what is estimated: ``weight`` times its value, added up over the cells of a seed."""

    tested: CellResult
    weight: float


class Evidence:
    """The AUCs of an experiment's cells and what each user adds to them, computed once a cell.

    Args:
        results: cells and rows.
    """

    def __init__(self, results: Results) -> None:
        users = np.unique(np.concatenate([np.unique(rows.user) for rows in results.rows.values()]))
        self._users = len(users)
        self._rows = {key: _UserDomains(rows, users) for key, rows in results.rows.items()}
        self._cells = {cell.key: self._rows[cell.data_key].measure(cell.scores) for cell in results.cells}

    def auc(self, cell: CellResult, domain: str) -> float | None:
        """Return a domain's AUC; None where it has one class or no row."""
        return _defined(self._cells[cell.key], self._rows[cell.data_key], domain)

    def wauc(self, cell: CellResult) -> float | None:
        """Return the mean of the domains' AUCs, weighted by rows; None where none has one."""
        return _defined(self._cells[cell.key], self._rows[cell.data_key], None)

    def domains(self, data_keys: Iterable[str]) -> list[Domain]:
        """Return the domains of test rows of these keys, their figures averaged over those that have them."""
        by_name: dict[str, list[Domain]] = {}
        for key in sorted(set(data_keys)):
            for domain in self._rows[key].domains:
                by_name.setdefault(domain.name, []).append(domain)
        return [
            Domain(
                name,
                round(_mean(d.train_rows for d in found)),
                round(_mean(d.test_rows for d in found)),
                round(_mean(d.users for d in found)),
                round(_mean(d.items for d in found)),
                _mean(d.density for d in found),
            )
            for name, found in by_name.items()
        ]

    def estimate(self, terms: Iterable[Term], domain: str | None = None) -> Estimate | None:
        """Return the mean over seeds of the weighted sum of cells.

        Args:
            terms: the cells; those of a seed are added up. Seeds with a cell of undefined AUC are left out.
            domain: estimate its AUC; None estimates wauc.

        Returns:
            The estimate, or None where no seed defines it.
        """
        by_seed: dict[int, list[Term]] = {}
        for term in terms:
            by_seed.setdefault(term.tested.cell.seed, []).append(term)
        values: dict[int, float] = {}
        for seed, parts in sorted(by_seed.items()):
            found = [
                _defined(self._cells[t.tested.key], self._rows[t.tested.data_key], domain) for t in parts
            ]
            if all(value is not None for value in found):
                values[seed] = math.fsum(
                    term.weight * value for term, value in zip(parts, found, strict=True) if value is not None
                )
        if not values:
            return None
        used = [Term(t.tested, t.weight / len(values)) for seed in values for t in by_seed[seed]]
        return combine(list(values.values()), self._by_user(used, domain))

    def _by_user(self, terms: Sequence[Term], domain: str | None) -> Array:
        """What each user adds to the weighted sum of all terms, ``[users]``."""
        total = np.zeros(self._users)
        by_rows: dict[str, Array] = {}
        for term in terms:
            part = term.weight * self._cells[term.tested.key].added
            by_rows[term.tested.data_key] = by_rows.get(term.tested.data_key, 0.0) + part
        for key, added in by_rows.items():
            total += self._rows[key].by_user(added, domain, self._users)
        return total


def combine(values: Sequence[float], by_user: Array) -> Estimate:
    """Return the mean of the seeds' values with the interval of the module's formula.

    Args:
        values: a value a seed.
        by_user: what each user adds to the mean, ``[users]``; zeros are users without part in it.
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
    """A cell's AUC by domain, NaN where undefined, and what each user adds to it in each domain, ``[P]``."""

    aucs: Array
    added: Array


class _UserDomains:
    """Test rows by user and domain: P pairs, sorted by domain."""

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
        # Whether a domain has both classes is the rows' alone, so wauc's weights are too.
        shares = self.shares(np.where((clicks > 0) & (clicks < self.size), 0.0, np.nan))
        self._pair_share = shares[self._pair_domain]

    def measure(self, scores: Array) -> _Measured:
        aucs, added = placements(self._positive, scores, self._domain, len(self.size))
        return _Measured(aucs, np.bincount(self._pair, added, minlength=len(self._user)))

    def shares(self, aucs: Array) -> Array:
        """Each domain's part in wauc, 0 where it has no AUC."""
        size = np.where(np.isnan(aucs), 0.0, self.size)
        return np.asarray(size / max(size.sum(), 1.0))

    def by_user(self, added: Array, domain: str | None, users: int) -> Array:
        if domain is None:
            return np.bincount(self._user, added * self._pair_share, minlength=users)
        chosen = self._pair_domain == self.names[domain]
        return np.bincount(self._user[chosen], added[chosen], minlength=users)


def placements(positive: Array, scores: Array, domain: Array, domains: int) -> tuple[Array, Array]:
    """Return each domain's AUC and what each row adds to it.

    A positive's placement is the share of its domain's negatives below it, a negative's that of positives
    above it, ties counted as half; the AUC is the mean of either.
    A row adds (placement - AUC) / rows of its class.

    Args:
        positive: ``[N]``.
        scores: ``[N]``.
        domain: 0, 1, ..., ``[N]``.
        domains: how many.

    Returns:
        AUCs, ``[domains]``, NaN where a class is missing; what rows add, ``[N]``, 0 in such domains.
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
    added = np.empty(len(order))
    added[order] = np.nan_to_num(np.where(click > 0, of_positive[run], of_negative[run]), posinf=0, neginf=0)
    return aucs, added


def _defined(measured: _Measured, rows: _UserDomains, domain: str | None) -> float | None:
    aucs = measured.aucs
    if domain is None:
        kept = ~np.isnan(aucs)
        return float(rows.shares(aucs)[kept] @ aucs[kept]) if kept.any() else None
    index = rows.names.get(domain)
    return None if index is None or math.isnan(aucs[index]) else float(aucs[index])
