"""Each part of a policy by itself: what stays, what goes, and how the rest is counted."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmlora.candidates.policy import Policy, differences
from mmlora.candidates.tables import recorded
from mmlora.errors import DataError, UsageError
from mmlora.load_checks import Unknown
from mmlora.schema import TIMESTAMP
from tests.candidates.made_up import D, at, pairs, removed, row, select, write

PAST = datetime(2000, 1, 1, tzinfo=UTC)


def write_profiles(offline: Path, entity: str = "item", **columns: Any) -> Path:
    """Profiles valid since long ago, unless a column says otherwise."""
    rows = len(next(iter(columns.values())))
    times = {name: pa.array([PAST] * rows, TIMESTAMP) for name in ("event_timestamp", "created_timestamp")}
    folder = offline / "profiles" / entity
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({**times, **columns}), folder / f"{len(list(folder.iterdir()))}.parquet")
    return offline


def items(offline: Path, **policy: Any) -> list[Any]:
    return list(select(offline, **policy).candidates.items.to_pylist())


@pytest.fixture
def offline(tmp_path: Path) -> Path:
    """User 1 is active in a and clicked 10 of late, 11 long ago and 12 in b, and was shown 13."""
    return write(
        tmp_path / "offline",
        [
            row(1, 10, -3),
            row(1, 11, -40),
            row(1, 12, -3, domain="b"),
            row(1, 13, -3, label=0),
            row(2, 14, -50),
            row(3, 15, -3, domain="b"),
        ],
    )


@pytest.mark.parametrize(
    ("policy", "left_out"),
    [
        ({}, {10}),
        ({"exclude_in": "all"}, {10, 12}),
        ({"exclude_days": 0}, {10, 11}),
        ({"exclude_days": 2}, set()),
        ({"exclude": "seen"}, {10, 13}),
        ({"exclude": "seen", "exclude_days": 0, "exclude_in": "all"}, {10, 11, 12, 13}),
        ({"exclude": "none"}, set()),
    ],
)
def test_seen_items_are_left_out(offline: Path, policy: dict[str, Any], left_out: set[int]) -> None:
    selection = select(offline, **policy)
    assert pairs(selection.candidates) == {(1, item) for item in {10, 11, 12, 13, 14, 15} - left_out}
    counts = {what: count for what, count in removed(selection).items() if what.startswith("pairs")}
    assert list(counts.values()) == ([len(left_out)] if left_out else [])


def test_the_default_excludes_what_was_clicked_in_the_domain_in_30_days(offline: Path) -> None:
    assert removed(select(offline)) == {
        "users: not active in the domain in 30 days": 2,
        "pairs: clicked in the domain in 30 days": 1,
    }


def test_items_of_the_domain_are_those_seen_in_it(offline: Path) -> None:
    write_profiles(offline, item_id=[10, 99], price=[1.0, 2.0])
    selection = select(offline, items="domain")
    assert selection.candidates.items.to_pylist() == [10, 11, 13, 14]
    assert removed(selection)["items: never seen in the domain"] == 3


def test_all_users_are_those_with_an_interaction_or_a_profile(offline: Path) -> None:
    write_profiles(offline, "user", user_id=[3, 9], age=[1, 2])
    selection = select(offline, users="all")
    assert selection.candidates.users.to_pylist() == [1, 2, 3, 9]
    assert not any(part.what == "users" for part in selection.removed)


def test_a_table_can_select_users(offline: Path, tmp_path: Path) -> None:
    table = pa.table({"user_id": [3, 2, 2, 77, 70], "domain_id": ["a", "a", "a", "a", "b"]})
    pq.write_table(table, tmp_path / "users-2024-03-01.parquet")
    selection = select(offline, users=str(tmp_path / "users-{date}.parquet"))
    assert selection.candidates.users.to_pylist() == [2, 3]
    assert removed(selection)["users: not in the table of users"] == 1
    assert selection.unknown == (Unknown(str(tmp_path / "users-2024-03-01.parquet"), "users", 1, (77,)),)


@pytest.mark.parametrize("kind", ["text", "integer"])
def test_a_column_can_mark_available_items(offline: Path, kind: str) -> None:
    values = ["true", "false", None, "Yes"] if kind == "text" else [1, 0, None, 1]
    write_profiles(offline, item_id=[10, 11, 12, 13], in_stock=values)
    selection = select(offline, available="in_stock")
    assert selection.candidates.items.to_pylist() == [10, 13]
    counts = removed(selection)
    assert (counts["items: no value of in_stock"], counts["items: in_stock is false"]) == (3, 1)


def test_the_profile_version_of_the_night_is_used(offline: Path) -> None:
    write_profiles(offline, item_id=[10, 11], in_stock=["true", "true"])
    later = pa.array([at(-1), at(0.5)], TIMESTAMP)
    write_profiles(
        offline, item_id=[10, 11], in_stock=["false"] * 2, event_timestamp=later, created_timestamp=later
    )
    assert items(offline, available="in_stock") == [11]
    assert items(offline, available="in_stock", known_as_of=at(-2)) == [10, 11]


def test_two_columns_can_give_the_period_of_availability(offline: Path) -> None:
    first = pa.array([at(-5), at(0), at(1), None, at(-5), None], TIMESTAMP)
    last = pa.array([at(5), None, None, at(0), at(-1), None], TIMESTAMP)
    write_profiles(offline, item_id=[10, 11, 12, 13, 14, 15], launched=first, gone=last)
    selection = select(offline, available=("launched", "gone"))
    assert selection.candidates.items.to_pylist() == [10, 11, 15]
    counts = removed(selection)
    assert (counts["items: before its launched"], counts["items: its gone has passed"]) == (1, 2)
    assert items(offline, available=("", "gone")) == [10, 11, 12, 15]


def test_a_stock_table_can_give_domains_and_dates(offline: Path, tmp_path: Path) -> None:
    table = {
        "item_id": [10, 11, 12, 13, 14, 99, 98],
        "domain_id": ["a", "b", None, "a", "a", "a", "b"],
        "from": pa.array([at(-1), at(-1), None, at(1), at(-9), at(-9), None], TIMESTAMP),
        "until": pa.array([at(1), None, None, None, at(0), None, None], TIMESTAMP),
    }
    pq.write_table(pa.table(table), tmp_path / "stock.parquet")
    selection = select(offline, stock=str(tmp_path / "stock.parquet"))
    assert selection.candidates.items.to_pylist() == [10, 12]
    assert removed(selection)["items: not in stock"] == 4
    assert selection.unknown == (Unknown("the stock table", "items", 1, (99,)),)


def test_a_table_may_be_sql(offline: Path, tmp_path: Path) -> None:
    (tmp_path / "stock.csv").write_text("sku;shop;since\n10;a;2024-01-01\n11;a;2024-05-01\n12;b;2024-01-01\n")
    sql = (
        f'SELECT sku AS item_id, shop AS domain_id, since AS "from", NULL AS until '
        f"FROM read_csv('{tmp_path}/stock.csv', delim = ';') "
        "WHERE shop = '{domain}' AND since <= '{date}'"
    )
    assert items(offline, stock=sql) == [10]


def test_faults_of_a_policy_are_reported(offline: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="import items with a profile first"):
        select(offline, available="in_stock")
    write_profiles(offline, item_id=[10, 11], in_stock=["perhaps", "true"], price=[1.5, 2.0])
    with pytest.raises(UsageError, match="no column 'stock'; it has in_stock, price"):
        select(offline, available="stock")
    with pytest.raises(DataError, match=r"in_stock.*neither true nor false.*'perhaps'"):
        select(offline, available="in_stock")
    with pytest.raises(DataError, match=r"in_stock.*neither a date nor a time.*'perhaps'"):
        select(offline, available=("in_stock", ""))
    with pytest.raises(UsageError, match="price is double"):
        select(offline, available=("", "price"))
    with pytest.raises(
        UsageError, match=r"candidates.pairs: {day} is not a placeholder; use {domain} and {date}"
    ):
        Policy(pairs="pairs/{day}.parquet")
    pq.write_table(pa.table({"item_id": [1], "until": [None]}), tmp_path / "stock.parquet")
    with pytest.raises(DataError, match=r"from.*missing; the table has item_id, until"):
        select(offline, stock=str(tmp_path / "stock.parquet"))
    with pytest.raises(DataError, match="the SQL of the table of stock: failed"):
        select(offline, stock="SELECT * FROM nowhere")


def test_the_policy_is_recorded_and_compared(tmp_path: Path) -> None:
    path = tmp_path / "stock.parquet"
    path.write_bytes(b"one")
    before = recorded(Policy(stock=str(path)), "a", D)
    assert differences(before, recorded(Policy(stock=str(path), retrieval_items=7), "a", D)) == [], "not used"
    path.write_bytes(b"two")
    now = recorded(Policy(stock=str(path), exclude="none", users="SELECT 'secret' AS user_id"), "a", D)
    assert "secret" not in str(now)
    said = differences(before, now)
    assert "exclude was clicked, is none" in said and "exclude_days was 30, is unset" in said
    assert any(line.startswith("stock_content was") for line in said)
    assert differences(None, now) == ["the policy of its candidates was not recorded"]


def test_a_column_name_with_a_quote_is_read(offline: Path) -> None:
    write_profiles(offline, **{"item_id": [10, 11], 'on "sale"': [True, False]})
    assert items(offline, available='on "sale"', exclude="none") == [10]
