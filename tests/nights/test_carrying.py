"""Rows carried over from the last published night: only where nothing changed, and to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from mmlora.load_checks import Carried
from mmlora.nights import carrying
from mmlora.nights.load import score
from mmlora.pipeline.data import import_tables
from mmlora.pipeline.promote import promote
from mmlora.pipeline.score import score_and_publish
from mmlora.pipeline.train import train
from mmlora.scoring import staged_shards
from mmlora.warehouse.loads import Load
from mmlora.workspace import open_workspace
from mmlora_cli.main import app
from tests.conftest import MadeUp

ON = date(2001, 4, 9)
BEFORE = ON - timedelta(days=1)


def load_of(load_id: str) -> Load:
    with open_workspace().open_warehouse() as warehouse:
        return warehouse.load(load_id)


def carried(load: Load) -> Carried | None:
    assert load.checks is not None
    return load.checks.carried


def scored(**options: Any) -> Load:
    """A load of ON that is staged."""
    return load_of(score(**({"on": ON, "domain": "sport"} | options)))


def scored_in_full(monkeypatch: pytest.MonkeyPatch, **options: Any) -> Load:
    with monkeypatch.context() as here:
        here.setenv("MMLORA_SCORING__CARRY_OVER", "false")
        load = scored(**options)
    assert carried(load) is None
    return load


@pytest.fixture(autouse=True)
def carrying_over(trained_workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are carried over, even if that saves only a few pairs."""
    monkeypatch.setenv("MMLORA_SCORING__CARRY_OVER", "true")
    monkeypatch.setattr(carrying, "PAIRS_PER_ROW", 0)


def published_before() -> Load:
    """Publish the night before, and return its load."""
    (load,) = score_and_publish(BEFORE, domain="sport").loads
    assert load.carried is None
    return load_of(str(load.load_id))


@pytest.fixture
def last_night(trained_workspace: Path) -> Load:
    """The published load of the night before."""
    return published_before()


def test_users_without_a_change_keep_their_rows(
    trained_on_each_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a night to the next, users change whose exclusions do: by new clicks, and by old ones."""
    last_night = published_before()
    whole = scored_in_full(monkeypatch)
    monkeypatch.setattr(staged_shards, "SHARD_PAIRS", 400)
    counted = []
    load = scored(progress=lambda *said: counted.append(said))
    found = carried(load)
    assert found is not None and found.load_id == last_night.load_id
    assert 0 < found.users < 60 and found.share == found.rows / load.rows
    assert counted[-1][2] == (60 - found.users) * 40, "only the others were scored"
    assert load.same_rows_as(whole) and load.rows == whole.rows
    shown = CliRunner().invoke(app, ["score", "--date", str(ON), "--domain", "sport"])
    assert f"sport: carried over: {found.share:.1%} of the rows ({found.rows}" in shown.output
    monkeypatch.setattr(carrying, "PAIRS_PER_ROW", 10)
    assert carried(scored()) is None, "a row costs more than a few pairs"
    monkeypatch.setattr(carrying, "PAIRS_PER_ROW", 5)
    again = scored()
    assert carried(again).share == 1 and again.same_rows_as(whole), "the night is published now"


def another_model(version: str) -> dict[str, Any]:
    bundles = open_workspace().bundles
    other = replace(bundles.load(version).manifest, metrics={"made": {"up": 1}})
    return {"model_version": bundles.save(other)}


def another_top_k(version: str) -> dict[str, Any]:
    return {"top_k": 4}


def a_new_item(version: str) -> dict[str, Any]:
    row = {"item_id": [999], "kinds": [["live"]], "length": [0.5]}
    row["event_timestamp"] = [datetime(2001, 4, 1, tzinfo=UTC)]
    pq.write_table(pa.table(row), "items.parquet")
    import_tables(items=Path("items.parquet"))
    return {"known_as_of": datetime.now(UTC)}


def listed_pairs(version: str) -> dict[str, Any]:
    pairs = {"user_id": ["u01", "u01", "u02"], "item_id": [101, 102, 101]}
    pq.write_table(pa.table(pairs), "pairs.parquet")
    return {"pairs": "pairs.parquet", "override": ("size",), "reason": "few pairs"}


def changed_rows(version: str) -> dict[str, Any]:
    with open_workspace().open_warehouse() as warehouse, warehouse.database.writing() as connection:
        connection.execute(sa.text("UPDATE scores SET score = score / 2 WHERE user_id = 'u07'"))
    return {}


def deleted_rows(version: str) -> dict[str, Any]:
    with open_workspace().open_warehouse() as warehouse, warehouse.database.writing() as connection:
        connection.execute(sa.text("DELETE FROM scores WHERE user_id = 'u07' AND position = 5"))
    return {}


def changed_digests(version: str) -> dict[str, Any]:
    (file,) = open_workspace().home.glob("user_digests/*/*.parquet")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    return {}


def no_digests(version: str) -> dict[str, Any]:
    (file,) = open_workspace().home.glob("user_digests/*/*.parquet")
    file.unlink()
    return {}


RARE = (another_top_k, listed_pairs, deleted_rows, changed_digests, no_digests)


@pytest.mark.parametrize(
    "change",
    [
        *(another_model, a_new_item, changed_rows),
        *(pytest.param(each, marks=pytest.mark.slow) for each in RARE),
    ],
)
def test_all_users_are_scored_where_that_is_in_doubt(
    trained: tuple[Path, str],
    trained_workspace: Path,
    last_night: Load,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[str], dict[str, Any]],
) -> None:
    options = change(trained[1])
    load = scored(**options)
    assert carried(load) is None
    assert load.same_rows_as(scored_in_full(monkeypatch, **options))


def test_late_clicks_change_their_users_alone(
    trained_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score_and_publish(ON, domain="sport")
    clicked = {"user_id": ["u01"], "item_id": [101], "domain_id": ["sport"], "label": [1]}
    late = {**clicked, "event_timestamp": [datetime(2001, 4, 8, 12, tzinfo=UTC)]}
    pq.write_table(pa.table(late), "late.parquet")
    import_tables(Path("late.parquet"))
    now = {"known_as_of": datetime.now(UTC)}
    load = scored(**now)
    assert carried(load).users == 59
    assert load.same_rows_as(scored_in_full(monkeypatch, **now))
    assert carried(scored()).users == 60, "as known then, nothing has changed"


def test_digests_of_earlier_nights_go(trained_workspace: Path, last_night: Load) -> None:
    (load,) = score_and_publish(ON, domain="sport").loads
    (folder,) = (trained_workspace / "user_digests").iterdir()
    assert [file.stem for file in folder.iterdir()] == [load.load_id]
    (restated,) = score_and_publish(BEFORE, domain="sport").loads
    assert sorted(file.stem for file in folder.iterdir()) == sorted([restated.load_id, load.load_id])


@pytest.mark.slow
def test_users_whose_profile_changed_are_scored(
    trained_workspace: Path, made_up: MadeUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = train(BEFORE, features="profiles", adaptation="none").model_version
    promote(str(version), accept_below_baseline=True)
    score_and_publish(ON, domain="sport")
    everybody = pq.read_table(made_up.users)
    changed = everybody.slice(10, 3).drop_columns("age").append_column("age", pa.array([20, 30, 40]))
    days = pa.array([datetime(2001, 4, 5, tzinfo=UTC)] * 3)
    pq.write_table(changed.append_column("event_timestamp", days), "changed.parquet")
    import_tables(users=Path("changed.parquet"))
    now = {"known_as_of": datetime.now(UTC)}
    load = scored(**now)
    assert carried(load).users == 57
    assert load.same_rows_as(scored_in_full(monkeypatch, **now))
