"""A workspace of the made-up shop that receives a day's interactions at a time, for planting faults in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmlora.data.shop import START, Impressions, ShopDials, draw_impressions
from mmlora.data.shop_files import _interactions, _items, _write_users
from mmlora.data.shop_world import Customers, Preferences, Products, ShopWorld
from mmlora.pipeline.data import import_tables

DAYS, HISTORY = 110, 45
USERS, ITEMS, SCALE = 1500, 300, 0.55
FIRST = date.fromisoformat(str(START))
Edit = Callable[[pa.Table], pa.Table]


@dataclass(frozen=True)
class Shop:
    """The shop's world and its impressions of :data:`DAYS` days, sorted by day."""

    world: ShopWorld
    rows: Impressions
    table: pa.Table

    def day(self, number: int) -> pa.Table:
        """Return the interactions of a day, counted from 0."""
        first, last = np.searchsorted(self.rows.day, [number, number + 1])
        return self.table.slice(first, last - first)


@cache
def shop(seed: int = 1) -> Shop:
    """Draw the shop: its own world with fewer users and items, so that a night takes seconds."""
    dials = ShopDials(seed=seed, scale=SCALE, days=DAYS)
    streams = [np.random.default_rng([seed, stream]) for stream in range(3)]
    world = ShopWorld(
        customers=Customers.draw(streams[0], USERS),
        products=Products.draw(streams[1], ITEMS, DAYS),
        preferences=Preferences.draw(streams[2]),
    )
    rows = draw_impressions(world, dials)
    return Shop(world, rows, _interactions(world, rows))


def date_of(number: int) -> date:
    """Return the date of a day, counted from 0."""
    return FIRST + timedelta(days=number)


def deliver(folder: Path, number: int, edit: Edit | None = None) -> None:
    """Import a day's interactions, as a file, after an edit."""
    table = shop().day(number)
    file = folder / f"{date_of(number)}.parquet"
    pq.write_table(edit(table) if edit else table, file)
    import_tables(file)


def deliver_items(folder: Path, edit: Edit, number: int) -> None:
    """Import the item profiles, as of a day, after an edit."""
    items = edit(_items(shop().world.products).drop_columns("event_timestamp"))
    when = pa.array([f"{date_of(number)}T00:00:00Z"] * items.num_rows)
    pq.write_table(items.append_column("event_timestamp", when), folder / "items.parquet")
    import_tables(items=folder / "items.parquet")


def deliver_users(folder: Path, edit: Edit, number: int) -> None:
    """Import the user profiles, as of a day, after an edit."""
    import pyarrow.csv as csv

    _write_users(shop().world.customers, folder / "users.csv")
    users = edit(csv.read_csv(folder / "users.csv"))
    when = pa.array([f"{date_of(number)}T00:00:00Z"] * users.num_rows)
    csv.write_csv(users.append_column("event_timestamp", when), folder / "users.csv")
    import_tables(users=folder / "users.csv")


def add_answers(home: Path) -> None:
    """Add a feature that tells, from just before each impression of a user, what came of it."""
    shown = shop().table
    before = pc.subtract(shown["event_timestamp"], pa.scalar(timedelta(milliseconds=1)))
    before = before.cast(shown["event_timestamp"].type)
    answer = pc.cast(shown["label"], pa.float32())
    answers = pa.table({"user_id": shown["user_id"], "answer": answer, "event_timestamp": before})
    pq.write_table(answers.append_column("created_timestamp", before), home / "answers.parquet")
    (home / "feature_repo").mkdir()
    (home / "feature_repo" / "answers.py").write_text(_ANSWERS.format(path=home / "answers.parquet"))


_ANSWERS = """
from feast import FeatureView, Field, FileSource
from feast.data_format import ParquetFormat
from feast.types import Float32

def views(offline, entities):
    source = FileSource(
        name="answers",
        path="{path}",
        file_format=ParquetFormat(),
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    )
    fields = [Field(name="answer", dtype=Float32)]
    tags = {{"mmlora": "input"}}
    return [
        FeatureView(
            name="answers", entities=[entities["user"]], schema=fields, source=source, online=False, tags=tags
        )
    ]
"""


def make_history(folder: Path) -> None:
    """Import the days of the history, and the profiles."""
    folder.mkdir(parents=True, exist_ok=True)
    world, rows = shop().world, shop().rows
    count = int(np.searchsorted(rows.day, HISTORY))
    pq.write_table(shop().table.slice(0, count), folder / "history.parquet")
    _write_users(world.customers, folder / "users.csv")
    pq.write_table(_items(world.products), folder / "items.parquet")
    import_tables(folder / "history.parquet", users=folder / "users.csv", items=folder / "items.parquet")


def use(home: Path) -> None:
    """Make a folder the workspace of this process."""
    os.environ["MMLORA_HOME"] = str(home)


def copy(home: Path, to: Path) -> Path:
    """Copy a workspace, and use the copy."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(home, to)
    use(to)
    return to
