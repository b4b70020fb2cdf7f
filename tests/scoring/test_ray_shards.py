"""Shards of users, scored one by one and put together, give the load that one machine gives; without Ray."""

from __future__ import annotations

import pickle
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmlora.candidates.pairs import Candidates, PairIndex
from mmlora.content_hash import ContentHash
from mmlora.errors import MmloraError, TransientError, UsageError
from mmlora.nights.engines import choose_engine
from mmlora.numerics import Numerics, here
from mmlora.scoring.blocks import ChunkLimits
from mmlora.scoring.ray_engine import join_cluster
from mmlora.scoring.score import LocalEngine
from mmlora.scoring.shards import PAIRS, SHARD, ShardScorer, combine, cut, pairs_of_shards
from mmlora.scoring.staging import part_files
from mmlora.scoring.work import Work
from mmlora.settings import load_settings


def work_of(world: Any, candidates: Candidates, top_k: int) -> Work:
    features = world.features(candidates)
    return Work(
        model=world.model, encoder=world.encoder, calibration=world.calibration, items=features.items,
        domain=features.domain, ids=world.ids, domain_id=world.domain, on=world.on, top_k=top_k,
        block_rows=256,
    )  # fmt: skip


def sent(value: Any) -> Any:
    """What arrives in another process."""
    return pickle.loads(pickle.dumps(value, protocol=5))


def in_shards(world: Any, candidates: Candidates, top_k: int, pairs: int) -> tuple[pa.Table, list[int]]:
    """Every shard scored by one of two workers, and what was counted."""
    users, told = world.features(candidates).users, list[int]()
    work, limits = work_of(world, candidates, top_k), ChunkLimits(pairs=pairs)
    pool = [ShardScorer.of(sent(work), listed=candidates.listed, user_schema=users.schema) for _ in range(2)]
    shards = [sent(shard) for shard in cut(candidates, users, limits)]
    assert len(shards) == len(pairs_of_shards(candidates, limits))
    scored = [pool[number % 2](shard) for number, shard in enumerate(shards)]
    pieces = [piece for table in scored for piece in (table.slice(0, 3), table.slice(3))]
    seen = set[Numerics]()
    rows = combine(work, pieces, pairs_of_shards(candidates, limits), told.append, seen.add)
    whole = pa.concat_tables(rows)
    assert seen == {here()}
    return whole, told


def some_listed(users: int, items: int) -> Candidates:
    """Pairs listed one by one; every third user and the last have none."""
    pairs = np.array([(u, i) for u in range(users - 1) if u % 3 for i in range(u % 7, items, 2 + u % 4)])
    index = PairIndex.from_rows(pairs[:, 0], pairs[:, 1], users)
    return Candidates(pa.array(range(users)), pa.array(range(100, 100 + items)), index, listed=True)


@pytest.mark.parametrize("pairs", [1, 64, 500, 10**6])
@pytest.mark.parametrize("top_k", [0, 5])
@pytest.mark.parametrize("listed", [False, True])
def test_shards_give_the_rows_of_one_machine(
    world: Any, grid: Candidates, tmp_path: Path, pairs: int, top_k: int, listed: bool
) -> None:
    candidates = some_listed(40, 63) if listed else grid
    here = world.score(candidates, tmp_path / "here", top_k=top_k)
    rows, told = in_shards(world, candidates, top_k, pairs)
    assert rows.equals(pa.concat_tables([pq.read_table(file) for file in part_files(here.folder)]))
    content = ContentHash(rows.schema)
    content.update(rows)
    assert content.hexdigest() == here.content_hash
    assert sum(told) == (candidates.num_pairs if listed else 40 * 63)


def test_shards_of_named_users(text_world: Any, text_grid: Candidates, tmp_path: Path) -> None:
    here = text_world.score(text_grid, tmp_path / "here")
    rows, _ = in_shards(text_world, text_grid, 5, 200)
    assert rows.equals(pq.read_table(here.files[0]))


def test_a_shard_carries_its_own_users_only(world: Any, grid: Candidates) -> None:
    shards = list(cut(grid, world.features(grid).users, ChunkLimits(pairs=630)))
    assert [shard.num_rows for shard in shards] == [10] * 4
    assert [shard.column(SHARD)[0].as_py() for shard in shards] == [0, 1, 2, 3]
    for number, shard in enumerate(shards):
        had = [grid.pairs.between(u, u + 1)[1].tolist() for u in range(number * 10, number * 10 + 10)]
        assert shard.column(PAIRS).to_pylist() == had


def test_a_shard_out_of_order_is_refused(world: Any, grid: Candidates) -> None:
    work, users = work_of(world, grid, 5), world.features(grid).users
    score = ShardScorer.of(work, listed=False, user_schema=users.schema)
    first, second, *_ = [score(shard) for shard in cut(grid, users, ChunkLimits(pairs=630))]
    with pytest.raises(MmloraError, match="shard 0 was scored after shard 1"):
        list(combine(work, [first, second, first], [630] * 4, lambda _: None, lambda _: None))


def test_without_ray_the_engine_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(UsageError, match=r"pip install 'mmlora\[ray\]'"):
        choose_engine(load_settings(), "ray", None)
    monkeypatch.setenv("MMLORA_SCORING__ENGINE", "ray")
    with pytest.raises(UsageError, match="Ray Data"):
        choose_engine(load_settings(), None, None)
    assert choose_engine(load_settings(), "local", None) == LocalEngine()


def test_an_address_without_the_engine_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="use --engine ray"):
        choose_engine(load_settings(), None, "10.0.0.5:6379")


def test_an_address_where_nobody_listens_is_worth_another_try() -> None:
    pytest.importorskip("ray")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(TransientError, match=f"no Ray cluster answers at '{address}'"):
        join_cluster(address)
