from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmlora.errors import UsageError
from mmlora.features.columns import Column, analyse

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ROWS = 200
TIMES = pa.timestamp("us", tz="UTC")


def store(folder: Path, **tables: dict[str, list]) -> Path:
    """Write profile tables, all valid since 1970."""
    for entity, columns in tables.items():
        rows = len(next(iter(columns.values())))
        stamps = {name: pa.array([EPOCH] * rows, TIMES) for name in ("event_timestamp", "created_timestamp")}
        (folder / "profiles" / entity).mkdir(parents=True)
        table = pa.table({f"{entity}_id": list(range(rows)), **stamps, **columns})
        pq.write_table(table, folder / "profiles" / entity / "0.parquet")
    return folder


def one(folder: Path, values: list, name: str = "x", **overrides: str) -> Column:
    (column,) = analyse(store(folder, user={name: values}), overrides)
    return column


def cycle(*values: object) -> list:
    return [values[n % len(values)] for n in range(ROWS)]


DAYS = [datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=n) for n in range(ROWS)]


@pytest.mark.parametrize(
    ("name", "values", "kind", "tags"),
    [
        ("plan", cycle("free", "paid", None), "categorical", {}),
        ("town", [f"town{n // 2}" for n in range(ROWS)], "categorical", {}),
        ("serial", [f"sn{n}" for n in range(ROWS)], "drop", {}),
        ("version", cycle("v1"), "drop", {}),
        ("badge", cycle("gold", None), "categorical", {}),
        (
            "title",
            [f"the story of number {n}" for n in range(ROWS)],
            "words",
            {"kind": "bag", "transform": "words", "max_length": "32"},
        ),
        ("signup_date", pa.array(DAYS, TIMES), "days_since", {"transform": "days_since"}),
        (
            "created",
            [f"{d:%Y-%m-%d}" for d in DAYS],
            "days_since",
            {"transform": "days_since", "kind": "dense", "format": "iso"},
        ),
        (
            "created",
            [f"{d:%d.%m.%Y}" for d in DAYS],
            "days_since",
            {"transform": "days_since", "kind": "dense", "format": "%d.%m.%Y"},
        ),
        (
            "since",
            [f"{d:%m/%d/%Y}" for d in DAYS],
            "days_since",
            {"transform": "days_since", "kind": "dense", "format": "%m/%d/%Y"},
        ),
        (
            "updated_at",
            [int(d.timestamp()) for d in DAYS],
            "days_since",
            {"transform": "days_since", "kind": "dense", "format": "epoch_s"},
        ),
        ("revenue", [int(d.timestamp()) for d in DAYS], "dense", {"kind": "dense"}),
        ("age", [18 + n % 60 for n in range(ROWS)], "categorical", {}),
        ("points", [n * 3 for n in range(ROWS)], "dense", {"kind": "dense"}),
        ("visits", [n**4 for n in range(ROWS)], "log", {"transform": "log1p", "kind": "dense"}),
        ("shop_id", [n % 150 for n in range(ROWS)], "categorical", {}),
        ("account_id", list(range(ROWS)), "drop", {}),
        ("price", [1.1**n for n in range(ROWS)], "log", {"transform": "log"}),
        ("balance", [float(n - 100) for n in range(ROWS)], "dense", {}),
        ("likes", cycle(["a", "b"], [], ["a"]), "bag", {"max_length": "2"}),
        ("likes", cycle(["a", "b"], [f"{n}" for n in range(300)]), "bag", {"max_length": "256"}),
        ("taste", cycle([0.5, 1.5], [1.0, 2.0]), "vector", {}),
        ("taste", cycle([0.5], [1.0, 2.0]), "drop", {}),
    ],
)
def test_a_columns_kind_follows_from_its_data(tmp_path, name, values, kind, tags):
    column = one(tmp_path, values, name)
    assert (column.kind, dict(column.tags)) == (kind, tags), column.why
    assert column.why


def test_ambiguous_days_and_months_are_not_dates(tmp_path):
    values = [f"{1 + n % 12:02d}/{1 + n % 11:02d}/2025" for n in range(ROWS)]
    assert one(tmp_path, values, "since").kind == "categorical"


def test_few_entities_are_judged_by_type_only(tmp_path):
    assert one(tmp_path / "text", ["a", "b", "c"]).kind == "categorical"
    assert one(tmp_path / "constant", ["a", "a", "a"]).kind == "categorical"


def test_only_an_entitys_latest_version_counts(tmp_path):
    folder = store(tmp_path, user={"plan": cycle("free", "paid")})
    later = pa.array([datetime(2025, 1, 1, tzinfo=UTC)] * ROWS, TIMES)
    table = {"user_id": list(range(ROWS)), "event_timestamp": later, "created_timestamp": later}
    pq.write_table(pa.table({**table, "plan": cycle("free")}), folder / "profiles" / "user" / "1.parquet")
    (column,) = analyse(folder)
    assert (column.kind, column.stats.rows, column.stats.distinct) == ("drop", ROWS, 1)


def test_a_users_values_are_matched_with_the_items_that_share_them(tmp_path):
    genres = [f"genre{n}" for n in range(10)]
    folder = store(
        tmp_path,
        user={
            "interests": cycle([genres[0], genres[1]], [genres[2]], []),
            "favourite": cycle(*genres[:4]),
            "premium": cycle("true", "false"),
            "age": cycle(*range(20, 40)),
            "category": cycle(*range(5)),
            "hobbies": cycle(["chess"], ["golf"], [genres[0]]),
            "vector": cycle([0.1, 0.2], [0.2, 0.3]),
            "short": cycle([0.1]),
        },
        item={
            "genre": cycle(*genres),
            "labels": cycle(*([g, "x", "y", "z"] for g in genres)),
            "stock": cycle("true", "false"),
            "length": cycle(*range(60)),
            "category": cycle(*range(8)),
            "embedding": cycle([0.1, 0.2]),
        },
    )
    tags = {f"{c.entity}.{c.name}": dict(c.tags) for c in analyse(folder)}
    genre = {"match": "item_profile__genre", "vocabulary": "item_profile__genre"}
    assert tags["user.interests"] == {"max_length": "2", **genre}
    assert tags["user.favourite"] == genre
    assert "match" not in tags["user.premium"], "two shared words are an accident"
    assert "match" not in tags["user.age"], "whole numbers mean anything"
    assert tags["user.category"]["match"] == "item_profile__category", "unless they have one name"
    assert "match" not in tags["user.hobbies"], "less than half is shared"
    assert tags["user.vector"] == {"dot": "item_profile__embedding"}
    assert "dot" not in tags["user.short"]


def test_settings_override_the_data(tmp_path):
    folder = store(tmp_path, user={"age": cycle(*range(20, 40)), "town": cycle("a", "b")})
    chosen = {"users.age": "log", "users.town": "drop"}
    kinds = {c.name: (c.kind, dict(c.tags), c.why) for c in analyse(folder, chosen)}
    assert kinds["age"] == ("log", {"transform": "log", "kind": "dense"}, "by the settings")
    assert kinds["town"][0] == "drop"
    with pytest.raises(UsageError, match=r"users\.town has a text, which can't become dense; it can be cat"):
        analyse(folder, {"users.town": "dense"})
    with pytest.raises(UsageError, match=r"users\.street, but the imported columns are users\.age, users"):
        analyse(folder, {"users.street": "drop"})
    with pytest.raises(UsageError, match=r"no value of users\.town is a date"):
        analyse(folder, {"users.town": "days_since"})
