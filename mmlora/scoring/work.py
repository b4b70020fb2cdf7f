"""The inputs of scoring a load, and the interface of the engines that score it.

A pair's bits don't depend on the users it is computed with (:mod:`mmlora.scoring.blocks`), so an engine may
divide the users in any way, as long as it returns the rows in the users' order.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from datetime import date
from typing import Protocol

import numpy as np
import pyarrow as pa

from mmlora.candidates.pairs import Candidates
from mmlora.encoding import Encoder
from mmlora.models.builder import Model
from mmlora.models.calibration import Calibration
from mmlora.names import Precision
from mmlora.numerics import Numerics
from mmlora.schema import Id, IdTypes, scores_schema
from mmlora.scoring import staged_shards
from mmlora.scoring.blocks import Chunk, ChunkLimits, Scorer
from mmlora.scoring.devices import require_precision
from mmlora.scoring.pair_scorer import PairScorer
from mmlora.scoring.topk import Ranked
from mmlora.scoring.workers import ParallelMap

logger = logging.getLogger(__name__)

# This many rows of hidden layers 256 wide fit a core's cache; larger blocks are slower. A product in bfloat16
# casts its weights first, which costs less per row in a larger block.
CPU_BLOCK_ROWS: dict[Precision, int] = {"float32": 1024, "bfloat16": 2048}
# Called with the number of pairs computed since the last call.
Count = Callable[[int], None]
# Called with the numerics of some of the rows, possibly repeatedly.
ComputedBy = Callable[[Numerics], None]


@dataclass(frozen=True)
class Work:
    """Everything that scoring needs except the users.

    Attributes:
        model: the model, with the experts and gate it was composed of.
        encoder: the encoder that the model was trained with.
        calibration: converts logits to probabilities.
        items: one row per candidate item, in the candidates' order, with the fields keyed by the item.
        domain: one row with ``domain_id`` and the fields keyed by the domain alone.
        ids: the id types.
        domain_id: the domain.
        on: the score date.
        top_k: rows kept per user; 0 keeps all.
        block_rows: rows of every block, from the bundle.
        precision: precision of the products per pair; the sides, scores and calibration are float32.
    """

    model: Model
    encoder: Encoder
    calibration: Calibration
    items: pa.Table
    domain: pa.Table
    ids: IdTypes
    domain_id: Id
    on: date
    top_k: int
    block_rows: int
    precision: Precision = "float32"

    def scorer(self, users: pa.Table, *, device: str = "cpu", run: ParallelMap = map) -> PairScorer:
        """Compute the items' side, and return a scorer of users (one row each with the user's fields).

        Raises:
            ContractError: the features don't match the contract.
            UsageError: the device doesn't compute the precision natively.
        """
        require_precision(self.precision, device)
        return PairScorer(
            self.model,
            self.encoder,
            users=users,
            items=self.items,
            domain=self.domain,
            calibration=self.calibration,
            device=device,
            precision=self.precision,
            run=run,
        )

    def user_bytes(self, users: pa.Schema) -> int:
        """Return the bytes of a user's side tensors for features of this schema, without computing items."""
        without_items = replace(self, items=self.items.schema.empty_table())
        return without_items.scorer(users.empty_table()).user_bytes

    def rows_of_block(self, device: str) -> int:
        """Return the rows of a block; on CPU, limited to what fits a core's cache."""
        return min(self.block_rows, CPU_BLOCK_ROWS[self.precision]) if device == "cpu" else self.block_rows

    def tables(
        self,
        candidates: Candidates,
        scorer: Scorer,
        *,
        memory: int,
        count: Count,
        device: str = "cpu",
        run: ParallelMap = map,
    ) -> Generator[pa.Table, None, None]:
        """Score the candidates chunk by chunk; yield each user's best rows in the schema of the scores.

        Args:
            candidates: the pairs.
            scorer: the scorer of these users and items.
            memory: approximate bytes of a chunk (:class:`~mmlora.scoring.blocks.ChunkLimits`).
            count: called with the number of pairs of every block.
            device: the scorer's device.
            run: map that computes blocks in parallel.
        """
        # No more pairs than a shard has, so that shards are staged while the others are scored.
        limits = ChunkLimits(memory, scorer.user_bytes, self.top_k, staged_shards.SHARD_PAIRS)
        if (needed := limits.largest_user(candidates)) > memory:
            logger.warning(
                "a chunk's memory of %.0f MB is too small for one user's pairs, which take up to %.0f MB: "
                "scoring one user at a time; raise [scoring] memory_mb to at least that",
                memory / 2**20,
                needed / 2**20,
            )
        for chunk in limits.cut(candidates):
            if chunk.pairs:
                yield self.table(chunk, scorer, count=count, device=device, run=run)

    def table(
        self, chunk: Chunk, scorer: Scorer, *, count: Count, device: str = "cpu", run: ParallelMap = map
    ) -> pa.Table:
        """Score a chunk with pairs; see :meth:`tables`."""
        scores = chunk.score(scorer, self.rows_of_block(device), count, run)
        return self._table(chunk.rank(scores, self.top_k), chunk.candidates)

    def _table(self, ranked: Ranked, candidates: Candidates) -> pa.Table:
        schema, rows = scores_schema(self.ids), len(ranked.scores)
        columns = [
            candidates.users.take(pa.array(ranked.user_rows.numpy())),
            candidates.items.take(pa.array(ranked.item_rows.numpy())),
            pa.repeat(pa.scalar(self.domain_id, self.ids.arrow("domain")), rows),
            pa.repeat(pa.scalar(self.on, pa.date32()), rows),
            pa.array(ranked.scores.numpy()),
            pa.array(ranked.positions.numpy().astype(np.int32)),
        ]
        return pa.table(columns, schema=schema)


class Engine(Protocol):
    """Something that scores a load's users, on one machine or on many."""

    def numerics(self) -> frozenset[Numerics]:
        """Return the environments of all machines that may compute rows."""

    def tables(
        self, work: Work, candidates: Candidates, users: pa.Table, count: Count, computed_by: ComputedBy
    ) -> Generator[pa.Table, None, None]:
        """Score every candidate pair.

        Args:
            work: model, items and domain to score with.
            candidates: the pairs.
            users: one row per candidate user, in the candidates' order, with the fields keyed by the user.
            count: called with the number of pairs computed since the last call, in the caller's thread.
            computed_by: called with the numerics of each kind of machine that computes rows.

        Returns:
            Each user's best rows in the schema of the scores, in the users' order, in tables of any size.
        """
