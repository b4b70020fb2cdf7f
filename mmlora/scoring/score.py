"""Score a load from candidates and side features to staged Parquet, in bounded memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmlora.candidates.pairs import Candidates
from mmlora.encoding import Encoder
from mmlora.errors import ContractError
from mmlora.models.builder import Model
from mmlora.models.calibration import Calibration
from mmlora.names import Device, Precision
from mmlora.numerics import Numerics, here, together
from mmlora.schema import ITEM_ID, USER_ID, Id, IdTypes
from mmlora.scoring.blocks import CHUNK_MEMORY, stream_pairs
from mmlora.scoring.carried import CarriedRows, MergedRows
from mmlora.scoring.devices import numerics_of, torch_device
from mmlora.scoring.rows import RowStream
from mmlora.scoring.shard_manifest import InterruptedShards, ShardLog
from mmlora.scoring.staged_shards import Shard, cut_shards
from mmlora.scoring.staging import StagedWriter
from mmlora.scoring.work import ComputedBy, Count, Engine, Work
from mmlora.scoring.workers import ParallelMap, workers

Progress = Callable[[str, int, int], None]
NONE_INTERRUPTED = InterruptedShards()


@dataclass(frozen=True)
class SideFeatures:
    """The features of each side on the scoring date, from the feature store.

    Attributes:
        users: one row per candidate user, in the candidates' order, with ``user_id`` and the fields keyed by
            the user.
        items: one row per candidate item, in the candidates' order, with ``item_id`` and the fields keyed by
            the item.
        domain: one row with ``domain_id`` and the fields keyed by the domain alone.
    """

    users: pa.Table
    items: pa.Table
    domain: pa.Table


@dataclass(frozen=True)
class Staged:
    """A staged load on disk.

    Attributes:
        folder: the load's folder.
        files: its parts, in order.
        rows: number of rows written.
        pairs: number of pairs scored.
        users: number of users with a row.
        items: number of candidate items.
        content_hash: SHA-256 of the rows in order (64 hex digits).
        numerics: the environment that computed the rows; hashes are comparable within the same one.
        seconds: time from encoding the sides to writing the last row.
        scored_pairs: number of pairs that this run has computed, with excluded pairs of a grid.
        shards: number of its shards.
        resumed: how many of them were taken over from an interrupted run.
    """

    folder: Path
    files: tuple[Path, ...]
    rows: int
    pairs: int
    users: int
    items: int
    content_hash: str
    numerics: Numerics
    seconds: float
    scored_pairs: int
    shards: int
    resumed: int


@dataclass(frozen=True)
class LocalEngine:
    """An engine in this process.

    Attributes:
        threads: threads that compute blocks on CPU; None for torch's number.
        device: ``auto`` takes a GPU when there is one.
        memory: approximate bytes of the users and pairs held at once, in addition to the items' tensors and
            a block; at least one user is held.

    Raises:
        UsageError: the device does not exist.
    """

    threads: int | None = None
    device: Device = "auto"
    memory: int = CHUNK_MEMORY

    def __post_init__(self) -> None:
        torch_device(self.device)

    def numerics(self) -> frozenset[Numerics]:
        """Return the environment that computes rows; see :class:`~mmlora.scoring.work.Engine`."""
        return frozenset({numerics_of(torch_device(self.device))})

    def tables(
        self, work: Work, candidates: Candidates, users: pa.Table, count: Count, computed_by: ComputedBy
    ) -> Generator[pa.Table, None, None]:
        """Score every candidate pair; see :class:`~mmlora.scoring.work.Engine`.

        Raises:
            UsageError: the device doesn't compute the precision natively.
        """
        device = torch_device(self.device)
        computed_by(numerics_of(device))
        pool: AbstractContextManager[ParallelMap] = (
            workers(self.threads) if device == "cpu" else nullcontext(map)
        )
        with pool as run:
            scorer = work.scorer(users, device=device, run=run)
            yield from work.tables(
                candidates, scorer, memory=self.memory, count=count, device=device, run=run
            )


def score_candidates(
    candidates: Candidates,
    *,
    model: Model,
    encoder: Encoder,
    calibration: Calibration,
    features: SideFeatures,
    ids: IdTypes,
    domain: Id,
    on: date,
    folder: Path,
    top_k: int,
    block_rows: int,
    precision: Precision = "float32",
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> Staged:
    """Score every candidate pair, keep the best per user, and stage them.

    On CPU, with the same :class:`~mmlora.numerics.Numerics`, the staged rows are identical to the last bit
    for any engine, number of threads and memory limit.

    Args:
        candidates: the pairs.
        model: the model, with the experts and gate it was composed of.
        encoder: the encoder that the model was trained with.
        calibration: converts logits to probabilities.
        features: the features of each side.
        ids: the id types.
        domain: the domain.
        on: the score date.
        folder: the load's own folder.
        top_k: rows kept per user; 0 keeps all.
        block_rows: rows of every block, from the bundle; on CPU, limited to what fits a core's cache.
        precision: precision of the products per pair; scores are float32.
        engine: the engine; None for this process.
        progress: called with ``("score", pairs done, total pairs)`` after each block.

    Raises:
        ContractError: the features don't match the candidates or the contract.
        UsageError: the engine's device doesn't compute the precision natively, or the folder already has
            rows.
    """
    work = Work(
        model=model,
        encoder=encoder,
        calibration=calibration,
        items=features.items,
        domain=features.domain,
        ids=ids,
        domain_id=domain,
        on=on,
        top_k=top_k,
        block_rows=block_rows,
        precision=precision,
    )
    return score_work(
        work, candidates, features.users, folder=folder, engine=engine or LocalEngine(), progress=progress
    )


def score_work(
    work: Work,
    candidates: Candidates,
    users: pa.Table,
    *,
    folder: Path,
    engine: Engine,
    fingerprint: str | None = None,
    interrupted: InterruptedShards = NONE_INTERRUPTED,
    carried: CarriedRows | None = None,
    progress: Progress | None = None,
) -> Staged:
    """Score every candidate pair with a prepared :class:`Work`; see :func:`score_candidates`.

    Args:
        work: model, items and domain to score with; its items are the candidates'.
        candidates: the pairs.
        users: one row per candidate user, in the candidates' order, with the fields keyed by the user.
        folder: the load's own folder.
        engine: the engine.
        fingerprint: the load's fingerprint, by which a later run finds its complete shards if this one is
            interrupted; None for a load that can't be resumed.
        interrupted: shards of this fingerprint to take over instead of scoring their users.
        carried: rows to carry over instead of scoring their users.
        progress: called with ``("score", pairs done, total pairs)`` after each block.

    Raises:
        ContractError: the features don't match the candidates or the contract.
        UsageError: the engine's device doesn't compute the precision natively, or the folder already has
            rows.
    """
    _check_features(candidates, SideFeatures(users, work.items, work.domain), work.domain_id)
    started, numerics = time.monotonic(), {*interrupted.numerics, *(carried.numerics if carried else ())}
    shards = cut_shards(candidates, work.top_k)
    left = _users_left(shards, interrupted, carried)
    remaining = candidates if left.all() else candidates.of_users(np.flatnonzero(left))
    pairs = stream_pairs(remaining)
    count = _counter(pairs, progress)
    rows, log = users if left.all() else users.filter(pa.array(left)), ShardLog(folder, fingerprint)
    with (
        StagedWriter(folder, ids=work.ids) as writer,
        closing(_tables(engine, work, remaining, rows, count, numerics.add)) as tables,
    ):
        merged = MergedRows(RowStream(tables), carried, candidates.kept_rows(work.top_k))
        for number, shard in enumerate(shards):
            if (file := interrupted.files.get(number)) is not None:
                log.add(writer.take_part(file), numerics)
                merged.skip(shard.first, shard.last)
                continue
            for table in merged.take(shard.first, shard.last):
                writer.write(table)
            log.add(writer.end_part(), numerics)
        merged.end()
    return Staged(
        folder=folder,
        files=tuple(writer.files),
        rows=writer.rows,
        pairs=candidates.num_pairs,
        users=candidates.num_users,
        items=len(candidates.items),
        content_hash=writer.content_hash,
        numerics=together(numerics or {here()}),
        seconds=time.monotonic() - started,
        scored_pairs=pairs,
        shards=len(shards),
        resumed=len(interrupted.files),
    )


def _users_left(
    shards: Sequence[Shard], interrupted: InterruptedShards, carried: CarriedRows | None
) -> NDArray[np.bool_]:
    """Return which users are still to be scored, ``[U]``."""
    left = np.ones(shards[-1].last, bool) if carried is None else ~carried.users
    for number in interrupted.files:
        left[shards[number].first : shards[number].last] = False
    return left


def _tables(
    engine: Engine,
    work: Work,
    candidates: Candidates,
    users: pa.Table,
    count: Count,
    computed_by: ComputedBy,
) -> Generator[pa.Table, None, None]:
    """Score the candidates, if there are any."""
    if len(candidates.users):
        yield from engine.tables(work, candidates, users, count, computed_by)


def _counter(total: int, progress: Progress | None) -> Count:
    done = 0

    def count(pairs: int) -> None:
        nonlocal done
        done += pairs
        if progress is not None:
            progress("score", done, total)

    return count


def _check_features(candidates: Candidates, features: SideFeatures, domain: Id) -> None:
    for side, table, key, ids in (
        ("user", features.users, USER_ID, candidates.users),
        ("item", features.items, ITEM_ID, candidates.items),
    ):
        keys = table.column(key).combine_chunks()
        if not keys.equals(ids):
            raise ContractError(
                f"{side} features: the {len(keys):,} rows don't match the {len(ids):,} candidate {side}s "
                "in order",
                expected=len(ids),
                found=len(keys),
            )
    domains = features.domain.column("domain_id").to_pylist()
    if domains != [domain]:
        raise ContractError(
            f"domain features: there are rows for {domains}, instead of one row for {domain!r}",
            expected=domain,
        )
