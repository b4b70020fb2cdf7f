"""Affinity rows against brute force, increments against full builds."""

from __future__ import annotations

import json
import math
import random
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmlora.features import affinity as module
from mmlora.features.affinity import Affinity
from mmlora.features.build import build
from mmlora.features.built import built_files
from mmlora.features.columns import analyse
from mmlora.features.plan import BuildState
from mmlora.schema import DOMAIN_ID, ITEM_ID, USER_ID, IdTypes, midnight
from tests.features.conftest import Row

START = date(2000, 5, 1)
COLUMN = {USER_ID: 0, ITEM_ID: 1, DOMAIN_ID: 2}
PRIOR, WEIGHT = 0.25, 8.0
TIMES = pa.timestamp("us", tz="UTC")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ATTRIBUTES = ("category", "size", "tags")


def at(day: int, hours: float = 0) -> datetime:
    return midnight(START) + timedelta(days=day, hours=hours)


# id, valid from, known from, category, size, tags, vector
VERSIONS = [
    (0, EPOCH, EPOCH, "a", 1, ["x", "y"], [1.0, 0.5]),
    (1, EPOCH, EPOCH, "b", 2, ["y", "y"], [0.0, -2.0]),
    (1, at(8, 5), at(8, 5), "c", None, [], None),
    (2, at(2, 9), at(2, 9), None, 1, None, [3.0, 3.0]),
    (2, at(25), at(25), "a", 3, ["z"], [1e-3, 0.1]),
    (3, EPOCH, at(21, 7), "b", 1, ["x"], [0.25, 0.25]),
    (3, at(5), at(6), "c", 2, ["z", "x"], [1.0, 1.0]),
]


def write_items(offline: Path, versions: list = VERSIONS, name: str = "0") -> None:
    folder = offline / "profiles" / "item"
    folder.mkdir(parents=True, exist_ok=True)
    types = [pa.int64(), TIMES, TIMES, pa.string(), pa.int64(), pa.list_(pa.string()), pa.list_(pa.float32())]
    names = ["item_id", "event_timestamp", "created_timestamp", *ATTRIBUTES, "vector"]
    columns = [pa.array(list(v), t) for v, t in zip(zip(*versions, strict=True), types, strict=True)]
    pq.write_table(pa.table(dict(zip(names, columns, strict=True))), folder / f"{name}.parquet")


def run(offline: Path, through: date, **options: object):
    return build(offline, through=through, prior_ctr=PRIOR, prior_weight=WEIGHT, **options)


def rows_of(offline: Path) -> dict[str, list[tuple]]:
    state = BuildState.load(offline / "features")
    views = Affinity.from_json(state.affinity).views
    return {
        v.name: sorted(
            repr(list(r.values()))
            for r in pq.read_table(built_files(offline / "features" / v.name)).to_pylist()
        )
        for v in views
    }


def version_of(item: object, event: datetime) -> tuple | None:
    """Return the profile version known by the end of the day."""
    over = midnight(event.date() + timedelta(days=1))
    known = [v for v in VERSIONS if v[0] == item and max(v[1], v[2]) < over]
    return max(known, key=lambda v: (v[1], v[2]), default=None)


def summarise(
    keys: tuple[str, ...], versions: list, entity: tuple, t: datetime, known: datetime
) -> dict | None:
    """Say F(entity, t, known) by brute force."""
    latest = {
        row.key: row for row in versions if row.known_at <= known and row.event_timestamp < t
    }  # sorted by known_at
    own = [r for r in latest.values() if tuple(r[COLUMN[key]] for key in keys) == entity]
    if not own:
        return None
    ctr = (sum(r.label for r in own) + PRIOR * WEIGHT) / (len(own) + WEIGHT)
    result: dict = {}
    for place, name in enumerate(ATTRIBUTES, 3):
        counts: dict = {}
        for row in own:
            found = version_of(row.item_id, row.event_timestamp)
            values = (found[place] if name == "tags" else [found[place]]) if found else []
            for value in {v for v in values or () if v is not None}:
                n, c = counts.get(value, (0, 0))
                counts[value] = (n + 1, c + row.label)
        kept = sorted(counts, key=lambda v: (-counts[v][0], v))[: module.MOST]
        result[name] = kept
        result[f"{name}_lift"] = [
            math.log((counts[v][1] + ctr * WEIGHT) / (counts[v][0] + WEIGHT) / ctr) for v in kept
        ]
        result[f"{name}_rows"] = [math.log1p(counts[v][0]) for v in kept]
    return result


def taste(versions: list, user: object, t: datetime, known: datetime) -> list[float] | None:
    latest = {row.key: row for row in versions if row.known_at <= known and row.event_timestamp < t}
    clicked = [
        version_of(r.item_id, r.event_timestamp) for r in latest.values() if r.user_id == user and r.label
    ]
    vectors = [v[6] for v in clicked if v and v[6]]
    return [sum(part) / len(vectors) for part in zip(*vectors, strict=True)] if vectors else None


def as_of(
    rows: list[dict], keys: tuple[str, ...], entity: tuple, t: datetime, known: datetime
) -> dict | None:
    visible = [
        row
        for row in rows
        if tuple(row[key] for key in keys) == entity
        and row["event_timestamp"] <= t
        and row["created_timestamp"] <= known
    ]
    return max(visible, key=lambda row: (row["event_timestamp"], row["created_timestamp"]), default=None)


def compare(offline: Path, versions: list, through: date, seed: int, tries: int = 60) -> None:
    rng = random.Random(seed)
    versions = sorted(versions, key=lambda row: row.known_at)
    state = BuildState.load(offline / "features")
    for view in Affinity.from_json(state.affinity).views:
        rows = pq.read_table(built_files(offline / "features" / view.name)).to_pylist()
        entities = sorted({tuple(row[COLUMN[key]] for key in view.keys) for row in versions})
        for _ in range(tries):
            entity, t = rng.choice(entities), at(rng.randrange((through - START).days + 1))
            delays = [timedelta(0), timedelta(hours=30), timedelta(days=rng.randrange(90)), timedelta(999)]
            known = t + rng.choice(delays)
            found = as_of(rows, view.keys, entity, t, known)
            said = {name: found[name] for name in view.features} if found else None
            where = (view.name, entity, t, known)
            if view.name == "user_taste":
                mean = said and said["vector"]
                assert (mean or None) == pytest.approx(taste(versions, entity[0], t, known), abs=1e-6), where
                continue
            expected = summarise(view.keys, versions, entity, t, known)
            if expected is None:
                assert said is None, where
                continue
            assert {n: said[n] for n in ATTRIBUTES} == {n: expected[n] for n in ATTRIBUTES}, where
            for name in set(said) - set(ATTRIBUTES):
                assert said[name] == pytest.approx(expected[name], rel=1e-5, abs=1e-6), (name, where)


@pytest.mark.parametrize("most", [32, 2])
@pytest.mark.parametrize("late", [False, True])
def test_rows_have_what_was_known(tmp_path, make_rows, write_interactions, monkeypatch, late, most):
    monkeypatch.setattr(module, "MOST", most)
    versions, through = make_rows(1 + late, late=late), START + timedelta(days=90)
    write_interactions(tmp_path, versions, ids=IdTypes(), name="all")
    write_items(tmp_path)
    run(tmp_path, through)
    assert set(rows_of(tmp_path)) == {
        "user_affinity",
        "domain_affinity",
        "user_domain_affinity",
        "user_taste",
    }
    compare(tmp_path, versions, through, seed=7)


@pytest.mark.parametrize("seed", range(2))
def test_increments_equal_a_full_build(tmp_path, make_rows, write_interactions, monkeypatch, seed):
    """Versions reach the store in the order they are known, those of items too."""
    monkeypatch.setattr(module, "CROSSING", 0.0)
    end = START + timedelta(days=120)
    versions = sorted(
        (row for row in make_rows(seed) if row.known_at <= midnight(end)), key=lambda row: row.known_at
    )
    step, full = tmp_path / "step", tmp_path / "full"
    days = [0, 3, 4, 20, 21, 55, 70, 120]
    for number, day in enumerate(days):
        low, high = at(days[number - 1] if number else -1), at(day)
        now = [row for row in versions if low < row.known_at <= high]
        write_interactions(step, now, ids=IdTypes(), name=f"import{number}")
        # A version that takes effect on the midnight itself belongs to the next day.
        items = [v for v in VERSIONS if (low <= max(v[1], v[2]) < high) or (not number and v[2] < low)]
        if items:
            write_items(step, items, name=f"items{number}")
        if any((step / "interactions").glob("**/*.parquet")):
            report = run(step, START + timedelta(days=day))
            assert number < 2 or report.since is not None, report.reason
    write_interactions(full, versions, ids=IdTypes(), name="all")
    write_items(full)
    run(full, end)
    assert rows_of(step) == rows_of(full)
    compare(full, versions, end, seed)


def test_corrections_of_old_data_change_later_rows(tmp_path, make_rows, write_interactions):
    versions = make_rows(4, late=False)
    step, full = tmp_path / "step", tmp_path / "full"
    for folder in (step, full):
        write_interactions(folder, versions, ids=IdTypes(), name="first")
        write_items(folder)
    run(step, START + timedelta(days=40))
    now = datetime(2026, 1, 1, 12, tzinfo=UTC)
    news = [row._replace(known_at=now, label=1 - row.label) for row in versions[::9]]
    news += [Row(77, 3, "b", row.event_timestamp + timedelta(seconds=1), now, 1) for row in versions[::20]]
    for folder in (step, full):
        write_interactions(folder, news, ids=IdTypes(), name="news")
    assert run(step, START + timedelta(days=60)).since is not None
    run(full, START + timedelta(days=60))
    assert rows_of(step) == rows_of(full)
    compare(full, versions + news, START + timedelta(days=60), seed=3)


def test_a_profile_valid_on_built_days_triggers_a_rebuild(tmp_path, make_rows, write_interactions):
    write_interactions(tmp_path, make_rows(2, late=False), ids=IdTypes(), name="all")
    write_items(tmp_path, VERSIONS[:6])
    through = START + timedelta(days=60)
    run(tmp_path, through)
    write_items(tmp_path, [(9, EPOCH, EPOCH, "z", 1, ["x"], None)], name="nobody")
    assert run(tmp_path, through).since is not None, "nobody was shown it"
    write_items(tmp_path, [(1, at(70), at(70), "z", 1, ["x"], None)], name="later")
    assert run(tmp_path, through).since is not None
    write_items(tmp_path, VERSIONS[6:], name="earlier")
    report = run(tmp_path, through)
    assert report.since is None and "new item profiles belong" in report.reason


def test_the_first_choice_of_attributes_is_kept_until_chosen_again(tmp_path, make_rows, write_interactions):
    write_interactions(tmp_path, make_rows(2, late=False), ids=IdTypes(), name="all")
    through = START + timedelta(days=30)
    assert build(tmp_path, through=through).reason == "first build"
    state = BuildState.load(tmp_path / "features")
    rows = [row for row in make_rows(2, late=False) if row.event_timestamp < midnight(through)]
    share = (sum(row.label for row in rows) + 1) / (len(rows) + 2)
    assert state.prior_ctr == pytest.approx(share, rel=1e-3)
    assert state.affinity == {"attributes": {}, "vectors": [], "by_domain": True}
    write_items(tmp_path)
    report = build(tmp_path, through=through + timedelta(days=30))
    assert report.since == through, "a night goes on with what was decided"
    report = build(tmp_path, through=through, decide=True)
    assert report.since is None and report.rows["user_affinity"] > 0
    decided = BuildState.load(tmp_path / "features")
    assert decided.prior_ctr == state.prior_ctr, "kept, so that increments equal it"
    again = build(tmp_path, through=through, decide=True, columns={"items.category": "drop"})
    assert again.since is not None, "what a model may read stays"
    assert build(tmp_path, through=through, prior_ctr=0.3).reason == "settings or queries have changed"


def test_attributes_are_categories_and_bags_of_a_few_hundred_values(tmp_path, make_rows, write_interactions):
    rows = 1200
    table = {
        "sort": [f"s{n % 7}" for n in range(rows)],
        "maker": [f"m{n % 600}" for n in range(rows)],
        "serial": [f"n{n}" for n in range(rows)],
        "price": [float(n) for n in range(rows)],
        "code": [n % 90 for n in range(rows)],
        "code_rows": [n % 3 for n in range(rows)],
        "words": [[f"w{n % 40}", "all"] for n in range(rows)],
        "look": [[0.5, 1.0]] * rows,
    }
    stamps = {name: pa.array([EPOCH] * rows, TIMES) for name in ("event_timestamp", "created_timestamp")}
    (tmp_path / "profiles" / "item").mkdir(parents=True)
    pq.write_table(
        pa.table({"item_id": range(rows), **stamps, **table}), tmp_path / "profiles" / "item" / "0.parquet"
    )
    one_domain = [row._replace(domain_id="ab"[row.user_id % 2]) for row in make_rows(1, late=False)]
    write_interactions(tmp_path, one_domain, ids=IdTypes(), name="all")
    with duckdb.connect() as connection:
        pattern = str(tmp_path / "interactions" / "**" / "*.parquet")
        found = module.choose_affinity(connection, pattern, analyse(tmp_path))
    assert found.attributes == {"sort": "string", "code_rows": "int64", "words": "bag"}
    assert found.vectors == ("look",)
    assert [view.name for view in found.views] == ["user_affinity", "domain_affinity", "user_taste"]


def test_a_store_without_stored_priors_keeps_its_own(tmp_path, make_rows, write_interactions):
    write_interactions(tmp_path, make_rows(1, late=False), ids=IdTypes(), name="all")
    build(tmp_path, through=START + timedelta(days=30))
    path = tmp_path / "features" / "state.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in state.items() if k not in ("prior_ctr", "affinity")}))
    build(tmp_path, through=START + timedelta(days=30))
    assert BuildState.load(tmp_path / "features").prior_ctr == 0.2
