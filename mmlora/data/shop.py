"""A made-up shop: 12 markets, few clicks, long tails, cold products, rich profiles, and a known truth.

:mod:`mmlora.data.shop_world` says what makes a click likely, this module draws who saw what, and
:mod:`mmlora.data.shop_files` writes what a shop would export, with the day after and the truth kept aside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmlora.data.made_up import check_dials
from mmlora.data.shop_world import (
    MARKETS,
    SIZES,
    Customers,
    Floats,
    Ints,
    Preferences,
    Products,
    ShopWorld,
)

START = np.datetime64("2026-01-01")
USERS, ITEMS, LEAST_ROWS = 20_000, 5_000, 200
MAX_DAYS = 300
WEEKEND = 1.25
_DAY_MS = 86_400_000


@dataclass(frozen=True)
class ShopDials:
    """What to make.

    Attributes:
        seed: the same seed and dials give the same shop.
        scale: 1 for 400,000 impressions, 20,000 users and 5,000 items; 0.01 to 20.
        days: from 2026-01-01 on, 6 to 300; the day after them is kept aside.
    """

    seed: int = 1
    scale: float = 1.0
    days: int = 60

    def check(self) -> None:
        """Refuse dials out of range.

        Raises:
            UsageError: with every fault.
        """
        check_dials("shop", self, seed=(0, None), scale=(0.01, 20), days=(6, MAX_DAYS))


@dataclass(frozen=True)
class Impressions:
    """Rows of all markets in the order of time: indices, days since the first, and what came of them.

    Attributes:
        customer, product, market: ``[N]``.
        day: ``[N]``; ``dials.days`` is the day kept aside.
        ms: milliseconds of the day, ``[N]``.
        probability: the truth, ``[N]``.
        label: ``[N]``.
    """

    customer: Ints
    product: Ints
    market: Ints
    day: Ints
    ms: Ints
    probability: Floats
    label: npt.NDArray[np.int8]


def make_world(dials: ShopDials) -> ShopWorld:
    """Make customers, products and preferences; each has a random stream of its own.

    Raises:
        UsageError: a dial is out of range.
    """
    dials.check()
    customers, products, preferences = (np.random.default_rng([dials.seed, stream]) for stream in range(3))
    return ShopWorld(
        customers=Customers.draw(customers, int(USERS * dials.scale)),
        products=Products.draw(products, int(ITEMS * dials.scale), dials.days),
        preferences=Preferences.draw(preferences),
    )


def draw_impressions(world: ShopWorld, dials: ShopDials) -> Impressions:
    """Draw who saw what and when, and who clicked."""
    rng = np.random.default_rng([dials.seed, 3])
    drawn = [_of_market(rng, world, dials, market) for market in range(len(MARKETS))]
    customer, product, market, day, ms = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    order = np.lexsort((ms, day))
    customer, product, market, day, ms = (part[order] for part in (customer, product, market, day, ms))
    probability = world.probability(customer, product, market, day)
    label = (rng.random(len(day)) < probability).astype(np.int8)
    return Impressions(customer, product, market, day, ms, probability, label)


def _of_market(rng: np.random.Generator, world: ShopWorld, dials: ShopDials, market: int) -> tuple[Ints, ...]:
    """Draw a market's customer, product, market, day and ms: locals come most, products once launched."""
    rows = max(int(SIZES[market] * dials.scale), LEAST_ROWS)
    days = MARKETS[market].days(dials.days)
    weekday = (START + days).astype(int) % 7  # 1970-01-01 was a Thursday: 2 and 3 are a weekend
    weight = np.where(np.isin(weekday, (2, 3)), WEEKEND, 1.0)
    day = rng.choice(days, rows, p=weight / weight.sum())
    abroad = 0.03 * SIZES[market] / SIZES.sum() + 0.004
    visits = world.customers.activity * np.where(world.customers.market == market, 1.0, abroad)
    customer = rng.choice(len(visits), rows, p=visits / visits.sum())
    popularity = world.products.popularity / world.products.popularity.sum()
    product = rng.choice(len(popularity), rows, p=popularity)
    while (early := world.products.launched[product] > day).any():
        product[early] = rng.choice(len(popularity), early.sum(), p=popularity)
    return customer, product, np.full(rows, market), day, rng.integers(0, _DAY_MS, rows)
