"""The workspace's warehouse: read without any data, refused when it is another, verified."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from mmlora.errors import ContractError, UsageError
from mmlora.load_checks import LoadChecks
from mmlora.pipeline.migrate import migrate_warehouse
from mmlora.pipeline.read import read_scores
from mmlora.pipeline.verify import verify
from mmlora.schema import IdTypes, scores_schema
from mmlora.scoring.staging import StagedWriter
from mmlora.settings import Settings
from mmlora.warehouse.warehouse import Warehouse
from mmlora.workspace import Workspace

IDS = IdTypes("string", "int64", "string")
ON = date(2001, 4, 9)
ROWS = [("a", 7, 0.75, 1), ("a", 5, 0.5, 2), ("b", 5, 0.25, 1)]


def publish(warehouse: Warehouse, folder: Path, domain: str = "news", on: date = ON) -> None:
    load = warehouse.begin_load(domain, on, model_version="v1", contract_hash="c0")
    user, item, score, position = (list(column) for column in zip(*ROWS, strict=True))
    columns = [user, item, [domain] * len(ROWS), [on] * len(ROWS), score, position]
    schema = scores_schema(IDS)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    with StagedWriter(folder / load.load_id, ids=IDS) as writer:
        writer.write(pa.Table.from_arrays(arrays, schema=schema))
    warehouse.mark_staged(load, rows=writer.rows, content_hash=writer.content_hash, checks=LoadChecks())
    warehouse.publish(load, writer.files)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds a warehouse and nothing else; the settings name another, which isn't there."""
    folder = tmp_path / "published"
    with Warehouse.open(f"sqlite:///{folder / 'warehouse.db'}", ids=IDS) as warehouse:
        publish(warehouse, tmp_path / "staging")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMLORA_HOME", str(tmp_path / "elsewhere"))
    return folder


@pytest.fixture
def workspace(home: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace that has opened its warehouse."""
    monkeypatch.setenv("MMLORA_HOME", str(home))
    migrate_warehouse()
    return Workspace(Settings())


def scores(**named: object) -> list[tuple[object, ...]]:
    with read_scores("news", **named) as reader:  # type: ignore[arg-type]
        table = reader.read_all().select(["user_id", "item_id", "score", "position"])
    return [tuple(row.values()) for row in table.to_pylist()]


@pytest.mark.parametrize("named", ["home", "url"])
def test_scores_can_be_read_with_only_the_warehouse(home: Path, named: str) -> None:
    given = {"home": home} if named == "home" else {"url": f"sqlite:///{home / 'warehouse.db'}"}
    assert scores(**given) == ROWS
    assert scores(user="b", **given) == ROWS[2:]
    with pytest.raises(UsageError, match="the domains published are news"), read_scores("old", **given):  # type: ignore[arg-type]
        pass
    assert sorted(path.name for path in home.parent.iterdir()) == ["published", "staging"]


def test_the_command_line_reads_without_a_data_folder(home: Path) -> None:
    command = [sys.executable, "-m", "mmlora_cli.main", "read", "--domain", "news", "--format", "csv"]
    for option in (["--home", str(home)], ["--url", f"sqlite:///{home / 'warehouse.db'}"]):
        done = subprocess.run([*command, *option], capture_output=True, text=True)
        assert (done.returncode, len(done.stdout.splitlines())) == (0, 4), done.stderr
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "no warehouse at" in done.stderr


def test_a_home_and_a_url_together_are_refused(home: Path) -> None:
    with pytest.raises(UsageError, match="give one of them"):
        scores(home=home, url="sqlite:///x.db")


def test_a_lost_database_is_not_silently_recreated(workspace: Workspace) -> None:
    assert scores() == ROWS
    (workspace.home / "warehouse.db").unlink()
    for use in (scores, verify, migrate_warehouse):
        with pytest.raises(ContractError, match=r"has no warehouse.*--accept-warehouse"):
            use()  # type: ignore[operator]
    assert not (workspace.home / "warehouse.db").exists()


def test_another_warehouse_at_the_same_url_is_refused_until_it_is_accepted(
    workspace: Workspace, tmp_path: Path
) -> None:
    (workspace.home / "warehouse.db").unlink()
    Warehouse.open(workspace.warehouse_url, ids=IDS).close()
    with pytest.raises(ContractError, match="has another warehouse"):
        scores()
    migrate_warehouse(accept=True)
    with pytest.raises(UsageError, match="none yet: score a date first"):
        scores()


def test_a_moved_workspace_knows_its_warehouse(workspace: Workspace, tmp_path: Path) -> None:
    moved = workspace.home.rename(tmp_path / "moved")
    assert scores(home=moved) == ROWS


def test_verify_shows_the_fault_and_the_command_and_exits_with_1(workspace: Workspace) -> None:
    command = [sys.executable, "-m", "mmlora_cli.main", "verify", "--domain", "news"]
    with Warehouse.open(workspace.warehouse_url) as warehouse, warehouse.database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM scores WHERE user_id = 'b'")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "1 of 3 rows were deleted" in done.stderr
    assert "mmlora score --date 2001-04-09 --domain news --model-version v1" in done.stderr
    assert f"model v1 (loads scored: 1 of 2001-04-09): there is no bundle {workspace.home}" in done.stderr
    with pytest.raises(UsageError, match="give the earlier date first"):
        verify(start=ON, end=date(2001, 4, 8))
