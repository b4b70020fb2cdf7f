"""The made-up shop's files, as a shop would export them, and what is kept aside for judging.

::

    interactions/DATE.parquet    a file a day
    users.csv                    gaps, a date, and a list in a cell
    items.parquet                a price, tags, a vector, and from when the product is shown
    next_day.parquet             the impressions of the day after, kept aside
    truth.parquet                the true click probability of all of these rows, kept aside

Importing reads the first three as it reads anybody's files. Nothing that trains or scores reads the others.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmlora.data.shop import START, Impressions, ShopDials, draw_impressions, make_world
from mmlora.data.shop_world import AGE_BANDS, CATEGORIES, MARKETS, Customers, Products, ShopWorld
from mmlora.schema import DOMAIN_ID, EVENT_TIMESTAMP, ITEM_ID, LABEL, TIMESTAMP, USER_ID


@dataclass(frozen=True)
class ShopFiles:
    """Where the files of a shop lie.

    Attributes:
        folder: of all of them.
        as_of: the first day that is not in ``interactions``: the date of ``next_day``.
    """

    folder: Path
    as_of: date

    @property
    def interactions(self) -> Path:
        """A folder of Parquet files."""
        return self.folder / "interactions"

    @property
    def users(self) -> Path:
        """User profiles."""
        return self.folder / "users.csv"

    @property
    def items(self) -> Path:
        """Item profiles."""
        return self.folder / "items.parquet"

    @property
    def next_day(self) -> Path:
        """Interactions of the day after."""
        return self.folder / "next_day.parquet"

    @property
    def truth(self) -> Path:
        """The interactions' key and ``probability``, the next day's too."""
        return self.folder / "truth.parquet"


def write_shop(folder: Path, dials: ShopDials) -> ShopFiles:
    """Make a shop and write its files.

    Raises:
        UsageError: a dial is out of range.
    """
    world = make_world(dials)
    rows = draw_impressions(world, dials)
    files = ShopFiles(folder, date.fromisoformat(str(START)) + timedelta(days=dials.days))
    table = _interactions(world, rows)
    files.interactions.mkdir(parents=True, exist_ok=True)
    bounds = np.searchsorted(rows.day, np.arange(dials.days + 2))
    for day in range(dials.days):
        of_day = table.slice(bounds[day], bounds[day + 1] - bounds[day])
        pq.write_table(of_day, files.interactions / f"{START + day}.parquet")
    pq.write_table(table.slice(bounds[dials.days]), files.next_day)
    truth = table.drop_columns(LABEL).append_column("probability", pa.array(rows.probability))
    pq.write_table(truth, files.truth)
    _write_users(world.customers, files.users)
    pq.write_table(_items(world.products), files.items)
    return files


def _interactions(world: ShopWorld, rows: Impressions) -> pa.Table:
    moment = START.astype("datetime64[ms]") + (rows.day * 86_400_000 + rows.ms)
    names = pa.array([market.name for market in MARKETS])
    return pa.table(
        {
            USER_ID: pa.array(world.customers.id).take(pa.array(rows.customer)),
            ITEM_ID: pa.array(world.products.id).take(pa.array(rows.product)),
            DOMAIN_ID: names.take(pa.array(rows.market)),
            EVENT_TIMESTAMP: pa.array(moment.astype("datetime64[us]"), TIMESTAMP),
            LABEL: rows.label,
        }
    )


def _write_users(customers: Customers, path: Path) -> None:
    columns = ("user_id", "country", "age_band", "signup_date", "loyalty_points", "interests")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for n, customer in enumerate(customers.id):
            age = AGE_BANDS[customers.age[n]] if customers.age_told[n] else ""
            points = customers.points[n] if customers.points_told[n] else ""
            likes = json.dumps([CATEGORIES[c] for c in np.flatnonzero(customers.interests[n])])
            country = MARKETS[customers.market[n]].name.upper()
            writer.writerow([customer, country, age, START - customers.joined[n], points, likes])


def _items(products: Products) -> pa.Table:
    launched = (START + products.launched).astype("datetime64[us]")
    tags = [[f"tag{t:02d}" for t in np.flatnonzero(row)] for row in products.tags]
    return pa.table(
        {
            "item_id": products.id,
            "category": np.array(CATEGORIES)[products.category],
            "brand": [f"brand {number:03d}" for number in products.brand],
            "price": products.price,
            "embedding": pa.array(list(products.shown_vector), pa.list_(pa.float32())),
            "tags": pa.array(tags, pa.list_(pa.string())),
            EVENT_TIMESTAMP: pa.array(launched, TIMESTAMP),
        }
    )
