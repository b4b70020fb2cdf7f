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

from mmlora.candidates.pairs import Candidates, PairIndex
from mmlora.errors import ContractError, UsageError
from mmlora.metrics.ranking import auc
from mmlora.models.builder import BACKBONES
from mmlora.models.calibration import Calibration
from mmlora.schema import FeatureField, IdTypes, scores_schema
from mmlora.scoring import devices, pair_scorer
from mmlora.scoring.blocks import ChunkLimits
from mmlora.scoring.pair_scorer import Sides
from mmlora.scoring.score import LocalEngine, SideFeatures, score_candidates
from mmlora.scoring.staging import part_files
from mmlora.scoring.work import Work
from tests.offsets import OFFSETS, at_offset


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


BFLOAT16 = devices.has_bfloat16("cpu")
PRECISIONS = pytest.mark.parametrize(
    "precision",
    [
        "float32",
        pytest.param(
            "bfloat16", marks=pytest.mark.skipif(not BFLOAT16, reason="the processor has no bfloat16")
        ),
    ],
)


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


@PRECISIONS
@pytest.mark.parametrize("block_rows", [256, 1024])
def test_bits_do_not_depend_on_memory_threads_or_other_users(
    world: Any, grid: Candidates, tmp_path: Path, block_rows: int, precision: str
) -> None:
    how: dict[str, Any] = {"top_k": 0, "block_rows": block_rows, "precision": precision}
    first = world.score(grid, tmp_path / "first", threads=1, **how)
    ways: list[dict[str, Any]] = [
        {"threads": 2},
        {"memory": 1},
        {"memory": 60_000},
        {"memory": 20_000, "threads": 3},
    ]
    for number, way in enumerate(ways):
        again = world.score(grid, tmp_path / str(number), **way, **how)
        assert again.content_hash == first.content_hash, way

    some = world.score(part_of(grid, 13, 29), tmp_path / "some", **how)
    users = read(first.folder).column("user_id").to_numpy()
    assert read(some.folder).equals(read(first.folder).filter((users >= 13) & (users < 29)))
    listed = world.score(as_list(grid), tmp_path / "listed", memory=60_000, **how)
    assert listed.content_hash == first.content_hash


@pytest.mark.skipif(not BFLOAT16, reason="the processor has no bfloat16")
@pytest.mark.parametrize("backbone", sorted(BACKBONES))
def test_bfloat16_keeps_the_best_in_their_order_however_the_work_is_cut(
    world_maker: Any, grid: Candidates, tmp_path: Path, backbone: str
) -> None:
    world = world_maker(grid.users, grid.items, IdTypes(), backbone)
    ways = ({"threads": 1}, {"threads": 2, "memory": 20_000})
    hashes = [
        world.score(grid, tmp_path / str(number), precision="bfloat16", **way).content_hash
        for number, way in enumerate(ways)
    ]
    assert hashes[0] == hashes[1]
    assert hashes[0] != world.score(grid, tmp_path / "float32").content_hash


@PRECISIONS
@pytest.mark.parametrize("backbone", sorted(BACKBONES))
def test_bits_do_not_depend_on_where_the_weights_lie(
    world_maker: Any, grid: Candidates, tmp_path: Path, backbone: str, precision: str
) -> None:
    world = world_maker(grid.users, grid.items, IdTypes(), backbone)
    hashes = set()
    for offset in OFFSETS:
        moved = replace(world, model=at_offset(world.model, offset))
        hashes.add(moved.score(grid, tmp_path / str(offset), precision=precision, threads=1).content_hash)
    assert len(hashes) == 1


@PRECISIONS
def test_bits_hold_at_the_size_of_real_blocks(world: Any, tmp_path: Path, precision: str) -> None:
    users, items = pa.array(range(60)), pa.array(range(1000))
    big = Candidates(users, items, PairIndex(np.zeros(61, np.int64), np.zeros(0, np.int64)))
    hashes = {
        world.score(
            big,
            tmp_path / f"{threads}-{memory}",
            block_rows=16384,
            top_k=0,
            threads=threads,
            memory=memory,
            precision=precision,
        ).content_hash
        for threads, memory in ((1, 10**9), (2, 10**9), (1, 10**6), (2, 5 * 10**6))
    }
    assert len(hashes) == 1


@pytest.mark.skipif(not BFLOAT16, reason="the processor has no bfloat16")
@pytest.mark.parametrize("backbone", sorted(BACKBONES))
def test_bfloat16_scores_are_near_and_as_good(world_maker: Any, tmp_path: Path, backbone: str) -> None:
    users, items = pa.array(range(120)), pa.array(range(100, 400))
    everything = Candidates(users, items, PairIndex(np.zeros(121, np.int64), np.zeros(0, np.int64)))
    world = world_maker(users, items, IdTypes(), backbone)
    with torch.no_grad():  # lest cross networks of random weights explode
        for value in world.model.parameters():
            value.mul_(0.5)

    def logits(name: str, precision: str, calibration: Calibration) -> np.ndarray:
        here = replace(world, calibration=calibration)
        table = read(here.score(everything, tmp_path / name, top_k=0, precision=precision).folder)
        ordered = table.sort_by([("user_id", "ascending"), ("item_id", "ascending")])
        score = ordered.column("score").to_numpy().astype(np.float64)
        return np.log(score / (1 - score))

    raw = logits("raw", "float32", Calibration(1.0, 0.0, (0.0, 0.0)))
    scale, shift = 1.5 / raw.std(), -1.5 * raw.mean() / raw.std()
    spread = Calibration(scale, shift, (shift, shift))  # as wide as a trained model's
    exact, near = logits("float32", "float32", spread), logits("bfloat16", "bfloat16", spread)
    # Rows to test on, whose labels are drawn by the model's own scores.
    label = (np.random.default_rng(0).random(len(exact)) < 1 / (1 + np.exp(-exact))).astype(np.int8)
    before, after = auc(label, exact), auc(label, near)
    assert before is not None and after is not None and before > 0.75
    # Of random weights; a trained model's moves less: tests/benchmarks/test_movielens_bfloat16.py.
    assert abs(before - after) < 3e-4
    assert 0 < (exact - near).std() < 0.05


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("top_k", [0, 3])
def test_chunks_hold_what_the_memory_allows_and_every_user_once(
    grid: Candidates, listed: bool, top_k: int
) -> None:
    candidates = as_list(grid) if listed else grid
    whole = ChunkLimits(10**9, user_bytes=100, top_k=top_k)
    assert [(chunk.first, chunk.last) for chunk in whole.cut(candidates)] == [(0, 40)]
    least = whole.largest_user(candidates)
    sizes = []
    for memory in (1, least, 3 * least, 8 * least):
        limits = replace(whole, memory=memory)
        chunks = list(limits.cut(candidates))
        assert [chunk.first for chunk in chunks] == [0, *(chunk.last for chunk in chunks[:-1])]
        assert chunks[-1].last == 40
        for chunk in chunks:
            part = part_of(candidates, chunk.first, chunk.last)
            fits = [(found.first, found.last) for found in replace(limits, memory=memory).cut(part)]
            assert len(fits) == 1
        sizes.append(max(chunk.last - chunk.first for chunk in chunks))
    assert sizes[0] == 1 and sizes == sorted(sizes) and sizes[-1] >= 8
    # Heavier sides and longer lists take users from a chunk.
    heavier = replace(whole, memory=8 * least, user_bytes=4 * least)
    assert max(chunk.last - chunk.first for chunk in heavier.cut(candidates)) < sizes[-1]


@pytest.mark.parametrize("backbone", ["wdl", "fibinet"])
def test_a_users_side_is_weighed_before_any_is_computed(
    world_maker: Any, grid: Candidates, backbone: str
) -> None:
    world = world_maker(grid.users, grid.items, IdTypes(), backbone)
    features = world.features(grid)
    work = Work(
        model=world.model, encoder=world.encoder, calibration=world.calibration, items=features.items,
        domain=features.domain, ids=world.ids, domain_id="west", on=world.on, top_k=5, block_rows=256,
    )  # fmt: skip
    scorer = work.scorer(features.users)
    side = scorer.user_side(0, 40)
    assert scorer.user_bytes == sum(tensor.nbytes for tensor in side) // 40 > 64 * 4
    assert work.user_bytes(features.users.schema) == scorer.user_bytes
    if BFLOAT16:
        halved = replace(work, precision="bfloat16").user_bytes(features.users.schema)
        assert scorer.user_bytes // 2 <= halved < scorer.user_bytes


def test_too_little_memory_for_a_user_is_said_and_does_no_harm(
    world: Any, grid: Candidates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = world.score(grid, tmp_path / "enough", memory=1 << 20)
    assert not caplog.records
    assert world.score(grid, tmp_path / "little", memory=1).content_hash == first.content_hash
    (record,) = caplog.records
    assert "scoring one user at a time; raise [scoring] memory_mb" in record.getMessage()


def test_sides_computed_a_few_at_a_time_keep_their_scores(
    world: Any, grid: Candidates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = world.score(grid, tmp_path / "first", top_k=0)
    monkeypatch.setattr(pair_scorer, "SIDE_ROWS", 3)  # another shape, so other bits, but the same scores
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
        engine=LocalEngine(device="cpu"),
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
        folder=tmp_path / "b", top_k=5, block_rows=256, engine=LocalEngine(device="cpu"),
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
    assert staged.content_hash == world.score(grid, tmp_path / "b", top_k=4, memory=20_000).content_hash


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
    world.score(grid, tmp_path / "load", memory=100_000, progress=lambda *now: told.append(now))
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
def test_a_gpu_that_is_not_there_is_said_so() -> None:
    with pytest.raises(UsageError, match="doesn't find a GPU"):
        LocalEngine(device="cuda")


def test_a_folder_with_rows_is_refused(world: Any, grid: Candidates, tmp_path: Path) -> None:
    world.score(grid, tmp_path / "load")
    with pytest.raises(UsageError, match="folder of its own"):
        world.score(grid, tmp_path / "load")
