"""A person's rows leave everything that mmlora stores, on each warehouse, whenever the process is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from mmlora.errors import TransientError, UsageError
from mmlora.files import locked
from mmlora.nights.load import score
from mmlora.pipeline.data import import_tables
from mmlora.pipeline.erase import erase
from mmlora.pipeline.score import score_and_publish
from mmlora.pipeline.train import train
from mmlora.pipeline.verify import verify
from mmlora.registry.manifest import Mixture
from mmlora.warehouse.tables import tables
from mmlora.workspace import open_workspace
from mmlora_cli.main import app
from tests.conftest import MadeUp, published

BEFORE, ON = date(2001, 4, 8), date(2001, 4, 9)
GONE = "u01"


@pytest.fixture
def home(trained_on_each_warehouse: Path) -> Path:
    """A workspace with two nights of a domain, the newer of them scored twice."""
    for night in (BEFORE, ON, ON):
        score_and_publish(night, domain="news")
    return trained_on_each_warehouse


def traces(home: Path, user: str = GONE) -> set[str]:
    """Where the workspace and its warehouse still have rows of a user, but for the models' vocabularies."""
    found = set()
    for path in home.rglob("*.parquet"):
        table = pq.ParquetFile(path).read()
        if "registry" not in path.parts and "user_id" in table.column_names:
            ids = table["user_id"].cast(pa.string())
            if pc.any(pc.equal(ids, user)).as_py():
                found.add(str(path.relative_to(home)))
    workspace = open_workspace()
    if (home / "training_sets").exists():
        found |= {path.name for path in (home / "training_sets").glob("[!.]*")}
    with workspace.open_warehouse() as warehouse, warehouse.database.reading() as connection:
        scores = tables(warehouse.ids).scores
        loads = sa.select(scores.c.load_key).where(scores.c.user_id == user).distinct()
        found |= {f"load {key}" for (key,) in connection.execute(loads)}
    return found


def rows_of_others(night: date) -> list[dict[str, Any]]:
    return [row for row in published("news", on=night) if row["user_id"] != GONE]


def ledger() -> list[dict[str, Any]]:
    with open_workspace().open_warehouse() as warehouse, warehouse.database.reading() as connection:
        return [dict(row._mapping) for row in connection.execute(sa.select(tables(warehouse.ids).erasures))]


def test_erasing_removes_everything_of_a_user_and_nothing_of_others(
    home: Path, trained: tuple[Path, str]
) -> None:
    before = {night: rows_of_others(night) for night in (BEFORE, ON)}
    assert {path.split("/")[1] for path in traces(home) if path.startswith("offline")} == {
        "interactions",
        "profiles",
        "features",
    }
    result = erase([GONE], reason="a request")
    assert traces(home) == set()
    assert (result.users, result.loads, result.models) == (1, 3, (trained[1],))
    assert result.interactions > 50 and result.profiles == 1 and result.scores == 15
    assert {night: published("news", on=night) for night in before} == before
    assert verify().faults == ()
    (entry,) = ledger()
    assert (
        GONE not in str(entry) and entry["finished_at"] >= entry["begun_at"] and entry["why"] == "a request"
    )

    score_and_publish(ON, domain="news")
    assert GONE not in {row["user_id"] for row in published("news")}
    assert (
        train(ON, features="ids", adaptation="none", accept_below_baseline=True).model_version
        not in result.models
    )
    assert not any("interactions" in path or "features" in path for path in traces(home))
    again = erase([GONE], reason="asked twice")
    assert (again.interactions, again.scores, again.models) == (0, 0, ())
    assert again.files == 0 and any((home / "training_sets").glob("[!.]*")), "a wrong id costs nobody a set"


def test_a_model_whose_mixture_is_newer_than_its_users_is_named(
    trained: tuple[Path, str], trained_workspace: Path, made_up: MadeUp, tmp_path: Path
) -> None:
    rows = pq.read_table(made_up.interactions).slice(0, 1)
    for name, value in {"user_id": "u-new", "event_timestamp": datetime(2001, 4, 10, tzinfo=UTC)}.items():
        index = rows.schema.get_field_index(name)
        rows = rows.set_column(index, name, pa.array([value], rows.schema.field(name).type))
    pq.write_table(rows, tmp_path / "new.parquet")
    import_tables(tmp_path / "new.parquet")
    bundles = open_workspace().bundles
    mixture = Mixture("news", (), 0.0, date(2001, 4, 11), 90, None, "a test")
    mixed = bundles.save(bundles.load(trained[1]).manifest.with_mixture(mixture))
    assert erase(["u-new"], reason="a request").models == (mixed,), "its other parts are of 2001-04-08"


@pytest.mark.slow
@pytest.mark.parametrize("home", ["sqlite"], indirect=True)
def test_erasing_again_completes_an_erasure_killed_at_any_step(home: Path) -> None:
    others = {night: rows_of_others(night) for night in (BEFORE, ON)}
    script = (
        "import os, signal, sys\n"
        "from mmlora.pipeline import erase as verb\n"
        "steps = int(sys.argv[1])\n"
        "def dying(function):\n"
        "    def call(*arguments, **options):\n"
        "        global steps\n"
        "        steps -= 1\n"
        "        if steps < 0:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return function(*arguments, **options)\n"
        "    return call\n"
        "for name in ('begin_erasures', 'erase_from_store', 'discard', 'finish_erasures'):\n"
        "    setattr(verb, name, dying(getattr(verb, name)))\n"
        "die = dying(lambda *_: None)\n"
        f"verb.erase(['{GONE}'], reason='a request', progress=die)\n"
    )
    for step in (1, 4, 2, 3):  # before the store, amid computed files, then between loads
        died = subprocess.run([sys.executable, "-c", script, str(step)], timeout=120, check=False)
        assert died.returncode == -signal.SIGKILL
        assert {night: rows_of_others(night) for night in others} == others
    erase([GONE], reason="a request")
    assert traces(home) == set()
    assert len(ledger()) == 1 and ledger()[0]["finished_at"] is not None
    assert ledger()[0]["models"], "found before the rows that tell were removed"
    assert verify().faults == ()


@pytest.mark.parametrize("home", ["sqlite"], indirect=True)
def test_staged_rows_are_removed_and_their_load_fails(home: Path) -> None:
    load_id = score(ON, "sport")
    half_written = home / "staging" / "dry-run-1" / ".part-00000.parquet.partial"  # of a killed process
    half_written.parent.mkdir()
    half_written.touch()
    erase([GONE], reason="a request")
    assert not list((home / "staging").glob("*")) and not list((home / "user_digests").glob("*"))
    with open_workspace().open_warehouse() as warehouse:
        load = warehouse.load(load_id)
    assert load.state == "failed" and "score the date again" in str(load.reason)


@pytest.mark.parametrize("home", ["sqlite"], indirect=True)
def test_erasures_that_are_not_possible_now_are_refused(home: Path, tmp_path: Path) -> None:
    with open_workspace().open_warehouse() as warehouse:
        load = warehouse.begin_load("sport", ON, model_version="v1", contract_hash="c0")
        with pytest.raises(TransientError, match="is being scored: erase when it is done"):
            erase([GONE], reason="a request")
        warehouse.fail(load, "stopped")
    with (
        locked(home / "training_sets" / ".half.lock"),
        pytest.raises(TransientError, match="training is under way"),
    ):
        erase([GONE], reason="a request")
    assert "load 1" in traces(home) and ledger() == []
    with pytest.raises(UsageError, match="give the users to erase"):
        erase([], reason="a request")
    with pytest.raises(UsageError, match="needs a reason"):
        erase([GONE], reason=" ")
    (tmp_path / "users.txt").write_text(f"{GONE}\n\nu02\n")
    said = CliRunner().invoke(
        app, ["erase", "--users", str(tmp_path / "users.txt"), "--reason", "two requests"]
    )
    assert said.exit_code == 0 and "erased 2 users: " in said.output
    assert traces(home) == traces(home, "u02") == set()
