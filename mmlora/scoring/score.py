"""Score a load: candidates and side features in, staged Parquet out, in bounded memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa

from mmlora.candidates.pairs import Candidates
from mmlora.encoding import Encoder
from mmlora.errors import ContractError
from mmlora.models.builder import Model
from mmlora.models.calibration import Calibration
from mmlora.names import Device, Precision
from mmlora.numerics import Numerics, here, together
from mmlora.schema import ITEM_ID, USER_ID, Id, IdTypes
from mmlora.scoring.blocks import CHUNK_MEMORY, stream_pairs
from mmlora.scoring.devices import numerics_of, torch_device
from mmlora.scoring.staging import StagedWriter
from mmlora.scoring.work import ComputedBy, Count, Engine, Work
from mmlora.scoring.workers import ParallelMap, workers

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class SideFeatures:
    """What is known of each side on the scoring date, as the feature store gave it.

    Attributes:
        users: a row a candidate user, in the candidates' order: ``user_id`` and the fields keyed by the user.
        items: a row a candidate item, in the candidates' order: ``item_id`` and the fields keyed by the item.
        domain: one row: ``domain_id`` and the fields keyed by the domain alone.
    """

    users: pa.Table
    items: pa.Table
    domain: pa.Table


@dataclass(frozen=True)
class Staged:
    """A load as it lies on disk.

    Attributes:
        folder: the load's folder.
        files: its parts, in order.
        rows: rows written.
        pairs: pairs scored.
        users: users with a row.
        items: candidate items.
        content_hash: SHA-256 of the rows in order (64 hex digits).
        numerics: what computed the rows, and so what the hash can be compared with.
        seconds: time from encoding the sides to the last row written.
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


@dataclass(frozen=True)
class LocalEngine:
    """Scores in this process.

    Attributes:
        threads: threads that compute blocks on CPU; as many as torch's when None.
        device: ``auto`` takes a GPU when there is one.
        memory: bytes of the users and pairs held at once, about, beside the items' tensors and what a block
            takes; at least one user's.

    Raises:
        UsageError: no such device.
    """

    threads: int | None = None
    device: Device = "auto"
    memory: int = CHUNK_MEMORY

    def __post_init__(self) -> None:
        torch_device(self.device)

    def tables(
        self, work: Work, candidates: Candidates, users: pa.Table, count: Count, computed_by: ComputedBy
    ) -> Generator[pa.Table, None, None]:
        """Score every candidate pair: see :class:`~mmlora.scoring.work.Engine`.

        Raises:
            UsageError: the device doesn't compute the precision.
        """
        where = torch_device(self.device)
        computed_by(numerics_of(where))
        by_thread: AbstractContextManager[ParallelMap] = (
            workers(self.threads) if where == "cpu" else nullcontext(map)
        )
        with by_thread as run:
            scorer = work.scorer(users, device=where, run=run)
            yield from work.tables(candidates, scorer, memory=self.memory, count=count, device=where, run=run)


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
    """Score every candidate pair, keep each user's best, and stage them.

    On CPU the staged rows are the same to the last bit whatever the engine, its
    threads and its memory, wherever :class:`~mmlora.numerics.Numerics` are the same.

    Args:
        candidates: the pairs.
        model: the model, with the experts and gate it was composed of.
        encoder: what the model was trained with.
        calibration: makes probabilities of logits.
        features: what is known of each side.
        ids: the id types.
        domain: the domain.
        on: the score date.
        folder: the load's own folder.
        top_k: rows kept a user; 0 keeps all.
        block_rows: rows of every block, from the bundle; on CPU, no more than stay in a core's cache.
        precision: of the products that a pair costs; scores are float32's.
        engine: who scores; this process when None.
        progress: told ``("score", pairs done, pairs in all)`` as blocks are done.

    Raises:
        ContractError: the features aren't of these candidates, or not the contract's.
        UsageError: the engine's device doesn't compute the precision, or the folder holds rows already.
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
    progress: Progress | None = None,
) -> Staged:
    """Score every candidate pair with what is there already: see :func:`score_candidates`.

    Args:
        work: what to score with, whose items are the candidates'.
        candidates: the pairs.
        users: a row a candidate user, in the candidates' order, with the fields keyed by the user.
        folder: the load's own folder.
        engine: who scores.
        progress: told ``("score", pairs done, pairs in all)`` as blocks are done.

    Raises:
        ContractError: the features aren't of these candidates, or not the contract's.
        UsageError: the engine's device doesn't compute the precision, or the folder holds rows already.
    """
    _check_features(candidates, SideFeatures(users, work.items, work.domain), work.domain_id)
    begun, seen = time.monotonic(), set[Numerics]()
    count = _counter(stream_pairs(candidates), progress)
    with (
        StagedWriter(folder, ids=work.ids) as writer,
        closing(engine.tables(work, candidates, users, count, seen.add)) as tables,
    ):
        for table in tables:
            writer.write(table)
    return Staged(
        folder=folder,
        files=tuple(writer.files),
        rows=writer.rows,
        pairs=candidates.num_pairs,
        users=candidates.num_users,
        items=len(candidates.items),
        content_hash=writer.content_hash,
        numerics=together(seen or {here()}),
        seconds=time.monotonic() - begun,
    )


def _counter(total: int, progress: Progress | None) -> Count:
    done = 0

    def count(pairs: int) -> None:
        nonlocal done
        done += pairs
        if progress is not None:
            progress("score", done, total)

    return count


def _check_features(candidates: Candidates, features: SideFeatures, domain: Id) -> None:
    for what, table, key, ids in (
        ("user", features.users, USER_ID, candidates.users),
        ("item", features.items, ITEM_ID, candidates.items),
    ):
        found = table.column(key).combine_chunks()
        if not found.equals(ids):
            raise ContractError(
                f"{what} features: the {len(found):,} rows don't match the {len(ids):,} candidate {what}s "
                "in order",
                expected=len(ids),
                found=len(found),
            )
    domains = features.domain.column("domain_id").to_pylist()
    if domains != [domain]:
        raise ContractError(
            f"domain features: there are rows for {domains}, instead of one row for {domain!r}",
            expected=domain,
        )
