"""Loads that go on where an interrupted run of the same load ended; the kill itself is in test_loads."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from mmlora.load_checks import Resumed
from mmlora.nights.load import score
from mmlora.pipeline.compare import dry_run
from mmlora.pipeline.score import score_and_publish
from mmlora.scoring import staged_shards
from mmlora.scoring.shard_manifest import MANIFEST
from mmlora.scoring.staging import part_files
from mmlora.warehouse.loads import Load
from mmlora.workspace import open_workspace
from mmlora_cli.main import app

ON = date(2001, 4, 9)


class Interrupted(Exception):
    pass


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staged_shards, "SHARD_PAIRS", 400)


def stop_halfway(what: str, done: int, total: int) -> None:
    if what.startswith("score") and done * 2 > total:
        raise Interrupted


def interrupt(**options: Any) -> Path:
    """Interrupt a load of six shards after three; return its folder."""
    before = set(staging().glob("*"))
    with pytest.raises(Interrupted):
        score(ON, "sport", progress=stop_halfway, **options)
    (folder,) = set(staging().glob("*")) - before
    return folder


def staging() -> Path:
    return open_workspace().home / "staging"


def load_of(load_id: str) -> Load:
    with open_workspace().open_warehouse() as warehouse:
        return warehouse.load(load_id)


def resumed(load_id: str) -> Resumed | None:
    checks = load_of(load_id).checks
    assert checks is not None
    return checks.resumed


def test_an_interrupted_load_goes_on_and_says_so(trained_workspace: Path) -> None:
    whole = load_of(score(ON, "sport"))
    folder = interrupt()
    assert load_of(folder.name).state == "failed"
    assert len(part_files(folder)) == 3

    load_id = score(ON, "sport")

    assert resumed(load_id) == Resumed(shards=6, staged=3)
    assert load_of(load_id).same_rows_as(whole)
    assert not folder.exists()
    assert sorted(path.name for path in (staging() / load_id).iterdir()) == [
        f"part-0000{number}.parquet" for number in range(6)
    ]
    assert resumed(score(ON, "sport")) is None, "a staged load keeps its shards"
    interrupt()
    shown = CliRunner().invoke(app, ["score", "--date", str(ON), "--domain", "sport"])
    assert "sport: resumed: 3 of 6 shards were staged by an interrupted run" in shown.output


def another_model(version: str) -> dict[str, Any]:
    bundles = open_workspace().bundles
    other = bundles.save(replace(bundles.load(version).manifest, block_rows=8192))
    return {"model_version": other}


def another_top_k(version: str) -> dict[str, Any]:
    return {"top_k": 4}


def another_date(version: str) -> dict[str, Any]:
    return {"on": date(2001, 4, 8)}


def other_candidates(version: str) -> dict[str, Any]:
    pairs = {"user_id": ["u01", "u01", "u02"], "item_id": [101, 102, 101]}
    pq.write_table(pa.table(pairs), "pairs.parquet")
    return {"pairs": "pairs.parquet"}


@pytest.mark.parametrize(
    "change",
    [
        another_model,
        *(
            pytest.param(each, marks=pytest.mark.slow)
            for each in (another_top_k, another_date, other_candidates)
        ),
    ],
)
def test_another_load_takes_nothing_over(
    trained: tuple[Path, str], trained_workspace: Path, change: Callable[[str], dict[str, Any]]
) -> None:
    folder = interrupt()
    options = {"on": ON, "domain": "sport"} | change(trained[1])
    assert resumed(score(**options)) is None
    assert len(part_files(folder)) == 3, "the interrupted load itself can still be resumed"


def test_two_at_once_share_and_destroy_nothing(trained_workspace: Path) -> None:
    other: list[str] = []

    def meanwhile(what: str, done: int, total: int) -> None:
        if not other and what.startswith("score") and done * 2 > total:
            (mine,) = staging().iterdir()
            assert (mine / MANIFEST).exists()
            outcome = score_and_publish(ON, domain="sport")
            assert outcome.loads[0].state == "published" and outcome.loads[0].resumed is None
            other.append(str(outcome.loads[0].load_id))

    load_id = score(ON, "sport", progress=meanwhile)
    assert resumed(load_id) is None
    assert load_of(load_id).same_rows_as(load_of(other[0]))


@pytest.mark.slow
def test_a_running_load_is_not_taken_from_another_machine(
    trained_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = interrupt()
    with open_workspace().open_warehouse() as warehouse:
        running = warehouse.begin_load("sport", ON, model_version="v1", contract_hash="c0")
    left = shutil.move(folder, folder.with_name(running.load_id))
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("socket.gethostname", lambda: "elsewhere")
        assert resumed(score(ON, "sport")) is None
        assert len(part_files(Path(left))) == 3
    assert resumed(score(ON, "sport")) == Resumed(shards=6, staged=3)
    assert load_of(running.load_id).state == "failed"


@pytest.mark.slow
def test_a_dry_run_leaves_interrupted_loads_alone(trained_workspace: Path) -> None:
    folder = interrupt()
    (row,) = dry_run(ON, domain="sport").loads
    assert row.state == "would publish"
    assert len(part_files(folder)) == 3
    with pytest.raises(Interrupted):
        score(ON, "sport", dry_run=True, progress=stop_halfway)
    assert list(staging().iterdir()) == [folder]
