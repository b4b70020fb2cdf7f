"""Synthetic domains with known click probabilities, so that the best reachable auc is known too.

A row is user u, item i and domain d; its label is drawn with probability

    p = sigmoid(shared(u, i) + own(d, u, i))

``diversity`` is the share of the variance that is specific to a domain; the task is about equally hard at
every value. There are two worlds (:mod:`mmlora.data.synthetic_worlds`): in one, what users like is hidden
and their profiles show traces of it; in the other (``vectors``), profiles show vectors of users and items,
and each domain matches them in its own way. Changing diversity, sparsity, rows or days doesn't change the
users and items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mmlora.data.made_up import check_dials, sigmoid
from mmlora.data.synthetic_worlds import GivenVectors, HiddenTastes, Ints, World, logits
from mmlora.metrics import domain_metrics
from mmlora.records import Record
from mmlora.schema import DOMAIN_ID, EVENT_TIMESTAMP, ITEM_ID, LABEL, TIMESTAMP, USER_ID, Entity

UNEQUAL = 1000.0
"""At sparsity 1 the largest domain has this many times the rows of the smallest."""
MAX_DAYS = 1000
MAX_VECTORS = 512

_START = 1_577_836_800_000_000  # 2020-01-01 UTC, in microseconds
_DAY = 86_400_000_000


@dataclass(frozen=True)
class Dials:
    """What to generate.

    Attributes:
        domains: number of domains.
        users, items: number of each; popular ones occur more often, in the same way in every domain.
        rows: number of interactions, evenly spread over time.
        days: number of days from 2020-01-01 on, 1 to 1,000.
        diversity: 0 to 1. 0: all domains are alike; 1: they have nothing in common.
        families: number of different own parts: domain d has that of family ``d % families``, so that one
            domain's expert can serve another. None means one per domain, so that none are alike.
        sparsity: 0 to 1. The largest domain has ``1000 ** sparsity`` times the rows of the smallest.
        seed: the same seed and dials give the same rows.
        vectors: None: tastes are hidden, and profiles show traces of them. Otherwise the width of the vectors
            that user and item profiles show; each domain matches them by a low-rank bilinear form.
    """

    domains: int = 20
    users: int = 2000
    items: int = 1000
    rows: int = 200_000
    days: int = 60
    diversity: float = 0.5
    sparsity: float = 0.5
    families: int | None = None
    seed: int = 0
    vectors: int | None = None

    def check(self) -> None:
        """Refuse values out of range.

        Raises:
            UsageError: a value is out of range; lists every fault.
        """
        faults = []
        if self.families is not None and not 1 <= self.families <= self.domains:
            faults.append(f"families {self.families}: valid are 1 to the {self.domains} domains")
        if self.rows < max(self.domains, 1):
            faults.append(f"rows {self.rows}: give at least one per domain")
        if self.vectors is not None and not 1 <= self.vectors <= MAX_VECTORS:
            faults.append(f"vectors {self.vectors}: give a width of 1 to {MAX_VECTORS}")
        check_dials(
            "synthetic data",
            self,
            faults,
            domains=(1, None),
            users=(1, None),
            items=(1, None),
            diversity=(0, 1),
            sparsity=(0, 1),
            days=(1, MAX_DAYS),
            seed=(0, None),
        )


@dataclass(frozen=True)
class SyntheticData:
    """Synthetic tables.

    Attributes:
        interactions: interactions in order of time.
        profiles: profiles of users (segment, age; or vector) and items (category, price; or vector).
        truth: one row per interaction in the same order: its key, ``probability``, and the parts of the
            logit, ``shared`` (including the base) and ``own``.
    """

    interactions: pa.Table
    profiles: dict[Entity, pa.Table]
    truth: pa.Table


def make_synthetic(dials: Dials) -> SyntheticData:
    """Generate interactions, profiles and the truth about them.

    Raises:
        UsageError: a dial is out of range.
    """
    dials.check()
    world: World = (GivenVectors if dials.vectors else HiddenTastes).draw(dials)
    rng = np.random.default_rng([dials.seed, 1])
    domain = rng.permutation(np.repeat(np.arange(dials.domains), domain_rows(dials)))
    user = _popular(rng, dials.users, dials.rows)
    item = _popular(rng, dials.items, dials.rows)
    # A time slot for each row: no two rows have the same time, so no two have the same key.
    cell = dials.days * _DAY // dials.rows
    time = _START + np.arange(dials.rows) * cell + rng.integers(0, cell, dials.rows)
    shared, own = logits(world, domain, user, item)
    probability = sigmoid(shared.astype(np.float64) + own)
    label = rng.random(dials.rows) < probability
    width = len(str(dials.domains - 1))
    names = pa.array([f"d{number:0{width}d}" for number in range(dials.domains)])
    key = {
        USER_ID: pa.array(user + 1),
        ITEM_ID: pa.array(item + 1),
        DOMAIN_ID: names.take(pa.array(domain)),
        EVENT_TIMESTAMP: pa.array(time).cast(TIMESTAMP),
    }
    return SyntheticData(
        interactions=pa.table({**key, LABEL: label.astype(np.int8)}),
        profiles=world.profiles(),
        truth=pa.table({**key, "probability": probability, "shared": shared, "own": own}),
    )


def domain_rows(dials: Dials) -> Ints:
    """Return the rows of each domain, the largest first: ``[domains]``, at least 1 each."""
    steps = np.linspace(0, 1, dials.domains) if dials.domains > 1 else np.zeros(1)
    weight = UNEQUAL ** (-dials.sparsity * steps)
    bounds = np.rint(np.cumsum(weight) / weight.sum() * (dials.rows - dials.domains)).astype(np.int64)
    return np.asarray(np.diff(bounds, prepend=0) + 1)


@dataclass(frozen=True)
class BestOfDomain(Record):
    """What the true probability reaches in a domain.

    Attributes:
        rows: its rows.
        ctr: share of clicks.
        auc: None with only one label, like ``shared_auc``.
        shared_auc: of the shared part of the probability alone.
    """

    rows: int
    ctr: float
    auc: float | None
    shared_auc: float | None


@dataclass(frozen=True)
class BestReachable(Record):
    """What the true probability reaches; domains with only one label are left out of ``wauc``."""

    wauc: float | None
    shared_wauc: float | None
    by_domain: Mapping[str, BestOfDomain]


def best_reachable(data: SyntheticData) -> BestReachable:
    """Return the auc of the true probability: no model can be expected to reach more on these rows."""
    names = data.interactions.column(DOMAIN_ID).combine_chunks().dictionary_encode()
    code, label = names.indices.to_numpy(), data.interactions.column(LABEL).to_numpy()
    alone = sigmoid(data.truth.column("shared").to_numpy())
    best = domain_metrics(label, data.truth.column("probability").to_numpy(), code)
    shared = domain_metrics(label, alone, code)
    by_name = sorted((name, code) for code, name in enumerate(names.dictionary.to_pylist()))
    by_domain = {
        name: BestOfDomain(
            rows=best.by_domain[code].rows,
            ctr=best.by_domain[code].positives / best.by_domain[code].rows,
            auc=best.by_domain[code].auc,
            shared_auc=shared.by_domain[code].auc,
        )
        for name, code in by_name
    }
    return BestReachable(best.wauc, shared.wauc, by_domain)


def _popular(rng: np.random.Generator, count: int, rows: int) -> Ints:
    """Draw ``[rows]`` of ``count``, popularity log-normal."""
    weight = np.exp(rng.standard_normal(count))
    bounds = np.cumsum(weight)
    drawn = np.searchsorted(bounds, rng.random(rows) * bounds[-1], side="right")
    return np.asarray(np.minimum(drawn, count - 1), np.int64)
