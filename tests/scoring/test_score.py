"""Scores against a brute-force forward pass, and bits that don't depend on how the work was cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mmlora.errors import ContractError, UsageError
from mmlora.schema import FeatureField, scores_schema
from mmlora.scoring import blocks, pair_scorer
from mmlora.scoring.candidates import Candidates, PairIndex
from mmlora.scoring.pair_scorer import Sides
from mmlora.scoring.score import SideFeatures, score_candidates
from mmlora.scoring.staging import part_files


def read(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in part_files(folder)])


def part_of(candidates: Candidates, first: int, last: int) -> Candidates:
    """The same candidates, of users first..last - 1 only."""
    user_rows, item_rows = candidates.pairs.between(first, last)
    pairs = PairIndex.from_rows(user_rows, item_rows, last - first)
    return Candidates(candidates.users[first:last], candidates.items, pairs, candidates.listed)


def as_list(candidates: Candidates) -> Candidates:
    """The same pairs, listed one by one."""
    wanted = np.ones((len(candidates.users), len(candidates.items)), dtype=bool)
    wanted[candidates.pairs.between(0, len(candidates.users))] = False
    user_rows, item_rows = (side.astype(np.int64) for side in wanted.nonzero())
    pairs = PairIndex.from_rows(user_rows, item_rows, len(candidates.users))
    return Candidates(candidates.users, candidates.items, pairs, listed=True)


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("top_k", [0, 1, 7, 1000])
@pytest.mark.parametrize("domain", ["west", "nowhere"])
def test_scores_and_choice_equal_brute_force(
    world: Any, grid: Candidates, tmp_path: Path, listed: bool, top_k: int, domain: str
) -> None:
    here = replace(world, domain=domain)
    candidates = as_list(grid) if listed else grid
    staged = here.score(candidates, tmp_path / "load", top_k=top_k)
    table = read(staged.folder)
    everything = here.all_scores(grid)

    assert table.schema.equals(scores_schema(world.ids))
    assert staged.rows == table.num_rows == grid.expected_rows(top_k)
    user_rows, item_rows = (table.column("user_id").to_numpy(), table.column("item_id").to_numpy() - 100)
    assert np.allclose(table.column("score").to_numpy(), everything[user_rows, item_rows], rtol=0, atol=1e-6)
    assert everything.std() > 0.02
    for user in range(40):
        mine = user_rows == user
        left = np.setdiff1d(np.arange(63), grid.pairs.between(user, user + 1)[1])
        assert set(item_rows[mine].tolist()) <= set(left.tolist())
        best = np.sort(everything[user, left])[::-1][: top_k or None]
        assert np.allclose(everything[user, item_rows[mine]], best, rtol=0, atol=1e-6)
        assert table.column("position").to_numpy()[mine].tolist() == list(range(1, len(best) + 1))
    assert set(table.column("domain_id").to_pylist()) == {domain}
    assert set(table.column("score_date").to_pylist()) == {world.on}


@pytest.mark.parametrize("block_rows", [256, 1024])
def test_bits_do_not_depend_on_chunks_threads_or_other_users(
    world: Any, grid: Candidates, tmp_path: Path, block_rows: int
) -> None:
    first = world.score(grid, tmp_path / "first", top_k=0, block_rows=block_rows, threads=1)
    ways: list[dict[str, Any]] = [
        {"threads": 2},
        {"chunk_pairs": 1},
        {"chunk_pairs": 500},
        {"chunk_pairs": 64},
    ]
    for number, way in enumerate(ways):
        again = world.score(grid, tmp_path / str(number), top_k=0, block_rows=block_rows, **way)
        assert again.content_hash == first.content_hash, way

    some = world.score(part_of(grid, 13, 29), tmp_path / "some", top_k=0, block_rows=block_rows)
    users = read(first.folder).column("user_id").to_numpy()
    assert read(some.folder).equals(read(first.folder).filter((users >= 13) & (users < 29)))
    listed = world.score(as_list(grid), tmp_path / "listed", top_k=0, block_rows=block_rows, chunk_pairs=300)
    assert listed.content_hash == first.content_hash


def test_bits_hold_at_the_size_of_real_blocks(world: Any, tmp_path: Path) -> None:
    users, items = pa.array(range(60)), pa.array(range(1000))
    big = Candidates(users, items, PairIndex(np.zeros(61, np.int64), np.zeros(0, np.int64)))
    hashes = {
        world.score(
            big,
            tmp_path / f"{threads}-{pairs}",
            block_rows=16384,
            top_k=0,
            threads=threads,
            chunk_pairs=pairs,
        ).content_hash
        for threads, pairs in ((1, 10**6), (2, 10**6), (1, 7777), (2, 40_000))
    }
    assert len(hashes) == 1


def test_users_computed_a_few_at_a_time_keep_their_bits(
    world: Any, grid: Candidates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = world.score(grid, tmp_path / "first", top_k=0)
    monkeypatch.setattr(blocks, "CHUNK_USERS", 7)
    assert world.score(grid, tmp_path / "few", top_k=0).content_hash == first.content_hash
    monkeypatch.setattr(pair_scorer, "_SIDE_ROWS", 3)  # another shape, so other bits, but the same scores
    again = read(world.score(grid, tmp_path / "blocks", top_k=0, threads=2).folder)
    best = read(first.folder)
    order = [("user_id", "ascending"), ("item_id", "ascending")]
    found, expected = (table.sort_by(order).column("score").to_numpy() for table in (again, best))
    assert np.allclose(found, expected, rtol=0, atol=1e-6)


def test_scoring_leaves_the_model_as_it_was(world: Any, grid: Candidates, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in world.model.state_dict().items()}
    world.score(grid, tmp_path / "load")
    after = world.model.state_dict()
    assert world.model.gate is not None
    assert after.keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in after.items())


def test_a_permutation_of_feature_columns_changes_nothing(
    world: Any, grid: Candidates, tmp_path: Path
) -> None:
    first = world.score(grid, tmp_path / "a")
    features = world.features(grid)
    turned = SideFeatures(
        *(
            table.select(table.column_names[::-1])
            for table in (features.users, features.items, features.domain)
        )
    )
    again = score_candidates(
        grid, model=world.model, encoder=world.encoder, calibration=world.calibration, features=turned,
        ids=world.ids, domain="west", on=world.on, folder=tmp_path / "b", top_k=5, block_rows=256,
    )  # fmt: skip
    assert again.content_hash == first.content_hash


def test_sides_may_come_with_the_domain_and_more_beside_them(
    world: Any, grid: Candidates, tmp_path: Path
) -> None:
    first, plain = world.score(grid, tmp_path / "a"), world.features(grid)
    users, items = (
        table.append_column("domain_id", pa.array(["west"] * len(table))).append_column(
            "event_timestamp", pa.array([0] * len(table))
        )
        for table in (plain.users, plain.items)
    )
    again = score_candidates(
        grid, model=world.model, encoder=world.encoder, calibration=world.calibration,
        features=SideFeatures(users, items, plain.domain), ids=world.ids, domain="west", on=world.on,
        folder=tmp_path / "b", top_k=5, block_rows=256,
    )  # fmt: skip
    assert again.content_hash == first.content_hash


def test_text_ids_score_like_whole_numbers(text_world: Any, text_grid: Candidates, tmp_path: Path) -> None:
    world, grid, users, items = text_world, text_grid, text_grid.users, text_grid.items
    staged = world.score(grid, tmp_path / "load", top_k=4)
    table = read(staged.folder)
    everything = world.all_scores(grid)
    for user in (0, 4, 29):
        mine = [row for row in table.to_pylist() if row["user_id"] == users[user].as_py()]
        left = np.setdiff1d(np.arange(50), grid.pairs.between(user, user + 1)[1])
        best = left[np.argsort(-everything[user, left], kind="stable")][:4]
        assert [row["item_id"] for row in mine] == items.take(pa.array(best)).to_pylist()
    assert staged.content_hash == world.score(grid, tmp_path / "b", top_k=4, chunk_pairs=99).content_hash


@pytest.mark.parametrize("users", [0, 3])
def test_nothing_to_score_is_a_load_of_no_rows(world: Any, tmp_path: Path, users: int) -> None:
    none = pa.array([], pa.int64())
    empty = Candidates(
        pa.array(range(users), pa.int64()),
        none,
        PairIndex(np.zeros(users + 1, np.int64), np.zeros(0, np.int64)),
    )
    staged = world.score(empty, tmp_path / "load")
    assert (staged.rows, staged.pairs, staged.users) == (0, 0, 0)
    assert read(staged.folder).schema.equals(scores_schema(world.ids))


def test_progress_counts_every_pair_once(world: Any, grid: Candidates, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    world.score(grid, tmp_path / "load", chunk_pairs=700, progress=lambda *now: told.append(now))
    total = 40 * 63
    assert told[-1] == ("score", total, total)
    assert [done for _, done, _ in told] == sorted({done for _, done, _ in told})
    assert len(told) >= total / 256


def test_threads_are_given_back(world: Any, grid: Candidates, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    world.score(grid, tmp_path / "load", threads=before + 1)
    assert torch.get_num_threads() == before


def test_features_of_other_candidates_are_refused(world: Any, grid: Candidates, tmp_path: Path) -> None:
    features = world.features(grid)
    wrong = [
        (SideFeatures(features.users.slice(1), features.items, features.domain), "user features"),
        (
            SideFeatures(features.users, features.items.take(pa.array([1, 0])), features.domain),
            "item features",
        ),
        (
            SideFeatures(features.users, features.items, world.features(grid, "east").domain),
            "domain features",
        ),
    ]
    for given, message in wrong:
        with pytest.raises(ContractError, match=message):
            score_candidates(
                grid, model=world.model, encoder=world.encoder, calibration=world.calibration, features=given,
                ids=world.ids, domain="west", on=world.on, folder=tmp_path / "load", top_k=5, block_rows=256,
            )  # fmt: skip
    assert not (tmp_path / "load").exists()


def test_a_field_of_user_and_item_together_is_refused() -> None:
    both = FeatureField("pair__seen", "pair", ("user_id", "item_id"), "FLOAT", "dense")
    with pytest.raises(ContractError, match="pair__seen"):
        Sides.of([both])


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_a_gpu_that_is_not_there_is_said_so(world: Any, grid: Candidates, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no GPU"):
        world.score(grid, tmp_path / "load", device="cuda")


def test_a_folder_with_rows_is_refused(world: Any, grid: Candidates, tmp_path: Path) -> None:
    world.score(grid, tmp_path / "load")
    with pytest.raises(UsageError, match="folder of its own"):
        world.score(grid, tmp_path / "load")
