"""Judges lists of the synthetic shop by the truth: the clicks they would bring, and how similar they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmlora.data.shop import Impressions, ShopDials, draw_impressions, make_world
from mmlora.data.shop_world import MARKETS, Floats, Ints, ShopWorld
from mmlora.errors import DataError, UsageError
from mmlora.schema import DOMAIN_ID, ITEM_ID, POSITION, USER_ID

SMOOTHING = 20
_BLOCK = 500


@dataclass(frozen=True)
class ListFigures:
    """What a market's lists are worth on the day after, by the truth.

    Attributes:
        market: its name, or ``all``.
        users: who have a list.
        true_ctr: mean click probability of the lists' first items.
        popular_ctr: that of the market's items with the highest smoothed CTR, the same for every user.
        best_ctr: that of each user's best items.
        same_first: share of the users with the most common first item.
        items: different items on the lists.
    """

    market: str
    users: int
    true_ctr: float
    popular_ctr: float
    best_ctr: float
    same_first: float
    items: int

    @property
    def of_best(self) -> float:
        """``true_ctr`` as a share of ``best_ctr``."""
        return self.true_ctr / self.best_ctr


@dataclass(frozen=True)
class ShopTruth:
    """A shop made again from its dials, truth included."""

    dials: ShopDials
    world: ShopWorld
    impressions: Impressions

    @classmethod
    def make(cls, dials: ShopDials) -> ShopTruth:
        """Make a shop; the same dials give the same."""
        world = make_world(dials)
        return cls(dials, world, draw_impressions(world, dials))

    @classmethod
    def open(cls, folder: Path) -> ShopTruth:
        """Make the shop that was imported from a folder.

        Raises:
            UsageError: no shop was imported from there.
        """
        record = folder / "made_with.json"
        if not record.exists():
            raise UsageError(f"{folder}: there is no generated shop; run `mmlora data shop` first")
        return cls.make(ShopDials(**json.loads(record.read_text(encoding="utf-8"))))

    @cached_property
    def item_ctr(self) -> Floats:
        """Smoothed CTR of each product in each market before the day after, ``[markets, I]``."""
        rows, count = self.impressions, len(self.world.products.id)
        early, key = rows.day < self.dials.days, rows.market * count + rows.product
        shape = (len(MARKETS), count)
        shown = np.bincount(key[early], minlength=len(MARKETS) * count).reshape(shape)
        clicks = np.bincount(key[early], rows.label[early], len(MARKETS) * count).reshape(shape)
        of_market = clicks.sum(1, keepdims=True) / np.maximum(shown.sum(1, keepdims=True), 1)
        return np.asarray((clicks + SMOOTHING * of_market) / (shown + SMOOTHING))

    @cached_property
    def on_sale(self) -> Ints:
        """Products that are launched by the day after."""
        return np.flatnonzero(self.world.products.launched <= self.dials.days)

    def popular(self, market: int, first: int) -> Ints:
        """Return a market's products with the highest smoothed CTR, ``[first]``."""
        return np.asarray(self.on_sale[np.argsort(-self.item_ctr[market, self.on_sale])[:first]])

    def judge_lists(self, lists: pa.Table, first: int = 20) -> list[ListFigures]:
        """Judge the first items of lists; markets in their order, then ``all``, weighted by users.

        Args:
            lists: ``domain_id``, ``user_id``, ``item_id`` and ``position`` from 1, as published.
            first: how many items of each list count.

        Raises:
            DataError: the lists are empty, or hold a user, an item or a domain that the shop doesn't have.
        """
        lists = lists.filter(pc.less_equal(lists[POSITION], first))
        if not lists.num_rows:
            raise DataError("lists", "no rows")
        customers, products = self.world.customers.id, self.world.products.id
        markets = np.array([market.name for market in MARKETS])
        customer, product, market = (
            _places(ids, lists[column].combine_chunks(), column)
            for ids, column in ((customers, USER_ID), (products, ITEM_ID), (markets, DOMAIN_ID))
        )
        leads = lists[POSITION].to_numpy() == 1
        figures = []
        for number in np.unique(market):
            here = market == number
            figures.append(self._judge(int(number), customer[here], product[here], leads[here], first))
        return [*figures, total(figures)]

    def _judge(self, market: int, customer: Ints, product: Ints, leads: Floats, first: int) -> ListFigures:
        users, day = np.unique(customer), self.dials.days
        popular = self.popular(market, first)
        best = common = 0.0
        for start in range(0, len(users), _BLOCK):
            block = users[start : start + _BLOCK]
            true = self.world.grid(block, self.on_sale, market, day)
            best += np.partition(true, -first, axis=1)[:, -first:].mean(1).sum()
            common += self.world.grid(block, popular, market, day).mean(1).sum()
        place, time = np.full(len(product), market), np.full(len(product), day)
        return ListFigures(
            market=MARKETS[market].name,
            users=len(users),
            true_ctr=float(self.world.probability(customer, product, place, time).mean()),
            popular_ctr=float(common / len(users)),
            best_ctr=float(best / len(users)),
            same_first=float(np.bincount(product[leads]).max() / leads.sum()),
            items=len(np.unique(product)),
        )


def total(figures: Sequence[ListFigures]) -> ListFigures:
    """Return the figures of all markets, weighted by users; ``items`` is the most of any market."""
    users = [found.users for found in figures]
    means = {
        name: float(np.average([getattr(found, name) for found in figures], weights=users))
        for name in ("true_ctr", "popular_ctr", "best_ctr", "same_first")
    }
    return ListFigures(market="all", users=sum(users), items=max(found.items for found in figures), **means)


def _places(ids: np.ndarray, column: pa.Array, name: str) -> Ints:
    places = pc.index_in(column.cast(pa.string()), pa.array(ids))
    if places.null_count:
        strange = column.filter(pc.is_null(places))[0]
        raise DataError("lists", f"{places.null_count} rows have no {name} of this shop, e.g. {strange}")
    return np.asarray(places.to_numpy(), np.int64)
