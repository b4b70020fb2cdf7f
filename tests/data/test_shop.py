"""The made-up shop: what is drawn, written, imported and kept aside, and lists judged by the truth."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from mmlora.data.shop import ShopDials, draw_impressions, make_world
from mmlora.data.shop_truth import ShopTruth
from mmlora.data.shop_world import MARKETS
from mmlora.data.store import OfflineStore
from mmlora.errors import DataError, UsageError
from mmlora.metrics import domain_metrics
from mmlora.pipeline.data import import_shop
from mmlora_cli.main import app

SMALL = ShopDials(scale=0.05)
KEY = ["user_id", "item_id", "domain_id", "event_timestamp"]
NAMES = [market.name for market in MARKETS]


@pytest.fixture(scope="module")
def truth() -> ShopTruth:
    return ShopTruth.make(SMALL)


def _lists(truth: ShopTruth, market: int, customers: list[int], products: np.ndarray) -> pa.Table:
    """Return lists of given products, ``[customers, first]``."""
    first = products.shape[1]
    return pa.table(
        {
            "domain_id": [NAMES[market]] * products.size,
            "user_id": np.repeat(truth.world.customers.id[customers], first),
            "item_id": truth.world.products.id[products.ravel()],
            "position": np.tile(np.arange(1, first + 1), len(customers)),
        }
    )


def test_the_same_seed_gives_the_same_shop_and_another_one_another(truth: ShopTruth) -> None:
    again = draw_impressions(make_world(SMALL), SMALL)
    assert all((getattr(again, name) == getattr(truth.impressions, name)).all() for name in vars(again))
    other = make_world(ShopDials(seed=2, scale=0.05))
    assert not (other.products.price == truth.world.products.price).all()


def test_labels_follow_the_true_probability(truth: ShopTruth) -> None:
    rows = truth.impressions
    error = np.sqrt((rows.probability * (1 - rows.probability)).mean() / len(rows.label))
    assert abs(rows.label.mean() - rows.probability.mean()) < 4 * error
    grid = truth.world.grid(rows.customer[:9], rows.product[:9], 3, 60)
    one_by_one = truth.world.probability(
        rows.customer[:9], rows.product[:9], np.full(9, 3), np.full(9, SMALL.days)
    )
    np.testing.assert_allclose(np.diag(grid), one_by_one)


def test_the_task_is_about_as_hard_as_it_is_said_to_be() -> None:
    dials = ShopDials()
    rows = draw_impressions(make_world(dials), dials)
    found = domain_metrics(rows.label, rows.probability, rows.market)
    assert found.wauc == pytest.approx(0.865, abs=0.015)
    assert 0.02 < rows.label.mean() < 0.05
    assert np.bincount(rows.market).tolist() == [market.rows for market in MARKETS]


def test_products_are_shown_once_launched_and_markets_open_and_close(truth: ShopTruth) -> None:
    rows = truth.impressions
    assert (truth.world.products.launched[rows.product] <= rows.day).all()
    day = {name: rows.day[rows.market == NAMES.index(name)] for name in ("us", "at", "pt")}
    assert (day["us"].min(), day["us"].max()) == (0, 60)
    assert day["at"].max() < 40
    assert day["pt"].min() >= 50
    assert (np.diff(rows.day * 86_400_000 + rows.ms) >= 0).all()


def test_the_import_takes_the_days_and_keeps_the_next_and_the_truth_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMLORA_HOME", str(tmp_path / "var"))
    shown = CliRunner().invoke(app, ["data", "shop", "--scale", "0.02", "--days", "12", "--json"])
    report = json.loads(shown.stdout)
    assert report["as_of"] == "2026-01-13"
    store = OfflineStore(tmp_path / "var" / "offline")
    assert sorted(store.days()) == [date(2026, 1, day) for day in range(1, 13)]
    assert store.domains() == sorted(NAMES)
    next_day, kept = pq.read_table(report["next_day"]), pq.read_table(report["truth"])
    assert {moment.date() for moment in next_day["event_timestamp"].to_pylist()} == {date(2026, 1, 13)}
    assert kept.column_names == [*KEY, "probability"]
    assert kept.num_rows == report["interactions"] + next_day.num_rows
    assert kept.slice(report["interactions"]).select(KEY).equals(next_day.select(KEY))

    assert import_shop(scale=0.02, days=12).unchanged == report["interactions"]
    with pytest.raises(UsageError, match="holds other data"):
        import_shop(scale=0.02, days=12, seed=2)
    opened = ShopTruth.open(tmp_path / "var" / "shop")
    np.testing.assert_array_equal(opened.impressions.probability, kept["probability"].to_numpy())


@pytest.mark.parametrize(
    ("dials", "fault"),
    [(ShopDials(seed=-1), "seed -1"), (ShopDials(scale=0.0), "scale 0.0"), (ShopDials(days=5), "days 5")],
)
def test_dials_out_of_range_are_refused(dials: ShopDials, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        make_world(dials)


def test_a_folder_without_a_shop_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="run `mmlora data shop` first"):
        ShopTruth.open(tmp_path)


def test_the_best_lists_are_the_best_and_popular_ones_are_all_alike(truth: ShopTruth) -> None:
    customers, market = [3, 5, 8], 1
    grid = truth.world.grid(np.array(customers), truth.on_sale, market, SMALL.days)
    best = truth.on_sale[np.argsort(-grid, axis=1)[:, :20]]
    popular = np.tile(truth.popular(market, 20), (3, 1))
    (of_best, _), (of_popular, _) = (
        truth.judge_lists(_lists(truth, market, customers, products)) for products in (best, popular)
    )
    assert of_best.of_best == pytest.approx(1)
    assert of_popular.true_ctr == pytest.approx(of_popular.popular_ctr)
    assert of_popular.popular_ctr == of_best.popular_ctr < of_best.best_ctr
    assert (of_popular.same_first, of_popular.items, of_popular.users) == (1.0, 20, 3)


def test_all_markets_together_are_weighted_by_users_and_only_first_items_count(truth: ShopTruth) -> None:
    market = [_lists(truth, 0, [1, 2, 3], np.tile(truth.popular(0, 20), (3, 1)))]
    market.append(_lists(truth, 2, [4], truth.popular(2, 20)[None]))
    lists = pa.concat_tables(market)
    us, uk, together = truth.judge_lists(lists, first=5)
    assert [us.market, uk.market, together.market] == ["us", "uk", "all"]
    assert together.true_ctr == pytest.approx((3 * us.true_ctr + uk.true_ctr) / 4)
    assert us.items == 5


def test_lists_of_another_shop_are_refused(truth: ShopTruth) -> None:
    lists = _lists(truth, 0, [1], truth.popular(0, 3)[None])
    strange = lists.set_column(1, "user_id", pa.array(["u_?"] * 3))
    with pytest.raises(DataError, match="3 rows have no user_id of this shop"):
        truth.judge_lists(strange)
    with pytest.raises(DataError, match="no rows"):
        truth.judge_lists(lists.slice(0, 0))
