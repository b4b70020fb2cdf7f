"""A small offline store made by hand: interactions by day, profiles, and ways to make more of them up."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmlora.schema import IdTypes, interactions_schema

START = datetime(2000, 5, 1, tzinfo=UTC)


class Row(NamedTuple):
    """One version of an interaction, in the columns' order."""

    user_id: Any
    item_id: Any
    domain_id: Any
    event_timestamp: datetime
    known_at: datetime
    label: int

    @property
    def key(self) -> tuple[object, ...]:
        """What a later version replaces."""
        return self[:4]


WriteInteractions = Callable[..., None]


def _write_interactions(offline: Path, rows: Sequence[Row], *, ids: IdTypes, name: str) -> None:
    by_day: dict[date, list[Row]] = {}
    for row in map(Row._make, rows):
        by_day.setdefault(row.event_timestamp.date(), []).append(row)
    schema = interactions_schema(ids)
    for day, group in by_day.items():
        folder = offline / "interactions" / f"day={day}"
        folder.mkdir(parents=True, exist_ok=True)
        columns = [
            pa.array(values, field.type)
            for values, field in zip(zip(*group, strict=True), schema, strict=True)
        ]
        pq.write_table(pa.table(columns, schema=schema), folder / f"{name}.parquet")


@pytest.fixture(scope="session")
def write_interactions() -> WriteInteractions:
    return _write_interactions


def _make_rows(
    seed: int, *, days: int = 50, count: int = 250, string_ids: bool = False, late: bool = True
) -> list[Row]:
    """Make up interactions by time; with ``late``, some arrive late and some are corrected."""
    rng = random.Random(seed)
    rows: dict[tuple[object, ...], Row] = {}
    extra: list[Row] = []
    for _ in range(count):
        user, item, domain = rng.randrange(6), rng.randrange(5), rng.choice(["a", "b"])
        # Quiet weeks let windows empty and ages reach their cap.
        day = rng.choice([d for d in range(days) if d // 10 % 2 == 0])
        event = START + timedelta(days=day, seconds=rng.choice([0, rng.randrange(86_400)]))
        ids = (f"u{user}", f"i{item}") if string_ids else (user, item)
        key = (*ids, domain, event)
        if key in rows:
            continue
        known, label = event, rng.randrange(2)
        if late and rng.random() < 0.2:
            known += rng.choice(
                [timedelta(minutes=5), timedelta(hours=20), timedelta(days=rng.randrange(1, 60))]
            )
        rows[key] = Row(*ids, domain, event, known, label)
        for delay in (0.5, 3, 45) if late and rng.random() < 0.15 else ():
            known, label = known + timedelta(days=delay), 1 - label
            extra.append(Row(*ids, domain, event, known, label))
    return sorted([*rows.values(), *extra], key=lambda row: (row.event_timestamp, row.known_at))


@pytest.fixture(scope="session")
def make_rows() -> Callable[..., list[Row]]:
    return _make_rows


@pytest.fixture
def build_features() -> Callable[..., object]:
    from mmlora.features.build import build

    def run(offline: Path, through: date) -> object:
        return build(offline, through=through, prior_ctr=0.25, prior_weight=8.0)

    return run


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that makes a workspace: interactions, profiles, features built and applied."""
    from mmlora.features.build import build
    from mmlora.features.repo import FeatureRepo

    def make(rows: Sequence[Row], *, ids: IdTypes, through: date, profiles: dict[str, pa.Table]) -> Path:
        home = tmp_path_factory.mktemp("home")
        offline = home / "offline"
        _write_interactions(offline, rows, ids=ids, name="all")
        (offline / "ids.json").write_text(json.dumps(ids.to_dict()))
        for entity, table in profiles.items():
            (offline / "profiles" / entity).mkdir(parents=True)
            pq.write_table(table, offline / "profiles" / entity / "0.parquet")
        build(offline, through=through, prior_ctr=0.25, prior_weight=8.0)
        FeatureRepo(home=home).apply()
        return home

    return make
