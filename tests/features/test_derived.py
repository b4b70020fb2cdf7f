from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmlora.features.built import built_files
from mmlora.features.columns import analyse
from mmlora.features.derived import FEWEST, Derived, decide, load, rank_within, refresh

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
START = datetime(2025, 1, 1, tzinfo=UTC)
TIMES = pa.timestamp("us", tz="UTC")
DAY = 86_400_000_000


def write(offline: Path, rows: list[tuple], name: str = "0") -> None:
    """Write item versions: id, valid from, known from, price, category."""
    folder = offline / "profiles" / "item"
    folder.mkdir(parents=True, exist_ok=True)
    ids, events, created, prices, categories = zip(*rows, strict=True)
    table = {
        "item_id": list(ids),
        "event_timestamp": pa.array(events, TIMES),
        "created_timestamp": pa.array(created, TIMES),
        "price": pa.array(prices, pa.float64()),
        "category": list(categories),
    }
    pq.write_table(pa.table(table), folder / f"{name}.parquet")


def read(offline: Path) -> list[dict]:
    (file,) = built_files(offline / "derived" / "item")
    return pq.read_table(file).to_pylist()


def brute(prices: np.ndarray, category: np.ndarray, moments: np.ndarray) -> np.ndarray:
    rank = np.full(len(prices), np.nan)
    for n in np.flatnonzero((category >= 0) & ~np.isnan(prices)):
        known = (moments // DAY < moments[n] // DAY) | (moments == moments[n])
        of = prices[known & (category == category[n]) & ~np.isnan(prices)]
        if len(of) >= FEWEST:
            rank[n] = ((of < prices[n]).sum() + (of <= prices[n]).sum()) / (2 * len(of))
    return rank


def test_a_price_is_ranked_among_prices_known_by_its_day():
    rng = np.random.default_rng(3)
    moments = np.sort(rng.integers(0, 20, 400) * DAY + rng.choice([0, 0, 1, 2, 3], 400) * 1000)
    prices = np.where(rng.random(400) < 0.1, np.nan, rng.integers(1, 30, 400))
    category = rng.integers(-1, 3, 400)
    found = rank_within(prices, category, moments)
    np.testing.assert_allclose(found, brute(prices, category, moments))
    assert np.nanmin(found) > 0 and np.nanmax(found) < 1
    later = moments >= 10 * DAY
    again = rank_within(np.where(later, 1000.0, prices), category, moments)
    np.testing.assert_array_equal(found[~later], again[~later])


def interact(offline: Path, moments: dict[int, datetime]) -> None:
    folder = offline / "interactions" / "day=2025-01-01"
    folder.mkdir(parents=True, exist_ok=True)
    table = {"item_id": list(moments), "event_timestamp": pa.array(list(moments.values()), TIMES)}
    pq.write_table(pa.table(table), folder / "0.parquet")


def test_ranks_and_first_dates_follow_the_profiles(tmp_path):
    interact(tmp_path, {0: START + timedelta(days=50)})
    dated = [
        (n, START + timedelta(days=n // 20), START + timedelta(days=n // 20), 2.0**n, "abc"[n % 3])
        for n in range(400)
    ]
    write(tmp_path, dated)
    columns = analyse(tmp_path)
    wanted = decide(tmp_path, columns)
    assert wanted == [
        Derived("item", "price_rank", "price", "category"),
        Derived("item", "known_since"),
    ]
    refresh(tmp_path, wanted)
    assert load(tmp_path) == wanted
    rows = {row["item_id"]: row for row in read(tmp_path)}
    assert rows[0]["price_rank"] is None, "too few others"
    assert rows[399]["price_rank"] > 0.98 and rows[399]["known_since"] == dated[399][1]

    now = START + timedelta(days=100)
    write(tmp_path, [(399, now, now, 0.5, "a"), (7, EPOCH, now, 1.0, "a")], name="1")
    refresh(tmp_path)
    again = {(row["item_id"], row["event_timestamp"]): row for row in read(tmp_path)}
    assert len(again) == 402
    changed = again[399, now]
    assert changed["price_rank"] < 0.01 and changed["known_since"] == dated[399][1]
    assert again[399, dated[399][1]]["price_rank"] == rows[399]["price_rank"], "the past stays"
    assert again[7, EPOCH]["known_since"] is None

    assert decide(tmp_path, []) == wanted, "what a model may read stays"


def test_undated_profiles_have_no_age_and_uncategorised_items_no_rank(tmp_path):
    interact(tmp_path, {0: START})
    write(tmp_path, [(n, EPOCH, EPOCH, float(n), "a") for n in range(50)])
    assert decide(tmp_path, analyse(tmp_path)) == []
    refresh(tmp_path, [])
    assert not (tmp_path / "derived").exists()


def test_versions_from_the_first_interaction_have_no_date(tmp_path):
    moments = {n: START + timedelta(hours=n) for n in range(60)}
    interact(tmp_path, moments)
    write(tmp_path, [(n, moments[n], moments[n], 1.0, "a") for n in range(60)])
    assert decide(tmp_path, []) == []
    moments |= dict.fromkeys(range(40), START + timedelta(days=90))
    interact(tmp_path, moments)
    assert decide(tmp_path, []) == [Derived("item", "known_since")]
