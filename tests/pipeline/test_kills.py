"""Each command, killed at its steps and at any moment: readers see old or new, and it can be completed."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from mmlora.nights.load import score
from mmlora.pipeline.backfill import backfill
from mmlora.pipeline.data import import_tables
from mmlora.pipeline.erase import erase
from mmlora.pipeline.gc import gc
from mmlora.pipeline.publish import publish
from mmlora.pipeline.score import score_and_publish
from mmlora.pipeline.verify import verify
from mmlora.workspace import open_workspace
from tests.conftest import MadeUp, take_warehouse
from tests.faults import Kill, needs_fork, run_and_kill

pytestmark = [needs_fork, pytest.mark.slow, pytest.mark.timeout(0)]

BEFORE, ON = date(2001, 4, 8), date(2001, 4, 9)
GONE = "u01"
Seen = frozenset[tuple[object, ...]]


@dataclass(frozen=True)
class Command:
    """A command, and what is run before each try of it."""

    run: Callable[[], object]
    prepare: Callable[[], object] = lambda: None


def _correct_a_row() -> None:
    """Import a row with the other label."""
    row = pq.read_table("row.parquet")
    other = pa.array([1 - row["label"][0].as_py()], row.schema.field("label").type)
    pq.write_table(row.set_column(row.schema.get_field_index("label"), "label", other), "row.parquet")


def _publish_staged() -> None:
    with open_workspace().open_warehouse() as warehouse:
        (load,) = warehouse.loads(domain="news", score_date=ON, limit=1)
    publish(load.load_id)


COMMANDS = {
    "score": Command(lambda: score_and_publish(ON, domain="news", top_k=3)),
    "publish": Command(_publish_staged, lambda: score(ON, "news", top_k=3)),
    "backfill": Command(lambda: backfill(["news"], BEFORE, ON, top_k=3)),
    "gc": Command(lambda: gc(keep_days=0, keep_loads=0), lambda: score_and_publish(ON, domain="news")),
    "erase": Command(lambda: erase([GONE], reason="a request")),
    "import": Command(lambda: import_tables(Path("row.parquet")), _correct_a_row),
}


@pytest.fixture(params=["sqlite", "duckdb", pytest.param("postgres", marks=pytest.mark.postgres)])
def home(
    request: pytest.FixtureRequest,
    trained: tuple[Path, str],
    trained_workspace: Path,
    made_up: MadeUp,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A workspace with two published nights."""
    if request.param != "sqlite":
        of_duckdb = f"duckdb:///{trained_workspace / 'scores.duckdb'}"
        url = of_duckdb if request.param == "duckdb" else request.getfixturevalue("postgres_url")
        take_warehouse(monkeypatch, trained_workspace, trained[1], url)
    for on in (BEFORE, ON):
        score_and_publish(on, domain="news")
    pq.write_table(pq.read_table(made_up.interactions).slice(0, 1), "row.parquet")
    return trained_workspace


def shown() -> dict[date, Seen]:
    """What readers get, by date, without the load's name."""
    with open_workspace().open_warehouse() as warehouse, warehouse.database.reading() as connection:
        query = sa.text("SELECT score_date, user_id, item_id, score, position FROM scores_published")
        rows = [tuple(row) for row in connection.execute(query)]
    return {day: frozenset(row for row in rows if str(row[0]) == str(day)) for day in (BEFORE, ON)}


def let_time_pass() -> None:
    with open_workspace().open_warehouse() as warehouse, warehouse.database.writing() as connection:
        loads = warehouse.tables.score_loads
        long_ago = datetime.now(UTC) - timedelta(hours=1)
        connection.execute(sa.update(loads).where(loads.c.state == "running").values(heartbeat_at=long_ago))


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_often_a_command_is_completed_by_the_next(home: Path, name: str) -> None:
    command, rng = COMMANDS[name], random.Random(name)
    before, polled = shown(), list[dict[date, Seen]]()
    kills = [Kill(step=n) for n in range(0, 60, 5)]
    kills += [
        Kill(seconds=rng.uniform(0.001, 1.5)) for _ in range(int(os.environ.get("MMLORA_TEST_KILLS", 20)))
    ]
    died = 0
    for kill in kills:
        command.prepare()
        died += run_and_kill(command.run, kill, home, lambda: polled.append(shown()))
        polled.append(shown())
        let_time_pass()
    command.prepare()
    command.run()
    after = shown()
    assert died >= 3
    for seen in polled:
        for day in seen:
            assert seen[day] in (before[day], after[day]), f"{day} is neither as before nor as after"
    assert verify().faults == ()
