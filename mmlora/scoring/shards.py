"""Shards: some users of a load in one Arrow table, with their features and pairs, to be scored remotely.

A shard is one chunk (:class:`~mmlora.scoring.blocks.ChunkLimits`) with one row per user. In addition to the
features it has the shard's number and each user's listed or excluded items, as row numbers of the items.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa

from mmlora.candidates.pairs import Candidates, PairIndex
from mmlora.errors import MmloraError
from mmlora.numerics import Numerics, here
from mmlora.schema import ITEM_ID, USER_ID, scores_schema
from mmlora.scoring.blocks import Chunk, ChunkLimits
from mmlora.scoring.pair_scorer import PairScorer
from mmlora.scoring.work import ComputedBy, Count, Work
from mmlora.scoring.workers import ParallelMap

SHARD, PAIRS, NUMERICS = "__shard", "__pairs", "__numerics"


def cut(candidates: Candidates, users: pa.Table, limits: ChunkLimits) -> Iterator[pa.Table]:
    """Divide the users into shards; chunks without any pair are left out.

    Args:
        candidates: the pairs.
        users: one row per candidate user, in their order, with the fields keyed by the user.
        limits: limits of a shard.
    """
    for number, chunk in enumerate(_with_pairs(candidates, limits)):
        rows = chunk.last - chunk.first
        features = users.slice(chunk.first, rows)
        yield features.append_column(SHARD, pa.repeat(pa.scalar(number, pa.int32()), rows)).append_column(
            PAIRS, _pairs(candidates.pairs, chunk.first, chunk.last)
        )


def pairs_of_shards(candidates: Candidates, limits: ChunkLimits) -> list[int]:
    """Return the number of pairs per shard, with excluded pairs."""
    return [chunk.pairs for chunk in _with_pairs(candidates, limits)]


def _with_pairs(candidates: Candidates, limits: ChunkLimits) -> Iterator[Chunk]:
    return (chunk for chunk in limits.cut(candidates) if chunk.pairs)


def _pairs(index: PairIndex, first: int, last: int) -> pa.LargeListArray:
    starts = index.starts[first : last + 1]
    items = index.item_rows[starts[0] : starts[-1]].astype(np.int32)
    return pa.LargeListArray.from_arrays(pa.array(starts - starts[0]), pa.array(items))


@dataclass(frozen=True)
class ShardScorer:
    """A scorer of shards that computes the items' side once.

    Attributes:
        work: model, items and domain to score with.
        listed: whether a shard's pairs are those to score, or those to exclude.
        scorer: scorer with the items' side.
        run: map that computes blocks in parallel.
    """

    work: Work
    listed: bool
    scorer: PairScorer
    run: ParallelMap = map

    @classmethod
    def of(cls, work: Work, *, listed: bool, user_schema: pa.Schema, run: ParallelMap = map) -> ShardScorer:
        """Compute the items' side, for shards with features of this schema."""
        return cls(work, listed, work.scorer(user_schema.empty_table(), run=run), run)

    def __call__(self, shard: pa.Table) -> pa.Table:
        """Score a shard; return its users' best rows with the shard's number and the numerics."""
        pairs = shard.column(PAIRS).combine_chunks()
        # Copies, because arrays in shared memory are read-only.
        index = PairIndex(
            np.array(pairs.offsets, np.int64) - pairs.offsets[0].as_py(),
            np.array(pairs.flatten(), np.int64),
        )
        candidates = Candidates(
            shard.column(USER_ID).combine_chunks(),
            self.work.items.column(ITEM_ID).combine_chunks(),
            index,
            self.listed,
        )
        scorer = self.scorer.with_users(shard.drop_columns([SHARD, PAIRS]))
        chunk = Chunk(candidates, 0, shard.num_rows)
        scored = self.work.table(chunk, scorer, count=lambda _: None, run=self.run)
        number = pa.scalar(shard.column(SHARD)[0].as_py(), pa.int32())
        numerics = pa.DictionaryArray.from_arrays(
            pa.repeat(pa.scalar(0, pa.int8()), scored.num_rows), pa.array([json.dumps(asdict(here()))])
        )
        numbers = pa.repeat(number, scored.num_rows)
        return scored.append_column(SHARD, numbers).append_column(NUMERICS, numerics)


def combine(
    work: Work, scored: Iterable[pa.Table], pairs: list[int], count: Count, computed_by: ComputedBy
) -> Iterator[pa.Table]:
    """Check the order of scored tables, and yield them without the shards' numbers and numerics.

    Args:
        work: what they were scored with.
        scored: results of :class:`ShardScorer`; a shard's rows may be in several tables.
        pairs: number of pairs of each shard.
        count: called with the number of pairs of each shard when its rows arrive.
        computed_by: called with the numerics of the rows.

    Raises:
        MmloraError: the shards aren't in order, so rows may be lost or duplicated.
    """
    schema, reached = scores_schema(work.ids), -1
    for table in scored:
        if not table.num_rows:
            continue
        number = table.column(SHARD)[0].as_py()
        if number < reached:
            raise MmloraError(
                f"shard {number} was scored after shard {reached}; nothing was published; score again"
            )
        count(sum(pairs[reached + 1 : number + 1]))
        reached = number
        for text in table.column(NUMERICS).unique().to_pylist():
            computed_by(Numerics(**json.loads(text)))
        yield table.select(schema.names).cast(schema)
    count(sum(pairs[reached + 1 :]))
