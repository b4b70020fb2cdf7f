"""``mmlora verify`` follows every pointer down, and the command that it names mends the fault."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import Result
from typer.testing import CliRunner

from mmlora.load_checks import LoadChecks
from mmlora.pipeline.gc import gc
from mmlora.pipeline.migrate import migrate_warehouse
from mmlora.pipeline.promote import promote
from mmlora.pipeline.verify import Checked, verify
from mmlora.schema import scores_schema
from mmlora.scoring.staging import StagedWriter
from mmlora.warehouse.loads import Load
from mmlora.workspace import open_workspace
from mmlora_cli.main import app

ON = date(2001, 4, 9)
BEFORE = ON - timedelta(days=1)


@pytest.fixture
def home(trained: tuple[Path, str], trained_workspace: Path) -> Path:
    """A copy of the workspace; its champion has scored two nights of two domains."""
    for on in (BEFORE, ON):
        for domain in ("news", "sport"):
            publish(stage(trained[1], on, domain))
    return trained_workspace


@pytest.fixture
def champion(trained: tuple[Path, str], home: Path) -> str:
    return trained[1]


def stage(version: str, on: date = ON, domain: str = "news") -> Load:
    """Stage a load of two rows by the usual way."""
    workspace = open_workspace()
    with workspace.open_warehouse() as warehouse:
        load = warehouse.begin_load(domain, on, model_version=version, contract_hash="c0")
        row = {"user_id": "u01", "domain_id": domain, "score_date": on, "score": 0.5}
        rows = [{**row, "item_id": 100, "position": 1}, {**row, "item_id": 101, "position": 2}]
        with StagedWriter(workspace.staging_folder(load.load_id), ids=workspace.ids) as writer:
            writer.write(pa.Table.from_pylist(rows, schema=scores_schema(workspace.ids)))
        warehouse.mark_staged(load, rows=2, content_hash=writer.content_hash, checks=LoadChecks())
        return load


def publish(load: Load) -> None:
    workspace = open_workspace()
    with workspace.open_warehouse() as warehouse:
        warehouse.publish(load, sorted(workspace.staging_folder(load.load_id).iterdir()))


def twin_of(version: str) -> str:
    """Store a bundle that shares all parts of another."""
    bundles = open_workspace().bundles
    return bundles.save(replace(bundles.load(version).manifest, block_rows=1024))


def run(command: str) -> Result:
    words = shlex.split(command)
    assert words[0] == "mmlora"
    return CliRunner().invoke(app, words[1:])


def faults() -> list[Checked]:
    return list(verify().faults)


def part(home: Path, version: str, role: str) -> Path:
    (file,) = home.glob(f"registry/parts/{open_workspace().bundles.load(version).manifest.roles[role]}.*")
    return file


def test_an_unchanged_workspace_has_no_fault(home: Path, champion: str) -> None:
    stage(champion, ON + timedelta(days=1))
    result = verify()
    assert [(row.kind, row.rows, row.fault) for row in result.checked] == [
        *[("publication", 2, "")] * 4,
        ("staged load", 2, ""),
    ]
    assert result.models == 1
    assert result.parts >= len(open_workspace().bundles.load(champion).manifest.parts)
    done = run("mmlora verify --json")
    assert done.exit_code == 0
    assert json.loads(done.stdout) == [row.to_json() for row in result.checked]


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [flip, Path.unlink])
def test_training_again_restores_lost_parts_bit_by_bit(
    home: Path, champion: str, damage: Callable[[Path], None]
) -> None:
    files = [part(home, champion, role) for role in ("encoder", "backbone", "calibration")]
    whole = [file.read_bytes() for file in files]
    for file in files:
        damage(file)
    found = faults()
    assert len(found) == len(files)
    for row in found:
        assert (row.kind, row.model_version) == ("model", champion)
        assert f"model {champion} (champion of all domains, loads scored: 4 of 2001-04-08 to" in row.fault
    done = run("mmlora verify")
    assert done.exit_code == 1
    assert done.stderr.count("; to repair it: mmlora train --as-of 2001-04-08 ") == len(files)
    assert run(found[0].mend).exit_code == 0
    assert faults() == []
    assert [file.read_bytes() for file in files] == whole


def test_training_again_restores_an_edited_manifest(home: Path, champion: str) -> None:
    file = home / "registry/bundles" / champion / "manifest.json"
    file.write_text(file.read_text().replace('"adaptation": "none"', '"adaptation": "mlora"'))
    (row,) = faults()
    assert "changed after it was written" in row.fault
    assert run(row.mend).exit_code == 0
    assert faults() == []


def test_a_champion_with_a_lost_model_is_rolled_back(home: Path, champion: str) -> None:
    twin = twin_of(champion)
    promote(twin, domain="sport", accept_below_baseline=True)
    shutil.rmtree(home / "registry/bundles" / twin)
    (row,) = faults()
    assert row.fault.startswith(f"model {twin} (champion of sport): there is no bundle ")
    assert row.mend == "mmlora rollback --domain sport"
    assert [each.model_version for each in verify(domain="news").faults] == []
    assert run(row.mend).exit_code == 0
    assert faults() == []


def test_a_lost_first_champion_is_trained_and_promoted(home: Path, champion: str) -> None:
    shutil.rmtree(home / "registry/bundles" / champion)
    shutil.rmtree(home / "runs")
    (row,) = faults()
    assert row.mend == (
        "mmlora train --as-of 2001-04-08, then mmlora promote VERSION with the version it prints"
    )
    twin = "20010101-00000000"
    with open_workspace().open_warehouse() as warehouse:
        warehouse.promote(None, twin, alias="challenger", who="me", why="it is gone")
    assert {each.model_version for each in faults()} == {champion, twin}


def test_nights_of_a_lost_model_are_scored_by_the_champion(home: Path, champion: str) -> None:
    twin = twin_of(champion)
    publish(stage(twin))
    shutil.rmtree(home / "registry/bundles" / twin)
    (row,) = faults()
    assert row.mend == "mmlora backfill --domain news --start 2001-04-09 --end 2001-04-09 --state stale"
    assert run(row.mend).exit_code == 0
    assert faults() == []


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


@pytest.mark.parametrize("damage", [cut, Path.unlink])
def test_a_staged_load_that_cannot_be_published_is_scored_again(
    home: Path, champion: str, damage: Callable[[Path], None]
) -> None:
    load = stage(champion)
    (file,) = (home / "staging" / load.load_id).iterdir()
    damage(file)
    (row,) = faults()
    assert (row.kind, row.load_id) == ("staged load", load.load_id)
    assert row.mend == f"mmlora score --date 2001-04-09 --domain news --model-version {champion}"
    assert [each.load_id for each in verify(end=BEFORE).faults] == []
    assert run(row.mend).exit_code == 0
    assert faults() == []


def test_rows_freed_by_gc_are_not_a_fault(home: Path, champion: str) -> None:
    twin = twin_of(champion)
    publish(stage(twin, BEFORE))
    gc(keep_days=0, keep_loads=0)
    shutil.rmtree(home / "registry/bundles" / twin)
    assert [(row.score_date, row.fault) for row in verify().checked] == [("2001-04-09", "")] * 2


@pytest.mark.parametrize("kind", ["duckdb", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_pointers_are_followed_in_other_warehouses(
    home: Path, champion: str, kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = request.getfixturevalue("postgres_url") if kind == "postgres" else f"duckdb:///{home / 'w.duckdb'}"
    monkeypatch.setenv("MMLORA_WAREHOUSE_URL", url)
    migrate_warehouse(accept=True)
    promote(champion, accept_below_baseline=True)
    publish(stage(champion))
    load = stage(champion, ON, "sport")
    assert faults() == []
    shutil.rmtree(home / "staging" / load.load_id)
    flip(part(home, champion, "backbone"))
    assert [row.kind for row in faults()] == ["staged load", "model"]
