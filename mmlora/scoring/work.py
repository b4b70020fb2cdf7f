"""What a load is scored with, and the rows that come of it: the same whoever scores which users.

A pair's bits don't depend on the users it is computed with (:mod:`mmlora.scoring.blocks`), so an engine may
cut the users as it likes, as long as it gives the rows back in the users' order.
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
from mmlora.scoring.blocks import Chunk, ChunkLimits, Scorer
from mmlora.scoring.devices import require_precision
from mmlora.scoring.pair_scorer import PairScorer
from mmlora.scoring.topk import Ranked
from mmlora.scoring.workers import ParallelMap

logger = logging.getLogger(__name__)

# Of the hidden layers, 256 wide, so many rows fit a core's cache; larger blocks are slower. A product in
# bfloat16 casts its weights first, which costs less a row in a larger block.
CPU_BLOCK_ROWS: dict[Precision, int] = {"float32": 1024, "bfloat16": 2048}
# Told the pairs that were computed since it was told last.
Count = Callable[[int], None]
# Told what computed some of the rows; the same as often as need be.
ComputedBy = Callable[[Numerics], None]


@dataclass(frozen=True)
class Work:
    """All that scoring needs beside the users.

    Attributes:
        model: the model, with the experts and gate it was composed of.
        encoder: what the model was trained with.
        calibration: makes probabilities of logits.
        items: a row a candidate item, in the candidates' order, with the fields keyed by the item.
        domain: one row: ``domain_id`` and the fields keyed by the domain alone.
        ids: the id types.
        domain_id: the domain.
        on: the score date.
        top_k: rows kept a user; 0 keeps all.
        block_rows: rows of every block, from the bundle.
        precision: of the products that a pair costs; the sides, scores and calibration are float32's.
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
        """Compute the items' side, and make ready for users (a row each: the fields keyed by the user).

        Raises:
            ContractError: the features aren't the contract's.
            UsageError: the device doesn't compute the precision.
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
        """Return the bytes of a user's side tensors, of features with this schema; nothing is computed."""
        of_nothing = replace(self, items=self.items.schema.empty_table())
        return of_nothing.scorer(users.empty_table()).user_bytes

    def rows_of_block(self, device: str) -> int:
        """Return the rows of a block: on CPU, no more than stay in a core's cache."""
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
        """Score the candidates a chunk at a time, each user's best in the schema of the scores.

        Args:
            candidates: the pairs.
            scorer: of these users and items.
            memory: bytes of a chunk, about: see :class:`~mmlora.scoring.blocks.ChunkLimits`.
            count: told the pairs of every block.
            device: where the scorer computes.
            run: computes blocks side by side.
        """
        limits = ChunkLimits(memory, scorer.user_bytes, self.top_k)
        if (least := limits.most_of_a_user(candidates)) > memory:
            logger.warning(
                "a chunk's memory of %.0f MB is too small for one user's pairs, which take up to %.0f MB: "
                "scoring one user at a time; raise [scoring] memory_mb to at least that",
                *(memory / 2**20, least / 2**20),
            )
        for chunk in limits.cut(candidates):
            if chunk.pairs:
                yield self.table(chunk, scorer, count=count, device=device, run=run)

    def table(
        self, chunk: Chunk, scorer: Scorer, *, count: Count, device: str = "cpu", run: ParallelMap = map
    ) -> pa.Table:
        """Score a chunk that has pairs; see :meth:`tables`."""
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
    """Whatever scores a load's users, on one machine or on many."""

    def tables(
        self, work: Work, candidates: Candidates, users: pa.Table, count: Count, computed_by: ComputedBy
    ) -> Generator[pa.Table, None, None]:
        """Score every candidate pair.

        Args:
            work: what to score with.
            candidates: the pairs.
            users: a row a candidate user, in the candidates' order, with the fields keyed by the user.
            count: told the pairs that were computed since it was told last, in the caller's thread.
            computed_by: told what computes the rows, of each kind of machine.

        Returns:
            Each user's best in the schema of the scores, in the users' order, cut anyhow.
        """
