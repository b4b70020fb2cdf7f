"""Rows of an earlier load in place of scored ones give the load that scoring everybody gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from mmlora.candidates.pairs import Candidates
from mmlora.errors import MmloraError
from mmlora.numerics import here
from mmlora.scoring import carried as carrying
from mmlora.scoring import staged_shards
from mmlora.scoring.carried import CarriedRows
from mmlora.scoring.fingerprint import fingerprint_load
from mmlora.scoring.score import LocalEngine, Staged, score_work
from mmlora.scoring.shard_manifest import InterruptedShards, read_shards
from mmlora.scoring.staging import part_files
from mmlora.scoring.work import Work

CHANGED = [3, 4, 20]


def work_of(world: Any, candidates: Candidates, top_k: int) -> Work:
    features = world.features(candidates)
    return Work(
        model=world.model, encoder=world.encoder, calibration=world.calibration, items=features.items,
        domain=features.domain, ids=world.ids, domain_id=world.domain, on=world.on, top_k=top_k,
        block_rows=256,
    )  # fmt: skip


def after(users: pa.Table) -> pa.Table:
    """The features of the users on the next day: three have changed."""
    clicks = users.column("user__clicks").to_numpy().copy()
    clicks[CHANGED] += 1
    column = users.column_names.index("user__clicks")
    return users.set_column(column, "user__clicks", pa.array(clicks, pa.float32()))


def score(work: Work, candidates: Candidates, users: pa.Table, folder: Path, **options: Any) -> Staged:
    engine = LocalEngine(device="cpu", threads=1)
    return score_work(work, candidates, users, folder=folder, engine=engine, **options)


def carry(users: np.ndarray, candidates: Candidates, source: Staged, work: Work, file: Path) -> CarriedRows:
    """Take the rows of some users from a load, as of the other's date."""
    rows = pa.concat_tables([pq.read_table(part) for part in part_files(source.folder)])
    rows = rows.filter(pc.is_in(rows.column("user_id"), value_set=candidates.users.filter(pa.array(users))))
    dates = pa.repeat(pa.scalar(work.on, pa.date32()), rows.num_rows)
    dated = rows.set_column(rows.column_names.index("score_date"), "score_date", dates)
    pq.write_table(dated.cast(rows.schema), file)
    return CarriedRows("source", users, file, frozenset({here()}))


@pytest.mark.parametrize("top_k", [0, 5])
@pytest.mark.parametrize("group", [1, 37, 10**6])
def test_only_changed_users_are_scored(
    world: Any, grid: Candidates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, top_k: int, group: int
) -> None:
    monkeypatch.setattr(carrying, "ROWS_PER_GROUP", group)
    monkeypatch.setattr(staged_shards, "SHARD_PAIRS", 5 * 63)
    work, before = work_of(world, grid, top_k), world.features(grid).users
    today = replace(work, on=work.on.replace(day=2))
    source = score(work, grid, before, tmp_path / "source")
    digests = [
        fingerprint_load(work, grid, users, model="m", numerics={here()}).users
        for users in (before, after(before))
    ]
    same = (digests[0] == digests[1]).all(axis=1)
    assert np.flatnonzero(~same).tolist() == CHANGED

    whole = score(today, grid, after(before), tmp_path / "whole")
    rows = carry(same, grid, source, today, tmp_path / "rows.parquet")
    load = score(today, grid, after(before), tmp_path / "load", carried=rows)

    assert load.content_hash == whole.content_hash != source.content_hash
    assert (load.rows, load.pairs, load.numerics) == (whole.rows, whole.pairs, whole.numerics)
    assert load.scored_pairs == len(CHANGED) * 63
    facts = rows.facts(grid.kept_rows(top_k))
    assert facts.users == 37 and 0.9 < facts.share < 1


def test_nobody_is_scored_where_nobody_has_changed(world: Any, grid: Candidates, tmp_path: Path) -> None:
    work, users = work_of(world, grid, 5), world.features(grid).users
    source = score(work, grid, users, tmp_path / "source")
    rows = carry(np.ones(40, bool), grid, source, work, tmp_path / "rows.parquet")
    load = score(work, grid, users, tmp_path / "load", carried=rows)
    assert (load.content_hash, load.scored_pairs) == (source.content_hash, 0)
    assert load.numerics == source.numerics


def test_shards_of_an_interrupted_run_and_carried_rows_go_together(
    world: Any, grid: Candidates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staged_shards, "SHARD_PAIRS", 5 * 63)
    work, users = work_of(world, grid, 5), world.features(grid).users
    source = score(work, grid, users, tmp_path / "source", fingerprint="f")
    shards = read_shards([source.folder], "f")
    some = InterruptedShards({number: shards.files[number] for number in (0, 4, 7)}, shards.numerics)
    same = np.ones(40, bool)
    same[CHANGED] = False
    rows = carry(same, grid, source, work, tmp_path / "rows.parquet")
    load = score(work, grid, users, tmp_path / "load", carried=rows, interrupted=some)
    assert load.content_hash == source.content_hash
    assert (load.resumed, load.scored_pairs) == (3, 0), "users 3, 4 and 20 are in shards 0 and 4"


def test_carried_rows_of_the_wrong_number_are_refused(world: Any, grid: Candidates, tmp_path: Path) -> None:
    work, users = work_of(world, grid, 5), world.features(grid).users
    source = score(work, grid, users, tmp_path / "source")
    rows = carry(np.arange(40) < 20, grid, source, work, tmp_path / "rows.parquet")
    for number, wrong in enumerate((np.arange(40) < 21, np.arange(40) < 19)):
        with pytest.raises(MmloraError, match="another number of rows than its candidates"):
            score(work, grid, users, tmp_path / str(number), carried=replace(rows, users=wrong))
