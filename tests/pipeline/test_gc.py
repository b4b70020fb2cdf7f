"""``mmlora gc``: which rows and files go, which stay, and that a killed one is completed by the next."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import Result
from typer.testing import CliRunner

from mmlora.errors import TransientError
from mmlora.files import locked
from mmlora.load_checks import LoadChecks
from mmlora.pipeline.gc import GcOutcome, gc
from mmlora.pipeline.promote import promote
from mmlora.pipeline.train import train
from mmlora.pipeline.verify import verify
from mmlora.schema import scores_schema
from mmlora.scoring.shard_manifest import MANIFEST
from mmlora.scoring.staging import StagedWriter
from mmlora.warehouse.loads import Load
from mmlora.workspace import STAGING_LOCK, Workspace, open_workspace
from mmlora_cli.main import app

ON = date(2001, 4, 9)
BEFORE = ON - timedelta(days=1)


@pytest.fixture
def home(trained_workspace: Path) -> Path:
    """A copy of the workspace, all of it 40 days old."""
    age(trained_workspace)
    return trained_workspace


@pytest.fixture
def champion(trained: tuple[Path, str], home: Path) -> str:
    return trained[1]


def age(folder: Path, days: float = 40) -> None:
    """Have all under a folder last written so many days ago."""
    then = time.time() - days * 86_400
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (then, then))


def tree(home: Path) -> set[str]:
    """The files that gc may touch."""
    folders = ("registry", "runs", "training_sets", "staging", "data_docs", "offline/.spill")
    return {
        str(path.relative_to(home))
        for folder in folders
        for path in (home / folder).rglob("*")
        if path.suffix != ".lock"
    }


def add_bundle(champion: str, block_rows: int, **parts: str) -> str:
    """Store a bundle that shares the champion's parts, but for some, with a run in MLflow."""
    workspace = open_workspace()
    manifest = replace(workspace.bundles.load(champion).manifest, block_rows=block_rows, **parts)
    version = workspace.bundles.save(manifest)
    run = workspace.tracking.start_run("made up", params={}, tags={"model_version": version})
    workspace.tracking.end_run(run)
    return version


def publish(workspace: Workspace, on: date, *, domain: str = "news", score: float = 0.5) -> Load:
    """Publish a load of two rows by the usual way."""
    with workspace.open_warehouse() as warehouse:
        load = warehouse.begin_load(domain, on, model_version="v1", contract_hash="c0")
        schema = scores_schema(workspace.ids)
        row = {"user_id": "u1", "domain_id": domain, "score_date": on, "score": score}
        rows = [{**row, "item_id": 100, "position": 1}, {**row, "item_id": 101, "position": 2}]
        with StagedWriter(workspace.staging_folder(load.load_id), ids=workspace.ids) as writer:
            writer.write(pa.Table.from_pylist(rows, schema=schema))
        warehouse.mark_staged(load, rows=2, content_hash=writer.content_hash, checks=LoadChecks())
        return warehouse.publish(load, writer.files)


def kinds(result: GcOutcome) -> dict[str, int]:
    return {row.kind: row.count for row in result.freed}


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def leftovers(home: Path, champion: str) -> dict[str, str]:
    """What months of use leave behind; the versions of two bundles that nobody needs."""
    workspace = open_workspace()
    own = workspace.parts.put_json({"a": 2.0, "b": 1.0})
    versions = {"twin": add_bundle(champion, 1024), "other": add_bundle(champion, 8192, calibration=own)}
    with workspace.open_warehouse() as warehouse:
        for state in ("running", "failed"):
            load = warehouse.begin_load(state, ON, model_version="v1", contract_hash="c0")
            (home / "staging" / load.load_id).mkdir(parents=True)
            (home / "staging" / load.load_id / "part-00000.parquet").write_bytes(b"rows")
            if state == "failed":
                warehouse.fail(load, reason="it broke")
    for folder in ("staging/dry-run-1", "offline/.spill/duckdb-1", "runs/old", "training_sets/old"):
        (home / folder).mkdir(parents=True)
        (home / folder / "config.json").write_text('{"part": "' + "0" * 64 + '"}')
    shutil.copytree(home / "data_docs/verdicts", home / "verdicts")
    for page in (home / "verdicts").iterdir():
        shutil.copy(page, home / "data_docs/verdicts" / f"2001-01-01{page.suffix}")
    (home / "registry/parts/.half.partial").write_bytes(b"h")
    age(home)
    for page in (home / "data_docs/verdicts").glob("2001-04-*"):
        os.utime(page)
    for path in (home / "runs").glob("[!os]*"):  # the run that the champion came from
        os.utime(path)
    (home / "registry/parts" / f"{'a' * 64}.json").write_text("{}")  # of this moment: nobody names it yet
    return {**versions, "own": own}


def test_only_unneeded_rows_and_files_are_freed(home: Path, champion: str, leftovers: dict[str, str]) -> None:
    workspace, before = open_workspace(), tree(home)
    planned = gc(dry_run=True)
    assert tree(home) == before and workspace.tracking.runs_of(leftovers["other"])

    done = gc()

    assert replace(done, dry_run=True) == planned
    expected = {"replaced loads": 1, "staged files": 2, "spilled queries": 1, "data docs": 2, "models": 2}
    expected |= {
        "training runs": 1,
        "training sets": 1,
        "mlflow runs": 2,
        "parts": 1,
        "half-written files": 1,
    }
    assert kinds(done) == expected
    gone, left = before - tree(home), tree(home)
    assert f"registry/parts/{leftovers['own']}.json" in gone, "only the other bundle named it"
    assert f"registry/parts/{'a' * 64}.json" in left
    workspace.bundles.load(champion).model()
    workspace.bundles.load(champion).encoder()
    assert workspace.bundles.versions() == [champion]
    assert [workspace.tracking.runs_of(leftovers[name]) for name in ("twin", "other")] == [[], []]
    assert len(workspace.tracking.runs_of(champion)) == 1
    assert len(list((home / "staging").iterdir())) == 1, "a running load's files stay"
    assert "2001-01-01" not in (home / "data_docs/index.html").read_text()
    assert str(ON) in (home / "data_docs/index.html").read_text()
    assert train(BEFORE, features="ids", adaptation="none").model_version == champion, "its steps are there"
    assert gc().freed == ()


def test_the_newest_run_and_its_parts_are_kept_at_any_age(home: Path, champion: str) -> None:
    assert kinds(gc()) == {"data docs": 2}, "but for the newest page"
    newer = home / "runs" / "newer"
    newer.mkdir()
    (newer / "config.json").write_text("{}")
    age(newer, days=35)
    done = kinds(gc())
    assert done["training runs"] == 1 and done["training steps"] > 0 and done["training sets"] > 0
    assert newer.exists()
    open_workspace().bundles.load(champion).model()


def test_models_with_a_decision_are_kept(home: Path, champion: str) -> None:
    versions = [add_bundle(champion, rows) for rows in (1024, 2048, 8192)]
    for version in versions:
        promote(version, domain="news", accept_below_baseline=True)
    with open_workspace().open_warehouse() as warehouse, warehouse.database.writing() as connection:
        connection.exec_driver_sql("UPDATE promotions SET promoted_at = '2001-01-01T00:00:00.000000+00:00'")
    age(home)
    assert kinds(gc())["models"] == 1
    assert set(open_workspace().bundles.versions()) == {champion, *versions[1:]}, "rollback has where to go"


def test_a_model_is_kept_as_long_as_its_loads(
    home: Path, champion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = add_bundle(champion, 1024)
    with open_workspace().open_warehouse() as warehouse:
        load = warehouse.begin_load("news", ON, model_version=version, contract_hash="c0")
        age(home)
        assert set(kinds(gc())) <= {"data docs"}
        warehouse.fail(load, reason="it broke")
        assert kinds(gc()) == {"replaced loads": 1, "mlflow runs": 1, "models": 1}


def test_files_of_running_training_are_kept(home: Path, leftovers: dict[str, str]) -> None:
    with locked(home / "runs/steps/some.lock"):
        done = kinds(gc())
    assert not [kind for kind in done if kind.startswith("training")]
    assert done["models"] == 2
    with locked(home / ".gc.lock"), pytest.raises(TransientError, match="another `mmlora gc`"):
        gc()


KILLED = """
import os, signal, sys
left = [int(sys.argv[1])]
from mmlora.pipeline.gc import GcOutcome, gc

ours = [f"/{name}/" for name in ("registry", "runs", "training_sets", "verdicts", "staging")]

def hook(event, arguments):
    if event in ("os.rename", "os.remove", "os.rmdir") and any(n in str(arguments[0]) for n in ours):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
gc()
"""


@pytest.mark.parametrize("removals", [2, 8, 14])
def test_the_next_call_completes_a_killed_removal_of_files(
    home: Path, champion: str, leftovers: dict[str, str], removals: int
) -> None:
    before = tree(home)
    command = [sys.executable, "-W", "ignore", "-c", KILLED, str(removals)]
    assert subprocess.run(command, timeout=120).returncode == -signal.SIGKILL
    assert tree(home) != before
    workspace = open_workspace()
    for version in workspace.bundles.versions():
        workspace.bundles.load(version).model()  # what has a name is whole
    assert not [
        run
        for run in (home / "runs").glob("[!.]*")
        if run.name != "steps" and not (run / "config.json").exists()
    ]
    gc()
    assert workspace.bundles.versions() == [champion]
    assert not [path for path in tree(home) if ".partial" in path or leftovers["own"] in path]
    assert gc().freed == ()


def test_shards_of_an_interrupted_load_stay_for_a_day(home: Path) -> None:
    folders = {}
    with open_workspace().open_warehouse() as warehouse:
        for state in ("failed", "killed", "held"):
            load = warehouse.begin_load(state, ON, model_version="v1", contract_hash="c0")
            folders[state] = home / "staging" / load.load_id
            folders[state].mkdir(parents=True)
            (folders[state] / MANIFEST).write_text("{}")
            if state == "failed":
                warehouse.fail(load, reason="the disk was full")
                digests = home / "user_digests" / "domain" / f"{load.load_id}.parquet"
        with warehouse.database.writing() as connection:
            silent = "UPDATE score_loads SET heartbeat_at = '2001-01-01T00:00:00.000000+00:00'"
            connection.exec_driver_sql(f"{silent} WHERE state = 'running'")
    gc()
    digests.parent.mkdir(parents=True)
    digests.touch()
    assert all(folder.exists() for folder in folders.values())
    (folders["held"] / STAGING_LOCK).touch()
    age(home / "staging", days=1.1)
    age(digests, days=1.1)
    with locked(folders["held"] / STAGING_LOCK):
        assert kinds(gc(dry_run=True))["staged files"] == 3
        done = kinds(gc())
    assert (done["staged files"], done["digests of users"]) == (2, 1)
    assert [state for state, folder in folders.items() if folder.exists()] == ["held"]


def test_nights_on_each_warehouse(workspace_on_each_warehouse: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = open_workspace()
    loads = [publish(workspace, ON, score=n / 4) for n in (1, 2, 3)]
    old = publish(workspace, ON - timedelta(days=40))

    planned = json.loads(run("gc", "--dry-run", "--json").output)
    first = planned["freed"][0]
    assert (first["kind"], first["count"], first["rows"]) == ("replaced loads", 1, 2)
    assert planned["freed"][0]["bytes"] > 0
    assert json.loads(run("gc", "--json").output)["freed"][0]["rows"] == 2

    for verb in (("restore", loads[0].load_id), ("compare", "--load", loads[0].load_id)):
        refused = run(*verb)
        assert "freed its 2 rows" in str(refused.exception), verb
        assert getattr(refused.exception, "exit_code", None) == 1
    assert run("restore", loads[1].load_id).exit_code == 0
    shown = run("status", "--domain", "news", "--json").output
    freed_at = {load["load_id"]: load["rows_freed_at"] for load in json.loads(shown)["loads"]}
    assert freed_at[loads[0].load_id] and not freed_at[loads[1].load_id]

    monkeypatch.setenv("MMLORA_RETENTION__NIGHTS_DAYS", "30")
    table = run("gc")
    assert table.exit_code == 0, table.output
    assert "old nights" in table.output and "in all" in table.output
    again = run("gc")
    assert again.exit_code == 0 and "nothing was freed" in again.output
    gone = run("read", "--domain", "news", "--date", old.score_date)
    assert "nothing is published for domain 'news' on 2001-02-28" in str(gone.exception)
    assert {row.kind for row in verify().faults} == {"model"}, "v1 was made up"
    with workspace.open_warehouse() as warehouse:
        assert {night.score_date for night in warehouse.nights()} == {ON}
        (entry,) = [entry for entry in warehouse.ledger() if entry.score_date == old.score_date]
        assert (entry.action, entry.load_id) == ("unpublish", old.load_id)
