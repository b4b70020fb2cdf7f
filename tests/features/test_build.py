from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from mmlora.errors import TransientError, UsageError
from mmlora.features import build as build_module
from mmlora.features.build import build
from mmlora.features.built import STATE, built_files
from mmlora.features.plan import BuildState
from mmlora.features.views import ACTIVITY_VIEWS, ActivityView
from mmlora.schema import DOMAIN_ID, ITEM_ID, USER_ID, IdTypes, midnight
from tests.features.conftest import Row

START = date(2000, 5, 1)
IDS = IdTypes()
COLUMN = {USER_ID: 0, ITEM_ID: 1, DOMAIN_ID: 2}
PRIOR, WEIGHT = 0.25, 8.0


def read(offline: Path, view: ActivityView) -> list[dict]:
    table = pq.read_table(built_files(offline / "features" / view.name))
    assert table.column_names == [*view.keys, "event_timestamp", "created_timestamp", *view.features]
    return table.to_pylist()


def rows_of(offline: Path) -> dict[str, list[tuple]]:
    return {v.name: sorted(tuple(row.values()) for row in read(offline, v)) for v in ACTIVITY_VIEWS}


def summarise(
    view: ActivityView, versions: list, entity: tuple, at: datetime, known: datetime
) -> dict | None:
    """Say F(entity, at, known) by brute force."""
    latest = {
        row.key: row for row in versions if row.known_at <= known and row.event_timestamp < at
    }  # sorted by known_at
    own = [r for r in latest.values() if tuple(r[COLUMN[key]] for key in view.keys) == entity]
    if not own:
        return None

    def within(days: float) -> list:
        return [row for row in own if row.event_timestamp >= at - timedelta(days=days) and row.label >= 0]

    result: dict = {}
    for window, days in {"1d": 1, "7d": 7, "30d": 30, "ever": 10_000}.items():
        rows = within(days)
        clicks = sum(row.label for row in rows)
        result |= {f"interactions_{window}": len(rows), f"clicks_{window}": clicks}
        result[f"ctr_{window}"] = (clicks + PRIOR * WEIGHT) / (len(rows) + WEIGHT)
    month = within(30)
    result["users_30d"], result["items_30d"] = (len({row[i] for row in month}) for i in (0, 1))
    result["density_30d"] = len(month) / max(1, result["users_30d"] * result["items_30d"])
    ages = [
        (midnight(at.date()) - midnight(row.event_timestamp.date())).days - 1 for row in own if row.label >= 0
    ]
    result["days_since_last_seen"] = min([30, *ages])
    return {name: result[name] for name in view.features}


def as_of(rows: list[dict], view: ActivityView, entity: tuple, at: datetime, known: datetime) -> dict | None:
    visible = [
        row
        for row in rows
        if tuple(row[key] for key in view.keys) == entity
        and row["event_timestamp"] <= at
        and row["created_timestamp"] <= known
    ]
    if not visible:
        return None
    row = max(visible, key=lambda row: (row["event_timestamp"], row["created_timestamp"]))
    return {name: row[name] for name in view.features}


def compare(offline: Path, versions: list, through: date, seed: int, tries: int = 60) -> None:
    rng = random.Random(seed)
    versions = sorted(versions, key=lambda row: row.known_at)
    for view in ACTIVITY_VIEWS:
        rows = read(offline, view)
        entities = sorted({tuple(row[COLUMN[key]] for key in view.keys) for row in versions})
        for _ in range(tries):
            entity, day = (
                rng.choice(entities),
                START + timedelta(days=rng.randrange((through - START).days + 1)),
            )
            at = midnight(day)
            known = at + rng.choice(
                [timedelta(0), timedelta(hours=30), timedelta(days=rng.randrange(90)), timedelta(999)]
            )
            expected = summarise(view, versions, entity, at, known)
            found = as_of(rows, view, entity, at, known)
            if expected is None:  # nothing known of it yet, or (a domain) nothing ever
                assert found is None or not found.get("interactions_ever", found.get("interactions_30d"))
            else:
                assert found == pytest.approx(expected, rel=1e-6), (view.name, entity, at, known)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("string_ids", [False, True])
def test_rows_have_what_was_known(tmp_path, make_rows, write_interactions, build_features, late, string_ids):
    versions = make_rows(1 + late, late=late, string_ids=string_ids)
    ids = IdTypes(user="string", item="string") if string_ids else IDS
    write_interactions(tmp_path, versions, ids=ids, name="all")
    through = START + timedelta(days=90)
    build_features(tmp_path, through)
    compare(tmp_path, versions, through, seed=7)


def test_a_row_is_written_exactly_when_a_field_changes(
    tmp_path, make_rows, write_interactions, build_features
):
    versions = make_rows(5, late=False)
    write_interactions(tmp_path, versions, ids=IDS, name="all")
    through = START + timedelta(days=90)
    build_features(tmp_path, through)
    for view in ACTIVITY_VIEWS:
        rows = read(tmp_path, view)
        for entity in {tuple(row[key] for key in view.keys) for row in rows}:
            days = [START + timedelta(days=i) for i in range(91)]
            said = [summarise(view, versions, entity, midnight(d), midnight(d)) for d in days]
            changes = [
                midnight(day)
                for day, before, now in zip(days, [None, *said], said, strict=False)
                if now != before and not (now and not before and not any(now.values()))
            ]
            found = [r["event_timestamp"] for r in rows if tuple(r[key] for key in view.keys) == entity]
            assert sorted(found) == changes, (view.name, entity)
        assert all(row["event_timestamp"] == row["created_timestamp"] for row in rows)


@pytest.mark.parametrize("seed", range(2))
def test_increments_equal_a_full_build(tmp_path, make_rows, write_interactions, build_features, seed):
    """Versions reach the store in the order they are known; between imports the features are built."""
    end = START + timedelta(days=120)
    versions = sorted(
        (row for row in make_rows(seed) if row.known_at <= midnight(end)), key=lambda row: row.known_at
    )
    step, full = tmp_path / "step", tmp_path / "full"
    days = [0, 3, 4, 20, 21, 55, 70, 120]
    for number, day in enumerate(days):
        through = START + timedelta(days=day)
        low = (
            midnight(START + timedelta(days=days[number - 1]))
            if number
            else midnight(START) - timedelta(days=1)
        )
        now = [row for row in versions if low < row.known_at <= midnight(through)]
        write_interactions(step, now, ids=IDS, name=f"import{number}")
        if any((step / "interactions").glob("**/*.parquet")):
            report = build_features(step, through)
            assert number < 2 or report.since is not None, report.reason
    write_interactions(full, versions, ids=IDS, name="all")
    build_features(full, end)
    assert rows_of(step) == rows_of(full)


@pytest.mark.parametrize("seed", range(2))
def test_withdrawn_rows_count_until_their_withdrawal_is_known(
    tmp_path, make_rows, write_interactions, build_features, seed
):
    versions = make_rows(seed)
    last = {row.key: row for row in versions}
    gone = []
    for number, row in enumerate(list(last.values())[seed::5]):
        for place, hours in enumerate((1, 60, 900)[: 1 + number % 3]):
            gone.append(Row(*row.key, row.known_at + timedelta(hours=hours), (-1, number % 2, -1)[place]))
    end = START + timedelta(days=120)
    everything = sorted([*versions, *gone], key=lambda row: row.known_at)
    everything = [row for row in everything if row.known_at <= midnight(end)]
    step, full = tmp_path / "step", tmp_path / "full"
    before = datetime(1999, 1, 1, tzinfo=UTC)
    for day in (30, 60, 120):
        through = START + timedelta(days=day)
        now = [row for row in everything if before < row.known_at <= midnight(through)]
        write_interactions(step, now, ids=IDS, name=f"import{day}")
        build_features(step, through)
        before = midnight(through)
    write_interactions(full, everything, ids=IDS, name="all")
    build_features(full, end)
    assert rows_of(step) == rows_of(full)
    compare(full, everything, end, seed)


@pytest.mark.parametrize("seed", range(2))
def test_increments_over_old_data_with_new_corrections(
    tmp_path, make_rows, write_interactions, build_features, seed
):
    """All of the past is there at once, corrected long after, and the features are built date by date."""
    versions = make_rows(seed, late=False)
    step, full = tmp_path / "step", tmp_path / "full"
    write_interactions(step, versions, ids=IDS, name="first")
    everything = list(versions)
    for number, day in enumerate([10, 25, 40, 60, 60, 90]):
        now = datetime(2026, 1, 1 + number, 12, tzinfo=UTC)
        changed = versions[number :: 40 + number]
        corrections = [
            row._replace(known_at=now, label=1 - row.label) for row in changed if number in (1, 2, 4)
        ]
        arrival = [
            Row(77, 3, "b", row.event_timestamp + timedelta(seconds=1), now, 1)
            for row in changed
            if number in (2, 4)
        ]
        write_interactions(step, corrections + arrival, ids=IDS, name=f"late{number}")
        everything += corrections + arrival
        report = build_features(step, START + timedelta(days=day))
        assert number == 0 or report.since is not None, report.reason
    write_interactions(full, everything, ids=IDS, name="all")
    build_features(full, START + timedelta(days=90))
    assert rows_of(step) == rows_of(full)
    compare(full, everything, START + timedelta(days=90), seed)


def test_on_time_rows_for_built_days_trigger_a_rebuild(
    tmp_path, make_rows, write_interactions, build_features
):
    versions = make_rows(3)
    step, full = tmp_path / "step", tmp_path / "full"
    write_interactions(step, versions[::2], ids=IDS, name="first")
    build_features(step, START + timedelta(days=60))
    write_interactions(step, versions[1::2], ids=IDS, name="second")
    report = build_features(step, START + timedelta(days=40))
    assert (
        report.since is None
        and "already built" in report.reason
        and report.through == START + timedelta(days=60)
    )
    write_interactions(full, versions, ids=IDS, name="all")
    build_features(full, START + timedelta(days=60))
    assert rows_of(step) == rows_of(full)


def test_no_new_rows_write_nothing_and_another_prior_rebuilds(
    tmp_path, make_rows, write_interactions, build_features
):
    write_interactions(tmp_path, make_rows(1), ids=IDS, name="all")
    through = START + timedelta(days=60)
    build_features(tmp_path, through)
    before = rows_of(tmp_path)
    for again in (through, START):
        assert sum(build_features(tmp_path, again).rows.values()) == 0
    assert rows_of(tmp_path) == before
    assert (
        build(tmp_path, through=through, prior_ctr=0.5, prior_weight=8.0).reason
        == "settings or queries have changed"
    )
    assert rows_of(tmp_path) != before


@pytest.mark.parametrize("after", ["first view written", "first file moved", "before the state"])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_killed_build_is_completed_by_the_next(
    tmp_path, make_rows, write_interactions, build_features, monkeypatch, after, earlier
):
    class Killed(BaseException):
        pass

    versions, through = make_rows(2), START + timedelta(days=90)
    store, whole = tmp_path / "store", tmp_path / "whole"
    for folder in (store, whole):
        write_interactions(folder, versions, ids=IDS, name="all")
    build_features(whole, through)
    if earlier:
        build_features(store, START + timedelta(days=30))

    calls = {"writes": 0, "moves": 0}
    write, move = build_module.write_view, Path.replace

    def killed_write(*args):
        calls["writes"] += 1
        if after == "first view written" and calls["writes"] == 2:
            raise Killed
        return write(*args)

    def killed_move(self, target):
        calls["moves"] += 1
        if (after == "first file moved" and calls["moves"] == 2) or (
            after == "before the state" and self.name.startswith(f".{STATE}")
        ):
            raise Killed
        return move(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(build_module, "write_view", killed_write)
        patch.setattr(Path, "replace", killed_move)
        with pytest.raises(Killed):
            build_features(store, through)
    build_features(store, through)
    assert rows_of(store) == rows_of(whole)
    assert not (store / "features" / ".staging").exists()
    state = BuildState.load(store / "features")
    assert state is not None and {v.name for v in ACTIVITY_VIEWS} < set(state.files)
    on_disk = {name: sorted(p.name for p in (store / "features" / name).iterdir()) for name in state.files}
    assert on_disk == state.files


def test_an_empty_store_says_what_to_do(tmp_path, build_features):
    with pytest.raises(UsageError, match="import some first"):
        build_features(tmp_path, START)


def test_a_date_before_all_data_gives_empty_views_with_their_columns(
    tmp_path, make_rows, write_interactions, build_features
):
    write_interactions(tmp_path, make_rows(1), ids=IDS, name="all")
    build_features(tmp_path, START)
    assert all(rows == [] for rows in rows_of(tmp_path).values())
    build_features(tmp_path, START + timedelta(days=5))
    assert all(rows for rows in rows_of(tmp_path).values())


def test_a_held_lock_is_worth_a_retry(tmp_path, make_rows, write_interactions, build_features, monkeypatch):
    write_interactions(tmp_path, make_rows(1), ids=IDS, name="all")
    monkeypatch.setattr(build_module, "LOCK_SECONDS", 0.1)
    (tmp_path / "features").mkdir()
    with (
        FileLock(tmp_path / "features" / ".lock"),
        pytest.raises(TransientError, match="another features build"),
    ):
        build_features(tmp_path, START)


def test_feature_columns_are_float32_and_times_utc(tmp_path, make_rows, write_interactions, build_features):
    write_interactions(tmp_path, make_rows(1), ids=IDS, name="all")
    build_features(tmp_path, START + timedelta(days=20))
    for view in ACTIVITY_VIEWS:
        schema = pq.read_table(tmp_path / "features" / view.name).schema
        assert {schema.field(name).type for name in view.features} == {pa.float32()}
        assert schema.field("event_timestamp").type == pa.timestamp("us", tz="UTC")
        assert [schema.field(k).type for k in view.keys] == [
            IDS.arrow(k.removesuffix("_id")) for k in view.keys
        ]
