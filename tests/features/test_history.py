"""Histories against brute force, increments against full builds."""

from __future__ import annotations

import random
from collections import Counter
from datetime import date, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mmlora.features import history as module
from mmlora.features.built import built_files
from mmlora.schema import IdTypes, midnight

START = date(2000, 5, 1)
IDS = IdTypes()


def read(offline: Path) -> list[dict]:
    rows: list[dict] = pq.read_table(built_files(offline / "features" / "user_history")).to_pylist()
    return rows


def as_of(rows: list[dict], user: object, t: datetime, known: datetime) -> dict | None:
    visible = [
        row
        for row in rows
        if row["user_id"] == user and row["event_timestamp"] <= t and row["created_timestamp"] <= known
    ]
    return max(visible, key=lambda row: (row["event_timestamp"], row["created_timestamp"]), default=None)


def sums(row: dict | None) -> dict[object, tuple[float, float]]:
    """Return each item's rows and clicks."""
    rows: Counter = Counter()
    clicks: Counter = Counter()
    for item, n, c in zip(row["items"], row["rows"], row["clicks"], strict=True) if row else ():
        rows[item] += n
        clicks[item] += c
    return {item: (rows[item], clicks[item]) for item in rows if rows[item] or clicks[item]}


def expected(versions: list, user: object, t: datetime, known: datetime) -> dict[object, tuple[float, float]]:
    """Say by brute force what was known at a moment of the user's rows before a midnight."""
    latest = {
        row.key: row
        for row in versions
        if row.known_at <= known and row.event_timestamp < t and row.user_id == user
    }
    kept = [row for row in latest.values() if row.label >= 0]
    return {
        item: (
            float(sum(row.item_id == item for row in kept)),
            float(sum(row.label for row in kept if row.item_id == item)),
        )
        for item in {row.item_id for row in kept}
    }


@pytest.mark.parametrize("string_ids", [False, True])
def test_rows_have_what_was_known_before_their_midnight(
    tmp_path, make_rows, write_interactions, build_features, string_ids
):
    versions = sorted(make_rows(3, string_ids=string_ids), key=lambda row: row.known_at)
    ids = IdTypes(user="string", item="string") if string_ids else IDS
    write_interactions(tmp_path, versions, ids=ids, name="all")
    build_features(tmp_path, START + timedelta(days=90))
    rows, rng = read(tmp_path), random.Random(1)
    users = sorted({row.user_id for row in versions})
    for _ in range(200):
        user, t = rng.choice(users), midnight(START + timedelta(days=rng.randrange(91)))
        known = t + rng.choice([timedelta(0), timedelta(hours=30), timedelta(days=rng.randrange(90))])
        said, truth = sums(as_of(rows, user, t, known)), expected(versions, user, t, known)
        assert said == truth, (user, t, known)


def test_a_withdrawn_row_counts_until_that_is_known(tmp_path, write_interactions, build_features):
    event, withdrawn = midnight(START) + timedelta(hours=3), midnight(START) + timedelta(days=5, hours=1)
    rows = [(1, 7, "a", event, event, 1), (1, 7, "a", event, withdrawn, -1)]
    write_interactions(tmp_path, rows, ids=IDS, name="all")
    build_features(tmp_path, START + timedelta(days=20))
    built, day = read(tmp_path), midnight(START + timedelta(days=5))
    assert sums(as_of(built, 1, day, day)) == {7: (1.0, 1.0)}
    for t in (day, day + timedelta(days=1)):
        assert sums(as_of(built, 1, t, t + timedelta(days=2))) == {}


def test_the_newest_elements_are_kept(tmp_path, make_rows, write_interactions, build_features, monkeypatch):
    versions = make_rows(4, late=False)
    write_interactions(tmp_path, versions, ids=IDS, name="all")
    monkeypatch.setattr(module, "MOST", 3)
    build_features(tmp_path, START + timedelta(days=60))
    for row in read(tmp_path):
        before = [
            r for r in versions if r.user_id == row["user_id"] and r.event_timestamp < row["event_timestamp"]
        ]
        own = {(r.event_timestamp.date(), r.item_id) for r in before}
        assert row["items"] == [item for _, item in sorted(own)[-3:]]


@pytest.mark.parametrize("most", [4, 512])
def test_increments_equal_a_full_build(
    tmp_path, make_rows, write_interactions, build_features, monkeypatch, most
):
    """Versions reach the store in the order they are known; between imports the features are built."""
    monkeypatch.setattr(module, "MOST", most)
    end = START + timedelta(days=120)
    versions = [row for row in make_rows(most) if row.known_at < midnight(end)]
    versions.sort(key=lambda row: row.known_at)
    piecewise, at_once, last = tmp_path / "piecewise", tmp_path / "whole", START
    for step in (3, 15, 40, 41, 90, 120):
        day = START + timedelta(days=step)
        new = [row for row in versions if midnight(last) <= row.known_at < midnight(day)]
        if new:
            write_interactions(piecewise, new, ids=IDS, name=f"until-{step}")
        build_features(piecewise, day)
        last = day
    write_interactions(at_once, versions, ids=IDS, name="all")
    build_features(at_once, end)
    assert sorted(map(repr, read(piecewise))) == sorted(map(repr, read(at_once)))
