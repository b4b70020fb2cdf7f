"""Forty faults, planted one at a time in a healthy workspace before a night; see docs/quality.md.

Faults with odd numbers were used to choose thresholds and severities, those with even numbers to judge them.
The order, and so the division, was fixed before any threshold was chosen.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tests.quality.planted_models import empty_vocabulary, random_weights
from tests.quality.shop_nights import (
    HISTORY,
    Edit,
    add_answers,
    date_of,
    deliver,
    deliver_items,
    deliver_users,
    shop,
)

NIGHT = HISTORY + 5
"""The night that is scored; the fault is in the deliveries of the day before it."""
DAY = NIGHT - 1


@dataclass(frozen=True)
class Fault:
    """A fault.

    Attributes:
        name: what is wrong, in a few words.
        plant: plants it, given a scratch folder and the workspace's home; delivers the day too.
        checks: the checks that keep the domain from being published, at least. Without any, and without a
            refusal, the fault is missed, or heals.
        refusal: what the error says that refuses the delivery or the model.
        domain: a domain that it spoils, which is then scored.
        options: options of `score`.
        environment: settings of the faulty night.
    """

    name: str
    plant: Callable[[Path, Path], None]
    checks: tuple[str, ...] = ()
    refusal: str = ""
    domain: str = "us"
    options: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


def _generator() -> np.random.Generator:
    """Return a generator for one fault, so that what it plants doesn't depend on the faults before it."""
    return np.random.default_rng(5)


def _day(edit: Edit) -> Callable[[Path, Path], None]:
    return lambda folder, home: deliver(folder, DAY, edit)


def _set(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def _where(table: pa.Table, name: str, rows: Any, other: Any) -> pa.Table:
    """Replace a column's values in some rows."""
    return _set(table, name, pc.if_else(rows, other, table[name]))


def _of(table: pa.Table, domain: str) -> Any:
    return pc.equal(table["domain_id"], domain)


def _hours(table: pa.Table) -> Any:
    return pc.hour(table["event_timestamp"])


def _swap_ids(table: pa.Table) -> pa.Table:
    return table.rename_columns({"user_id": "item_id", "item_id": "user_id"})


def _flip(table: pa.Table) -> pa.Table:
    flipped = pc.cast(pc.subtract(pa.scalar(1, pa.int8()), table["label"]), pa.int8())
    return _where(table, "label", _of(table, "de"), flipped)


def _twice(table: pa.Table) -> pa.Table:
    later = pc.add(table["event_timestamp"], pa.scalar(timedelta(milliseconds=700)))
    return pa.concat_tables(
        [table, _set(table, "event_timestamp", later.cast(table["event_timestamp"].type))]
    )


def _shuffle_users(table: pa.Table) -> pa.Table:
    order = pa.array(_generator().permutation(table.num_rows))
    return _set(table, "user_id", table["user_id"].take(order))


def _yesterday_again(table: pa.Table) -> pa.Table:
    before = shop().day(DAY - 1)
    later = pc.add(before["event_timestamp"], pa.scalar(timedelta(days=1)))
    return _set(before, "event_timestamp", later.cast(before["event_timestamp"].type))


def _half_at_random(table: pa.Table) -> pa.Table:
    return table.filter(pa.array(_generator().random(table.num_rows) < 0.5))


def _swap_domains(table: pa.Table) -> pa.Table:
    us, de = _of(table, "us"), _of(table, "de")
    domain = pc.if_else(us, "de", pc.if_else(de, "us", table["domain_id"]))
    return _set(table, "domain_id", domain)


def _hot_user(table: pa.Table) -> pa.Table:
    of_us, rng = table.filter(_of(table, "us")), _generator()
    bot = of_us.take(pa.array(rng.integers(0, of_us.num_rows, 600)))
    moment = date_of(DAY)
    times = np.datetime64(moment, "us") + rng.integers(0, 86_400_000_000, 600)
    bot = _set(bot, "user_id", pa.array([of_us["user_id"][0].as_py()] * 600))
    bot = _set(bot, "event_timestamp", pa.array(times).cast(table["event_timestamp"].type))
    return pa.concat_tables([table, bot])


def _default_user(table: pa.Table) -> pa.Table:
    rows = pa.array(_generator().random(table.num_rows) < 0.4)
    return _where(table, "user_id", rows, shop().world.customers.id[0].item())


def _later(hours: int) -> Edit:
    def edit(table: pa.Table) -> pa.Table:
        moved = pc.add(table["event_timestamp"], pa.scalar(timedelta(hours=hours)))
        return _set(table, "event_timestamp", moved.cast(table["event_timestamp"].type))

    return edit


def _no_day(folder: Path, home: Path) -> None:
    """Deliver nothing."""


def _late(folder: Path, home: Path) -> None:
    """Deliver the day's second half only, with the half that the day before lacked."""
    deliver(folder, DAY, lambda table: table.filter(pc.greater_equal(_hours(table), 12)))


def _items(edit: Edit) -> Callable[[Path, Path], None]:
    def plant(folder: Path, home: Path) -> None:
        deliver(folder, DAY)
        deliver_items(folder, edit, DAY)

    return plant


def _users(edit: Edit) -> Callable[[Path, Path], None]:
    def plant(folder: Path, home: Path) -> None:
        deliver(folder, DAY)
        deliver_users(folder, edit, DAY)

    return plant


def _zero_vectors(table: pa.Table) -> pa.Table:
    zeros = [np.zeros(16, np.float32)] * table.num_rows
    return _set(table, "embedding", pa.array(zeros, table["embedding"].type))


def _permuted_vectors(table: pa.Table) -> pa.Table:
    order = pa.array(_generator().permutation(table.num_rows))
    return _set(table, "embedding", table["embedding"].take(order))


def _stale_features(folder: Path, home: Path) -> None:
    """Have the state of the features say that they are built, though they are those of the night before."""
    deliver(folder, DAY)
    state = home / "offline" / "features" / "state.json"
    kept = json.loads(state.read_text())
    kept["through"] = date_of(NIGHT).isoformat()
    state.write_text(json.dumps(kept))


def _pairs(folder: Path, home: Path) -> None:
    deliver(folder, DAY)
    day = shop().day(DAY - 1)
    few = day.filter(_of(day, "us")).slice(0, 12).select(["user_id", "item_id"])
    pq.write_table(few, home / "pairs.parquet")


def _cut_catalogue(folder: Path, home: Path) -> None:
    deliver(folder, DAY)
    ids = shop().world.products.id[:60]
    table = {
        "item_id": ids,
        "domain_id": ["us"] * 60,
        "from": ["2026-01-01T00:00:00Z"] * 60,
        "until": ["2027-01-01T00:00:00Z"] * 60,
    }
    pq.write_table(pa.table(table), home / "stock.parquet")


def _changed_bundle(change: Callable[[Any, Any], Any]) -> Callable[[Path, Path], None]:
    """Promote a copy of the champion with another manifest."""

    def plant(folder: Path, home: Path) -> None:
        from mmlora.pipeline.promote import promote
        from mmlora.workspace import open_workspace

        deliver(folder, DAY)
        workspace = open_workspace()
        with workspace.open_warehouse() as warehouse:
            bundle = workspace.bundles.load(str(warehouse.current("champion", "us")))
        version = workspace.bundles.save(change(workspace, bundle.manifest))
        promote(version, accept_below_baseline=True)

    return plant


def _trained_on_answers(folder: Path, home: Path) -> None:
    """Train a model that reads what came of each impression, as if it had been known before."""
    from mmlora.pipeline.features import build_features
    from mmlora.pipeline.promote import promote
    from mmlora.pipeline.train import train

    add_answers(home)
    build_features(date_of(HISTORY))
    promote(train(date_of(HISTORY), adaptation="none").model_version)
    deliver(folder, DAY)


FAULTS: tuple[Fault, ...] = (
    Fault(
        "the label column is dropped",
        _day(lambda t: t.drop_columns("label")),
        refusal="column 'label': missing",
    ),
    Fault(
        "the user column is dropped",
        _day(lambda t: t.drop_columns("user_id")),
        refusal="column 'user_id': missing",
    ),
    Fault("user and item ids are swapped", _day(_swap_ids), checks=("new_users", "new_items")),
    Fault(
        "user ids are written in another way",
        _day(lambda t: _set(t, "user_id", pc.utf8_upper(t["user_id"]))),
        checks=("new_users",),
    ),
    Fault(
        "item ids are written in another way",
        _day(lambda t: _set(t, "item_id", pc.replace_substring(t["item_id"], "SKU-", "sku"))),
        checks=("new_items",),
    ),
    Fault("users are shuffled among rows", _day(_shuffle_users)),
    Fault("every row is logged twice, 0.7 s apart", _day(_twice), checks=("repeated_pairs",)),
    Fault(
        "yesterday's rows come again under today's date", _day(_yesterday_again), checks=("repeated_pairs",)
    ),
    Fault("labels are flipped in one domain", _day(_flip), domain="de", checks=("label_rate_change",)),
    Fault(
        "no clicks are joined to the rows",
        _day(lambda t: _set(t, "label", pa.array(np.zeros(len(t), np.int8)))),
        checks=("label_rate_change_all",),
    ),
    Fault(
        "every row of one domain is a click",
        _day(lambda t: _where(t, "label", _of(t, "de"), pa.scalar(1, pa.int8()))),
        domain="de",
        checks=("label_rate_change",),
    ),
    Fault(
        "half a day is delivered",
        _day(lambda t: t.filter(pc.less(_hours(t), 12))),
        checks=("quiet_day", "missing_hours"),
    ),
    Fault("half of the rows are lost at random", _day(_half_at_random), checks=("quiet_day",)),
    Fault(
        "a domain is missing",
        _day(lambda t: t.filter(pc.invert(_of(t, "fr")))),
        domain="fr",
        checks=("silence",),
    ),
    Fault(
        "a domain is renamed",
        _day(lambda t: _where(t, "domain_id", _of(t, "de"), "germany")),
        domain="de",
        checks=("silence",),
    ),
    Fault("two domains are swapped", _day(_swap_domains), checks=("quiet_day",)),
    Fault("one hot user", _day(_hot_user), checks=("busiest_user",)),
    Fault("a default user id in 40% of the rows", _day(_default_user), checks=("busiest_user",)),
    Fault("times are five hours late: another time zone", _day(_later(5)), checks=("missing_hours",)),
    Fault("times are five hours early: another time zone", _day(_later(-5)), checks=("missing_hours",)),
    Fault(
        "times are read in another unit: 1970",
        _day(
            lambda t: _set(
                t, "event_timestamp", pc.divide(t["event_timestamp"].cast(pa.int64()), 1_000_000_000)
            )
        ),
        checks=("silence",),
    ),
    Fault(
        "times are cut to the day",
        _day(lambda t: _set(t, "event_timestamp", pc.floor_temporal(t["event_timestamp"], unit="day"))),
        refusal="the same user, item, domain and time with labels 0 and 1",
    ),
    Fault("a day is missing in all domains", _no_day, checks=("silence",)),
    Fault("half a day is delivered, the later half", _late, checks=("quiet_day", "missing_hours")),
    Fault(
        "user ids are missing in some rows",
        _day(
            lambda t: _where(
                t, "user_id", pa.array(np.arange(len(t)) % 50 == 0), pa.scalar(None, pa.string())
            )
        ),
        refusal="null in user_id",
    ),
    Fault(
        "labels are shares, not 0 or 1",
        _day(lambda t: _set(t, "label", pa.array(np.full(len(t), 0.4)))),
        refusal="not 0 or 1",
    ),
    Fault(
        "prices are in cents",
        _items(lambda t: _set(t, "price", pc.multiply(t["price"], 100.0))),
        checks=("feature_shift",),
    ),
    Fault(
        "prices are missing",
        _items(lambda t: _set(t, "price", pa.nulls(t.num_rows, pa.float64()))),
        checks=("feature_missing",),
    ),
    Fault(
        "categories are written in another way",
        _items(lambda t: _set(t, "category", pc.utf8_upper(t["category"]))),
        checks=("feature_unknown", "feature_shift"),
    ),
    Fault(
        "the category column is dropped",
        _items(lambda t: t.drop_columns("category")),
        checks=("feature_missing",),
    ),
    Fault("item vectors are all zero", _items(_zero_vectors), checks=("feature_shift", "vector_change")),
    Fault("item vectors are given to other items", _items(_permuted_vectors), checks=("vector_change",)),
    Fault(
        "age bands are coded anew",
        _users(lambda t: _set(t, "age_band", pc.replace_substring(t["age_band"], "-", " to "))),
        checks=("feature_unknown", "feature_shift"),
    ),
    Fault(
        "loyalty points are in thousandths",
        _users(lambda t: _set(t, "loyalty_points", pc.multiply(t["loyalty_points"], 1000.0))),
        checks=("feature_shift",),
    ),
    Fault("features are not built, though the state says so", _stale_features),
    Fault("a vocabulary is empty", _changed_bundle(empty_vocabulary), refusal="it is worse in all domains"),
    Fault("a pair table with a few users", _pairs, options={"pairs": "pairs.parquet"}, checks=("size",)),
    Fault(
        "the stock table has a fifth of the items",
        _cut_catalogue,
        environment={"MMLORA_CANDIDATES__STOCK": "stock.parquet"},
        checks=("candidate_items",),
    ),
    Fault("a model that has seen its labels", _trained_on_answers, checks=("test_auc", "recent_auc")),
    Fault(
        "a model with its weights in another order",
        _changed_bundle(random_weights),
        refusal="it is worse in all domains",
    ),
)
