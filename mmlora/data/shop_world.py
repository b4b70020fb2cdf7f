"""The made-up shop's world: customers, products, and what makes a click likely in each market.

The logit of a click of customer u on product i in market m on a day is

    base + level_m + appeal_i + 1.1 [u says it likes i's category] + 0.14 t_u'v_i + A[age_u, category_i]
    + C_m[category_i] + B_m[brand_i] + p_m (log price_i - 3.2) + w_m'v_i + 0.5 exp(-(days since launch) / 5)

where ``appeal`` is made of the product's tags, its brand and a quality that no column shows, t is a taste
that no column shows but that follows from the interests, and v is a vector that the profile shows with
noise. Level, C, B, p and w are a market's own. About 4% of the impressions are clicks.
:mod:`mmlora.data.shop` draws these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mmlora.data.made_up import sigmoid

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class Market(NamedTuple):
    """A market: impressions at scale 1, and the part of the days in which it has them."""

    name: str
    rows: int
    opens: float | None = None
    closes: float | None = None

    def days(self, days: int) -> Ints:
        """Return the days on which the market is open, of 0 to ``days``."""
        first = round(days * (self.opens or 0))
        return np.arange(first, days + 1 if self.closes is None else round(days * self.closes))


MARKETS = (
    Market("us", 160_000),
    Market("de", 81_000),
    Market("uk", 50_000),
    Market("fr", 34_000),
    Market("it", 23_500),
    Market("es", 16_500),
    Market("nl", 12_000),
    Market("pl", 8_500),
    Market("se", 6_000),
    Market("at", 4_500, closes=2 / 3),  # silent by the end
    Market("pt", 3_700, opens=5 / 6),  # opened ten days before the end of 60
    Market("mt", 300),
)
SIZES = np.array([market.rows for market in MARKETS])
CATEGORIES = (
    *("shoes", "dresses", "phones", "laptops", "toys", "garden"),
    *("kitchen", "books", "beauty", "sports", "pets", "food"),
)
AGE_BANDS = ("18-24", "25-34", "35-44", "45-54", "55-64", "65+")
BRANDS, TAGS, WIDTH = 800, 40, 16

BASE = -5.05
SAID_INTEREST = 1.1
TASTE = 0.14
TYPICAL_LOG_PRICE = 3.2
NOVELTY, NOVELTY_DAYS = 0.5, 5.0


@dataclass(frozen=True)
class Customers:
    """U customers.

    Attributes:
        id: ``[U]``.
        market: the market that a customer mostly buys in.
        age: index of :data:`AGE_BANDS`; ``age_told`` says whether the profile has it.
        points: of loyalty; ``points_told`` likewise.
        joined: days before the first day.
        interests: categories that a customer says it likes, ``[U, categories]``.
        taste: t ``[U, WIDTH]``, not shown.
        activity: how often a customer comes, heavy-tailed.
    """

    id: npt.NDArray[np.str_]
    market: Ints
    age: Ints
    age_told: Flags
    points: Floats
    points_told: Flags
    joined: Ints
    interests: Flags
    taste: Floats
    activity: Floats

    @classmethod
    def draw(cls, rng: np.random.Generator, count: int) -> Customers:
        """Draw ``count`` customers."""
        interests = _subsets(rng, count, len(CATEGORIES), most=4)
        liking = 0.8 * rng.normal(size=(len(CATEGORIES), WIDTH))
        share = np.maximum(SIZES / SIZES.sum(), 0.004)
        return cls(
            id=np.array([f"u_{number:06x}" for number in rng.choice(1 << 24, count, replace=False)]),
            market=rng.choice(len(MARKETS), count, p=share / share.sum()),
            age=rng.integers(0, len(AGE_BANDS), count),
            age_told=rng.random(count) >= 0.15,
            points=rng.gamma(1.2, 400, count).round(1),
            points_told=rng.random(count) >= 0.2,
            joined=rng.integers(1, 900, count),
            interests=interests,
            taste=0.5 * rng.normal(size=(count, WIDTH)) + interests @ liking,
            activity=np.minimum(rng.pareto(1.1, count) + 0.15, 60),
        )


@dataclass(frozen=True)
class Products:
    """I products.

    Attributes:
        id: ``[I]``.
        category: index of :data:`CATEGORIES`.
        brand: a few brands have most products.
        price: log-normal.
        vector: v ``[I, WIDTH]``; ``shown_vector`` is it with noise.
        tags: ``[I, TAGS]``.
        launched: day from which a product is shown; before the first day for 60%.
        appeal: what it brings to the logit in every market.
        popularity: how often it is shown.
    """

    id: npt.NDArray[np.str_]
    category: Ints
    brand: Ints
    price: Floats
    vector: Floats
    shown_vector: npt.NDArray[np.float32]
    tags: Flags
    launched: Ints
    appeal: Floats
    popularity: Floats

    @classmethod
    def draw(cls, rng: np.random.Generator, count: int, days: int) -> Products:
        """Draw ``count`` products, of which 40% are launched within the ``days`` or on the day after."""
        category = rng.choice(len(CATEGORIES), count, p=rng.dirichlet(np.full(len(CATEGORIES), 6)))
        brand = np.minimum((8 * rng.pareto(0.9, count)).astype(np.int64), BRANDS - 1)
        of_category = 0.6 * rng.normal(size=(len(CATEGORIES), WIDTH))
        vector = of_category[category] + 0.7 * rng.normal(size=(count, WIDTH))
        tags, quality = _subsets(rng, count, TAGS, most=5), rng.normal(0, 0.6, count)
        by_tag, by_brand = rng.normal(0, 0.25, TAGS), rng.normal(0, 0.35, BRANDS)
        old = rng.random(count) < 0.6
        place = 1.0 + rng.permutation(count)
        return cls(
            id=np.array([f"SKU-{number:06d}" for number in rng.choice(999_999, count, replace=False)]),
            category=category,
            brand=brand,
            price=np.exp(rng.normal(TYPICAL_LOG_PRICE, 1.0, count)).round(2),
            vector=vector,
            shown_vector=(vector + 0.3 * rng.normal(size=vector.shape)).astype(np.float32),
            tags=tags,
            launched=np.where(old, -rng.integers(1, 400, count), rng.integers(0, days + 1, count)),
            appeal=tags @ by_tag + quality + by_brand[brand],
            popularity=np.exp(0.3 * quality - 0.7 * np.log(place)),
        )


@dataclass(frozen=True)
class Preferences:
    """What markets and ages like; M markets.

    Attributes:
        by_age: A ``[ages, categories]``, the same in every market.
        level: ``[M]``; all that follows is a market's own as well.
        by_category: C ``[M, categories]``.
        by_brand: B ``[M, BRANDS]``.
        by_price: p ``[M]``.
        direction: w ``[M, WIDTH]``.
    """

    by_age: Floats
    level: Floats
    by_category: Floats
    by_brand: Floats
    by_price: Floats
    direction: Floats

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Preferences:
        """Draw what markets and ages like."""
        markets = len(MARKETS)
        return cls(
            by_age=rng.normal(0, 0.45, (len(AGE_BANDS), len(CATEGORIES))),
            level=rng.normal(0, 0.35, markets),
            by_category=rng.normal(0, 0.7, (markets, len(CATEGORIES))),
            by_brand=rng.normal(0, 0.5, (markets, BRANDS)),
            by_price=rng.normal(-0.25, 0.35, markets),
            direction=rng.normal(0, 0.22, (markets, WIDTH)),
        )


@dataclass(frozen=True)
class ShopWorld:
    """Customers, products and preferences: together they decide every click probability."""

    customers: Customers
    products: Products
    preferences: Preferences

    def probability(self, customer: Ints, product: Ints, market: Ints, day: Ints) -> Floats:
        """Return the true click probability of rows given as indices and days since the first, ``[N]``."""
        who, what, likes = self.customers, self.products, self.preferences
        category = what.category[product]
        logit = self._of_product(market, day, product)
        logit += SAID_INTEREST * who.interests[customer, category]
        logit += TASTE * np.einsum("nk,nk->n", who.taste[customer], what.vector[product])
        logit += likes.by_age[who.age[customer], category]
        return sigmoid(logit)

    def grid(self, customers: Ints, products: Ints, market: int, day: int) -> Floats:
        """Return the true click probability of each customer with each product, ``[U, I]``."""
        who, what, likes = self.customers, self.products, self.preferences
        category = what.category[products]
        logit = TASTE * (who.taste[customers] @ what.vector[products].T)
        logit += SAID_INTEREST * who.interests[customers][:, category]
        logit += likes.by_age[who.age[customers]][:, category]
        logit += self._of_product(np.array(market), np.array(day), products)
        return sigmoid(logit)

    def _of_product(self, market: Ints, day: Ints, product: Ints) -> Floats:
        """Return what the customer has no part in, ``[N]``."""
        what, likes, category = self.products, self.preferences, self.products.category[product]
        age = np.maximum(day - what.launched[product], 0)
        return np.asarray(
            BASE
            + likes.level[market]
            + what.appeal[product]
            + likes.by_category[market, category]
            + likes.by_brand[market, what.brand[product]]
            + likes.by_price[market] * (np.log(what.price[product]) - TYPICAL_LOG_PRICE)
            + (what.vector[product] * likes.direction[market]).sum(-1)
            + NOVELTY * np.exp(-age / NOVELTY_DAYS)
        )


def _subsets(rng: np.random.Generator, rows: int, width: int, *, most: int) -> Flags:
    """Draw a subset of 0 to ``most`` of ``width`` for each row, ``[rows, width]``."""
    place = rng.random((rows, width)).argsort(1).argsort(1)
    return np.asarray(place < rng.integers(0, most + 1, rows)[:, None])
