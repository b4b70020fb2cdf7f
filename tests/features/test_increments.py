"""Increments equal a full build, whatever is known when, and need little of what is long past."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mmlora.features import affinity as affinity_module
from mmlora.features import build as build_module
from mmlora.features.build import build
from mmlora.features.built import STATE, built_files, read_state
from mmlora.schema import IdTypes, midnight
from tests.features.conftest import Row, WriteInteractions

START = date(2000, 5, 1)
LAST_DAY = 170
IMPORTED = datetime(2026, 1, 1, 12, tzinfo=UTC)
TIMES = pa.timestamp("us", tz="UTC")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def at(day: int, hours: float = 0) -> datetime:
    return midnight(START) + timedelta(days=day, hours=hours)


@dataclass(frozen=True)
class Delivery:
    """What reaches the store before a build, and the day through which features are then built."""

    through: int
    rows: list[Row]
    items: list[tuple[int, datetime, str, list[str], list[float]]]


@st.composite
def keys(draw: st.DrawFn) -> tuple[int, int, str, int, datetime]:
    """Return a key's ids, and its day and time; most days are in a few weeks, so that entities have gaps."""
    day = draw(st.one_of(st.integers(0, LAST_DAY), st.integers(40, 50), st.integers(100, 105)))
    ids = draw(st.integers(0, 2)), draw(st.integers(0, 2)), draw(st.sampled_from("ab"))
    return (*ids, day, at(day, draw(st.sampled_from([0, 5, 23.5]))))


LABELS = st.lists(st.sampled_from([0, 1, -1]), max_size=3)
DAYS = st.lists(st.integers(1, LAST_DAY + 5), min_size=2, max_size=5, unique=True).map(sorted)
ITEMS = st.tuples(
    st.integers(0, 2),
    st.integers(0, LAST_DAY),
    st.sampled_from("xy"),
    st.lists(st.sampled_from("pq"), max_size=2),
    st.lists(st.sampled_from([0.5, -1.0]), min_size=2, max_size=2),
)


def of_key(ids: tuple[int, int, str], event: datetime, known: list[datetime], labels: list[int]) -> list[Row]:
    """Return versions with alternating labels."""
    changed = [label for label, before in zip(labels, [None, *labels], strict=False) if label != before]
    return [Row(*ids, event, moment, label) for moment, label in zip(known, changed, strict=False)]


@st.composite
def as_they_become_known(draw: st.DrawFn) -> list[Delivery]:
    """Each version reaches the store before the first build that may know it."""
    versions: list[Row] = []
    delays = st.sampled_from([0.1, 20, 24, 72, 24 * 31, 24 * 33, 24 * 64, 24 * 100])
    for *ids, _, event in draw(
        st.lists(keys(), min_size=3, max_size=40, unique_by=lambda key: key[:3] + key[4:])
    ):
        first = event + timedelta(hours=draw(st.sampled_from([0, 0, 0, 5, 30, 24 * 40])))
        labels = [draw(st.integers(0, 1)), *draw(LABELS)]
        known = [first]
        while len(known) < len(labels):
            known.append(known[-1] + timedelta(hours=draw(delays)))
        versions += of_key((ids[0], ids[1], ids[2]), event, known, labels)
    items = [(item, at(day, 7), *rest) for item, day, *rest in draw(st.lists(ITEMS, max_size=5))]
    days, deliveries, low = draw(DAYS), [], at(-1)
    for day in days:
        rows = [row for row in versions if low < row.known_at <= at(day)]
        deliveries.append(Delivery(day, rows, [item for item in items if low <= item[1] < at(day)]))
        low = at(day)
    return deliveries


@st.composite
def with_late_corrections_of_old_days(draw: st.DrawFn) -> list[Delivery]:
    """All is there at first; features are built date by date, with corrections and late rows in between."""
    found = draw(st.lists(keys(), min_size=3, max_size=40, unique_by=lambda key: key[:3] + key[4:]))
    coming = [(key, draw(st.sampled_from([0, 0, 0, 1, 2, 3])), draw(st.integers(0, 1))) for key in found]
    days = draw(DAYS)
    deliveries = []
    for number, day in enumerate(days):
        known = IMPORTED + timedelta(days=number)
        rows = [
            Row(*ids, event, event if number == 0 else known, label)
            for (*ids, _, event), when, label in coming
            if when == number
        ]
        if number:
            corrected = draw(st.lists(st.sampled_from(coming), max_size=3, unique_by=lambda one: one[0]))
            rows += [
                Row(*ids, event, known + timedelta(hours=1), draw(st.sampled_from([-1, 1 - label])))
                for (*ids, _, event), when, label in corrected
                if when < number
            ]
        items = [(item, at(of, 7), *rest) for item, of, *rest in draw(st.lists(ITEMS, max_size=5))]
        deliveries.append(Delivery(day, rows, [] if number else items))
    return deliveries


def write_items(offline: Path, items: list, name: str) -> None:
    folder = offline / "profiles" / "item"
    folder.mkdir(parents=True, exist_ok=True)
    table = {
        "item_id": pa.array([item[0] for item in items], pa.int64()),
        "event_timestamp": pa.array([item[1] for item in items], TIMES),
        "created_timestamp": pa.array([item[1] for item in items], TIMES),
        "category": pa.array([item[2] for item in items], pa.string()),
        "tags": pa.array([item[3] for item in items], pa.list_(pa.string())),
        "look": pa.array([item[4] for item in items], pa.list_(pa.float32())),
    }
    pq.write_table(pa.table(table), folder / f"{name}.parquet")


FIRST_ITEMS = [
    (0, EPOCH, "x", ["p", "q"], [1.0, 0.5]),
    (1, EPOCH, "y", ["q"], [0.0, 2.0]),
    # Nobody sees these: they are there for the affinity views to have the same attributes in every build.
    (8, EPOCH, "x", ["p"], [1.0, 1.0]),
    (9, EPOCH, "y", ["q"], [1.0, 1.0]),
]


def rows_of(offline: Path) -> dict[str, list[str]]:
    folder = offline / "features"
    return {
        view: sorted(repr(row) for row in pq.read_table(built_files(folder / view)).to_pylist())
        for view in read_state(folder)["files"]
    }


def check(deliveries: list[Delivery], write: WriteInteractions, folder: Path) -> None:
    """Build after each delivery, and once after all of them, and compare."""
    step, full = folder / "step", folder / "full"
    write_items(step, FIRST_ITEMS, "first")
    for number, delivery in enumerate(deliveries):
        write(step, delivery.rows, ids=IdTypes(), name=f"import{number}")
        if delivery.items:
            write_items(step, delivery.items, f"items{number}")
        if not any((step / "interactions").glob("**/*.parquet")):
            continue
        known = (step / "features" / STATE).exists()
        report = build(
            step, through=START + timedelta(days=delivery.through), prior_ctr=0.25, prior_weight=8.0
        )
        assert not known or report.since is not None, report.reason
    if not (step / "features").exists():
        return
    items = [item for delivery in deliveries for item in delivery.items]
    write_items(full, FIRST_ITEMS + items, "all")
    write(full, [row for delivery in deliveries for row in delivery.rows], ids=IdTypes(), name="all")
    build(full, through=START + timedelta(days=deliveries[-1].through), prior_ctr=0.25, prior_weight=8.0)
    assert rows_of(step) == rows_of(full)


@pytest.mark.parametrize("examples", [5, pytest.param(400, marks=pytest.mark.slow)])
@pytest.mark.parametrize("deliveries", [as_they_become_known(), with_late_corrections_of_old_days()])
def test_increments_equal_a_full_build(write_interactions, monkeypatch, deliveries, examples):
    monkeypatch.setattr(affinity_module, "CROSSING", 0.0)

    @settings(
        max_examples=examples,
        phases=[Phase.generate],  # to shrink a failure takes minutes
        derandomize=examples < 10,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(deliveries)
    def holds(drawn: list[Delivery]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            check(drawn, write_interactions, Path(folder))

    holds()


def test_what_an_increment_computes_from_does_not_grow_with_history(
    tmp_path, write_interactions, monkeypatch
):
    """Each user sees each item every day, with a correction now and then, which is known the day after."""
    read: dict[str, list[int]] = {}
    write = build_module.write_view

    def counted(connection, view, *rest):
        rows = connection.execute("SELECT count(*) FROM increments").fetchone()[0]
        read.setdefault(view.name, []).append(rows)
        return write(connection, view, *rest)

    for days in (63, 126):  # multiples of what repeats
        offline = tmp_path / str(days)
        rows = [
            Row(user, item, "ab"[user % 2], at(day, 5), at(day, 5 + late), (day + item + late) % 2)
            for day in range(days)
            for user in range(3)
            for item in range(3)
            for late in (0, *([30] if (day + user) % 9 == 0 else []))
        ]
        write_items(offline, FIRST_ITEMS, "first")
        write_interactions(offline, rows, ids=IdTypes(), name="all")
        build(offline, through=START + timedelta(days=days - 1))
        with monkeypatch.context() as patch:
            patch.setattr(build_module, "write_view", counted)
            assert build(offline, through=START + timedelta(days=days)).since is not None
    assert len(read) == 9
    # A user's history names each day; it is read for the users of the new day alone.
    history = read.pop("user_history")
    assert history[1] > 1.9 * history[0]
    assert all(short == long for short, long in read.values()), read
