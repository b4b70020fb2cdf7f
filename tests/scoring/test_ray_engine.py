"""Ray on a cluster of two nodes: the rows of the local engine, whoever dies on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmlora.candidates.pairs import Candidates
from mmlora.encoding import EncodedColumns, Encoder
from mmlora.errors import ContractError, TransientError
from mmlora.load_checks import Resumed
from mmlora.nights import carrying
from mmlora.nights.load import score
from mmlora.pipeline.backfill import backfill
from mmlora.pipeline.score import score_and_publish
from mmlora.schema import IdTypes
from mmlora.scoring import ray_engine, staged_shards
from mmlora.scoring.ray_engine import RayEngine
from mmlora.scoring.staging import part_files
from mmlora.workspace import open_workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of two CPUs each, with little memory for objects."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 2, "object_store_memory": 100 * 2**20}
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MKL_CBWR")  # a cluster that is there already has it from nobody
        found = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        found.add_node(**node)
    yield found
    ray.shutdown()
    found.shutdown()


@pytest.fixture
def engine(cluster: Any) -> RayEngine:
    return RayEngine(cluster.address, shard_pairs=120)


def read(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in part_files(folder)])


def worker_processes() -> list[int]:
    """The pool's workers among this process's descendants."""
    parents, names = dict[int, int](), dict[int, str]()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            names[int(folder.name)] = (folder / "cmdline").read_text()
            parents[int(folder.name)] = int(stat[1])
        except OSError:
            continue

    def is_mine(process: int) -> bool:
        while process in parents:
            process = parents[process]
            if process == os.getpid():
                return True
        return False

    return [
        process for process, name in names.items() if name.startswith("ray::MapWorker") and is_mine(process)
    ]


@pytest.mark.parametrize("backbone", ["wdl", "deepfm", "autoint"])
@pytest.mark.parametrize("top_k", [0, 5])
def test_rows_are_those_of_the_local_engine(
    world_maker: Any, grid: Candidates, tmp_path: Path, engine: RayEngine, backbone: str, top_k: int
) -> None:
    world = world_maker(grid.users, grid.items, IdTypes(), backbone)
    here, there = (
        world.score(grid, tmp_path / name, top_k=top_k, engine=who)
        for name, who in (("here", None), ("there", engine))
    )
    assert there.content_hash == here.content_hash
    assert read(there.folder).equals(read(here.folder))
    assert there.rows == grid.expected_rows(top_k)
    assert there.numerics == here.numerics, "its workers have MKL's mode, though the cluster had not"


def test_the_verbs_use_it(trained_workspace: Path, cluster: Any) -> None:
    on, there = date(2001, 4, 9), {"engine": "ray", "ray_address": cluster.address}
    loads = [score(on, "news", **way) for way in ({}, there)]
    with open_workspace().open_warehouse() as warehouse:
        here, found = (warehouse.load(load) for load in loads)
    assert found.same_rows_as(here)
    assert found.rows == here.rows > 0
    filled = backfill("news", on - timedelta(days=1), on, **there)
    assert [load.state for load in filled.loads] == ["published"] * 2


def test_a_killed_load_goes_on_with_its_shards(
    trained_workspace: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    on, there = date(2001, 4, 9), {"engine": "ray", "ray_address": cluster.address}
    undisturbed = score(on, "sport", **there)
    script = (
        "import functools, os, signal\n"
        "from datetime import date\n"
        "from mmlora.nights.load import score\n"
        "from mmlora.scoring import ray_engine, staged_shards\n"
        "staged_shards.SHARD_PAIRS = 400\n"
        "ray_engine.RayEngine = functools.partial(ray_engine.RayEngine, shard_pairs=400)\n"
        "def die(what, done, total):\n"
        "    if what.startswith('score') and done * 2 > total:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        f"score(date(2001, 4, 9), 'sport', progress=die, **{there})\n"
    )
    died = subprocess.run([sys.executable, "-c", script], timeout=600, check=False)
    assert died.returncode == -signal.SIGKILL
    monkeypatch.setattr(staged_shards, "SHARD_PAIRS", 400)
    counted = []
    resumed = score(on, "sport", progress=lambda *said: counted.append(said), **there)
    with open_workspace().open_warehouse() as warehouse:
        before, after = warehouse.load(undisturbed), warehouse.load(resumed)
    assert after.checks.resumed == Resumed(shards=6, staged=3)
    assert counted[-1][1:] == (after.checks.items * 30,) * 2, "half of the users were scored"
    assert after.same_rows_as(before)


@pytest.mark.parametrize("engines", [("local", "ray"), ("ray", "local"), ("ray", "ray")])
def test_rows_are_carried_over_from_either_engine(
    trained_workspace: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch, engines: tuple[str, str]
) -> None:
    on, ways = date(2001, 4, 9), {"local": {}, "ray": {"engine": "ray", "ray_address": cluster.address}}
    last_night, tonight = (ways[engine] for engine in engines)
    whole = score(on, "sport")
    monkeypatch.setenv("MMLORA_SCORING__CARRY_OVER", "true")
    monkeypatch.setattr(carrying, "PAIRS_PER_ROW", 0)
    monkeypatch.setattr(ray_engine, "_SHARD_PAIRS", 400)
    (before,) = score_and_publish(on - timedelta(days=1), domain="sport", **last_night).loads
    counted = []
    (after,) = score_and_publish(
        on, domain="sport", progress=lambda *said: counted.append(said), **tonight
    ).loads
    assert before.carried is None and after.carried is not None
    with open_workspace().open_warehouse() as warehouse:
        loads = [warehouse.load(load) for load in (whole, str(after.load_id))]
        published = pa.Table.from_batches(warehouse.rows_of(loads[1]))
    carried = loads[1].checks.carried
    assert carried.load_id == before.load_id and 0 < carried.users < loads[1].checks.users
    scored = (loads[1].checks.users - carried.users) * loads[1].checks.items
    assert [row[2] for row in counted if row[0] == "score sport"][-1] == scored, "only the others were scored"
    assert loads[1].same_rows_as(loads[0]) and published.num_rows == loads[0].rows > 0


def test_a_cluster_keeps_a_cpu_free(engine: RayEngine) -> None:
    ray_engine.join_cluster(engine.address)
    assert [ray_engine.room_for_workers(threads) for threads in (1, 2, 4)] == [3, 1, 1]


def test_a_killed_worker_loses_and_doubles_nothing(
    world: Any, grid: Candidates, tmp_path: Path, engine: RayEngine
) -> None:
    here = world.score(grid, tmp_path / "here", top_k=0)
    killed: list[int] = []

    def kill_the_workers(what: str, done: int, total: int) -> None:
        if not killed and done < total / 2:
            killed.extend(worker_processes())
            for process in killed:
                os.kill(process, signal.SIGKILL)

    there = world.score(grid, tmp_path / "there", top_k=0, engine=engine, progress=kill_the_workers)
    assert killed
    assert not set(killed) & set(worker_processes())
    assert there.content_hash == here.content_hash
    assert read(there.folder).equals(read(here.folder))


@dataclass(frozen=True)
class Poison(Encoder):
    """Kills the worker that encodes users."""

    def encode(self, table: pa.Table, *rest: Any) -> EncodedColumns:
        if "user_id" in table.column_names and table.num_rows:
            os._exit(1)
        return super().encode(table, *rest)


def test_a_shard_that_kills_every_worker_is_given_up(
    world: Any, grid: Candidates, tmp_path: Path, engine: RayEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_engine, "ATTEMPTS", 2)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    encoder = world.encoder
    poison = Poison(encoder.contract, encoder.domains, encoder.fields)
    with pytest.raises(TransientError, match="the Ray cluster gave up"):
        replace(world, encoder=poison).score(
            grid, tmp_path / "load", engine=replace(engine, shard_pairs=2520)
        )
    assert part_files(tmp_path / "load") == []


def test_workers_with_another_version_are_refused(
    world: Any, grid: Candidates, tmp_path: Path, engine: RayEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_engine, "library_versions", lambda: {"mmlora": "0.0.1", "torch": "2.13.0"})
    with pytest.raises(ContractError, match="install the same versions on all nodes"):
        world.score(grid, tmp_path / "load", engine=engine)


def test_a_lost_node_loses_nothing(
    world: Any, grid: Candidates, tmp_path: Path, engine: RayEngine, cluster: Any
) -> None:
    here = world.score(grid, tmp_path / "here", top_k=0)

    def lose_a_node(what: str, done: int, total: int) -> None:
        if len(cluster.list_all_nodes()) > 1:
            cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)

    there = world.score(grid, tmp_path / "there", top_k=0, engine=engine, progress=lose_a_node)
    assert len(cluster.list_all_nodes()) == 1
    assert there.content_hash == here.content_hash
