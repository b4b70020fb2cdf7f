"""A load goes on with the shards of an interrupted run, and only with those that it would score itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mmlora.candidates.pairs import Candidates
from mmlora.numerics import here
from mmlora.scoring import fingerprint as fingerprints
from mmlora.scoring import staged_shards
from mmlora.scoring.fingerprint import LoadFingerprint, fingerprint_load
from mmlora.scoring.score import LocalEngine, Staged, score_work
from mmlora.scoring.shard_manifest import MANIFEST, InterruptedShards, read_shards
from mmlora.scoring.staged_shards import cut_shards
from mmlora.scoring.staging import part_files
from mmlora.scoring.work import Work


class Interrupted(Exception):
    pass


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staged_shards, "SHARD_PAIRS", 5 * 63)


def work_of(world: Any, candidates: Candidates, **changes: Any) -> Work:
    features = world.features(candidates)
    work = Work(
        model=world.model, encoder=world.encoder, calibration=world.calibration, items=features.items,
        domain=features.domain, ids=world.ids, domain_id=world.domain, on=world.on, top_k=5, block_rows=256,
    )  # fmt: skip
    return replace(work, **changes)


def fingerprint_of(world: Any, candidates: Candidates, **changes: Any) -> LoadFingerprint:
    options = {"model": "m", "numerics": {here()}} | {
        name: changes.pop(name) for name in ("model", "numerics") if name in changes
    }
    users = changes.pop("users", world.features(candidates).users)
    return fingerprint_load(work_of(world, candidates, **changes), candidates, users, **options)


def score(
    world: Any,
    candidates: Candidates,
    folder: Path,
    interrupted: InterruptedShards | None = None,
    stop_after: float = 1,
) -> Staged:
    def progress(what: str, done: int, total: int) -> None:
        if done > stop_after * total:
            raise Interrupted

    return score_work(
        work_of(world, candidates),
        candidates,
        world.features(candidates).users,
        folder=folder,
        engine=LocalEngine(device="cpu"),
        fingerprint="f",
        interrupted=interrupted or InterruptedShards(),
        progress=progress,
    )


@pytest.fixture
def left(world: Any, grid: Candidates, tmp_path: Path) -> Path:
    """The folder of a load that was interrupted after half of its 8 shards."""
    with pytest.raises(Interrupted):
        score(world, grid, tmp_path / "left", stop_after=0.5)
    return tmp_path / "left"


def test_complete_shards_are_taken_over_and_the_rest_is_scored(
    world: Any, grid: Candidates, tmp_path: Path, left: Path
) -> None:
    whole = score(world, grid, tmp_path / "whole")
    shards = read_shards([left], "f")
    assert sorted(shards.files) == [0, 1, 2, 3] and shards.numerics == {here()}
    taken = {path.name: path.read_bytes() for path in shards.files.values()}

    resumed = score(world, grid, tmp_path / "resumed", shards)

    assert (resumed.shards, resumed.resumed, whole.resumed) == (8, 4, 0)
    assert resumed.scored_pairs == whole.scored_pairs / 2 == 4 * 5 * 63
    assert (resumed.content_hash, resumed.rows) == (whole.content_hash, whole.rows)
    assert {path.name: path.read_bytes() for path in part_files(tmp_path / "resumed")[:4]} == taken
    assert part_files(left) == [], "files are moved, not copied"


def test_interrupted_again_nothing_is_lost(world: Any, grid: Candidates, tmp_path: Path, left: Path) -> None:
    with pytest.raises(Interrupted):
        score(world, grid, tmp_path / "second", read_shards([left], "f"), stop_after=0.5)
    shards = read_shards([left, tmp_path / "second"], "f")
    assert sorted(shards.files) == [0, 1, 2, 3, 4, 5]
    third = score(world, grid, tmp_path / "third", shards)
    assert third.content_hash == score(world, grid, tmp_path / "whole").content_hash
    complete = read_shards([tmp_path / "third"], "f")
    fourth = score(world, grid, tmp_path / "fourth", complete)
    assert (fourth.resumed, fourth.scored_pairs, fourth.content_hash) == (8, 0, third.content_hash)


def cut(files: list[Path]) -> None:
    files[1].write_bytes(files[1].read_bytes()[:-1])


def flip(files: list[Path]) -> None:
    content = bytearray(files[1].read_bytes())
    content[len(content) // 2] ^= 1
    files[1].write_bytes(bytes(content))


def swap(files: list[Path]) -> None:
    first, second = (file.read_bytes() for file in files[1:3])
    files[1].write_bytes(second)
    files[2].write_bytes(first)


def lose(files: list[Path]) -> None:
    files[1].unlink()


def forget(files: list[Path]) -> None:
    """As after a kill between the renaming of a shard and its entry in the manifest."""
    path = files[0].parent / MANIFEST
    manifest = json.loads(path.read_text())
    del manifest["files"][files[1].name]
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(("damage", "trusted"), [(cut, 3), (flip, 3), (swap, 2), (lose, 3), (forget, 3)])
def test_a_damaged_shard_is_scored_again(
    world: Any,
    grid: Candidates,
    tmp_path: Path,
    left: Path,
    damage: Callable[[list[Path]], None],
    trusted: int,
) -> None:
    damage(part_files(left))
    resumed = score(world, grid, tmp_path / "resumed", read_shards([left], "f"))
    assert resumed.resumed == trusted
    assert resumed.content_hash == score(world, grid, tmp_path / "whole").content_hash


@pytest.mark.parametrize("content", ["{", "[]", '{"fingerprint": "f"}', '{"fingerprint": "f", "files": 1}'])
def test_a_damaged_manifest_vouches_for_nothing(left: Path, content: str) -> None:
    (left / MANIFEST).write_text(content)
    assert read_shards([left], "f") == InterruptedShards()


def test_shards_of_another_load_are_not_taken(left: Path, tmp_path: Path) -> None:
    assert read_shards([left, tmp_path], "another") == InterruptedShards()


def test_everything_that_rows_depend_on_is_in_the_fingerprint(
    world: Any, grid: Candidates, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fingerprint_of(world, grid)
    assert fingerprint_of(world, grid).whole == first.whole

    another = replace(here(), processor="another")
    features = world.features(grid)
    price = features.items.column("item__price").to_numpy().copy()
    price[7] += 1
    prices = features.items.set_column(
        features.items.column_names.index("item__price"), "item__price", pa.array(price)
    )
    changes: list[dict[str, Any]] = [
        {"model": "another"}, {"numerics": {another}}, {"numerics": {here(), another}}, {"top_k": 4},
        {"precision": "bfloat16"}, {"block_rows": 512}, {"domain_id": "east"}, {"items": prices},
    ]  # fmt: skip
    for change in changes:
        assert fingerprint_of(world, grid, **change).shared != first.shared, change
    dated = fingerprint_of(world, grid, on=world.on.replace(day=2))
    assert dated.shared == first.shared and dated.whole != first.whole
    monkeypatch.setattr(fingerprints, "_code", lambda: "changed")
    assert fingerprint_of(world, grid).shared != first.shared


def test_a_users_digest_follows_features_and_pairs_of_that_user_alone(world: Any, grid: Candidates) -> None:
    first = fingerprint_of(world, grid)
    users = world.features(grid).users
    ages = users.column("user__age").to_numpy().copy()
    ages[[3, 20]] = 5, 6
    changed = users.set_column(users.column_names.index("user__age"), "user__age", pa.array(ages))
    expected = np.flatnonzero(ages != users.column("user__age").to_numpy()).tolist()
    assert expected
    second = fingerprint_of(world, grid, users=changed)
    assert np.flatnonzero((first.users != second.users).any(axis=1)).tolist() == expected
    assert second.shared == first.shared and second.whole != first.whole

    item_rows = grid.pairs.item_rows.copy()
    item_rows[grid.pairs.starts[2]] = 60  # another item is left out for user 2
    third = fingerprint_of(world, replace(grid, pairs=replace(grid.pairs, item_rows=item_rows)))
    assert np.flatnonzero((first.users != third.users).any(axis=1)).tolist() == [2]

    domain = world.features(grid).domain
    larger = domain.set_column(1, "domain__size", pa.array([9.0], pa.float32()))
    fourth = fingerprint_of(world, grid, domain=larger)
    assert (first.users != fourth.users).any(axis=1).all(), "the domain's features are every user's"


@pytest.mark.parametrize("top_k", [0, 2, 5])
def test_shards_hold_every_user_once_within_their_limits(
    grid: Candidates, top_k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pairs, rows in ((1, 10**9), (200, 10**9), (10**9, 20), (500, 100), (10**9, 10**9)):
        monkeypatch.setattr(staged_shards, "SHARD_PAIRS", pairs)
        monkeypatch.setattr(staged_shards, "SHARD_ROWS", rows)
        shards = cut_shards(grid, top_k)
        assert [shard.first for shard in shards] == [0, *(shard.last for shard in shards[:-1])]
        assert shards[-1].last == 40
        assert sum(shard.rows for shard in shards) == grid.expected_rows(top_k)
        for shard in shards:
            users = shard.last - shard.first
            assert users == 1 or (users * 63 <= pairs and shard.rows <= rows)
    assert len(shards) == 1
