"""Scoring on a Ray cluster: shards of users through a pool of workers, in order, back to this process.

The model, the items and the domain go into Ray's object store once; every worker (an actor) computes the
items' side once. Rows come back to this process, which stages them, so no disk is shared. Ray tries a shard
again whose worker died, and gives back each shard once.

Sources: https://docs.ray.io/en/latest/data/transforming-data.html (stateful transforms) and
https://docs.ray.io/en/latest/ray-core/fault_tolerance/actors.html.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import warnings
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import torch

import mmlora
from mmlora.candidates.pairs import Candidates
from mmlora.errors import ContractError, MmloraError, TransientError, UsageError
from mmlora.scoring.blocks import CHUNK_MEMORY, ChunkLimits
from mmlora.scoring.shards import ShardScorer, cut, pairs_of_shards, put_together
from mmlora.scoring.work import ComputedBy, Count, Work
from mmlora.scoring.workers import workers

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.data import Dataset

# A lost node uses up several tries of a shard before Ray knows that it is lost; a shard that kills its worker
# has to end all the same.
TRIES = 20
# Of a shard: small enough that many workers get some of a large load, and that little is scored again.
_SHARD_PAIRS = 2_000_000


@dataclass(frozen=True)
class RayEngine:
    """Scores on the CPUs of a Ray cluster.

    Attributes:
        address: of the cluster, as ``ray.init`` takes it; ``RAY_ADDRESS`` when empty, and without that a
            cluster on this machine, which lives as long as this process. A process that has joined a cluster
            stays in it.
        threads: threads (and CPUs) of a worker, which share one copy of the model and the items' side.
        memory: bytes of a shard, about, as of :class:`~mmlora.scoring.score.LocalEngine`.
        shard_pairs: pairs of a shard at most; at least one user's.
    """

    address: str = ""
    threads: int = 1
    memory: int = CHUNK_MEMORY
    shard_pairs: int = _SHARD_PAIRS

    def __post_init__(self) -> None:
        require_ray()

    def tables(
        self, work: Work, candidates: Candidates, users: pa.Table, count: Count, computed_by: ComputedBy
    ) -> Generator[pa.Table, None, None]:
        """Score every candidate pair: see :class:`~mmlora.scoring.work.Engine`.

        Raises:
            ContractError: the features aren't the contract's, or a worker has other versions.
            TransientError: the cluster can't be reached, or workers died again and again.
            UsageError: this machine doesn't compute the precision.
        """
        limits = ChunkLimits(self.memory, work.user_bytes(users.schema), work.top_k, self.shard_pairs)
        pairs = pairs_of_shards(candidates, limits)
        if not pairs:
            return
        # Ray prints what became of workers on standard output, which is the caller's.
        with _ray_errors(), redirect_stdout(sys.stderr):
            join_cluster(self.address)
            scored = self._scored(work, candidates, users, limits, len(pairs))
            yield from put_together(work, scored, pairs, count, computed_by)

    def _scored(
        self, work: Work, candidates: Candidates, users: pa.Table, limits: ChunkLimits, shards: int
    ) -> Iterator[pa.Table]:
        """Yield the shards' rows in order, as they are asked for."""
        import ray
        import ray.data

        payload = ray.put(Payload(work, candidates.listed, users.schema, self.threads, _versions()))
        with ray.data.DataContext.current(_context()):
            blocks = [ray.put(shard) for shard in cut(candidates, users, limits)]
            most = min(shards, room_for_workers(self.threads))
            scored = _mapped(ray.data.from_arrow_refs(blocks), payload, self.threads, most)
        # One after another as they come: no more than two shards' rows wait in this process.
        yield from scored.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)


def _mapped(shards: Dataset, payload: ObjectRef[Payload], threads: int, most: int) -> Dataset:
    """Have the shards scored by at most so many workers."""
    import ray.data

    with warnings.catch_warnings():
        # Without it a shard that kills its worker would be tried for ever; 2.60 has no other name for it.
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
        return shards.map_batches(
            Worker,
            fn_constructor_args=(payload,),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=threads,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most, initial_size=most),
            max_restarts=-1,
            max_task_retries=TRIES - 1,
        )


@dataclass(frozen=True)
class Payload:
    """What every worker is given.

    Attributes:
        work: what to score with.
        listed: whether shards list the pairs to score, or those to leave out.
        user_schema: of the users' features.
        threads: threads of a worker.
        versions: of the libraries that the bits depend on.
    """

    work: Work
    listed: bool
    user_schema: pa.Schema
    threads: int
    versions: dict[str, str]


class Worker:
    """One worker of the pool: made once, then called with shard after shard."""

    def __init__(self, payload: ObjectRef[Payload]) -> None:
        self._payload = payload

    def __call__(self, shard: pa.Table) -> pa.Table:
        """Score a shard."""
        try:
            return self._score(shard)
        except MmloraError as error:  # some can't be sent as they are
            raise ContractError(str(error)) from error

    @cached_property
    def _score(self) -> ShardScorer:
        """Compute the items' side, at the first shard: a pool hides what is wrong in a constructor."""
        import ray

        given: Payload = ray.get(self._payload)
        if given.versions != (found := _versions()):
            raise ContractError(
                f"a Ray worker has {found}, but the load is staged with {given.versions}: install the same "
                "versions on all nodes"
            )
        self._threads = ExitStack()  # stays open as long as the worker lives
        run = self._threads.enter_context(workers(given.threads))
        return ShardScorer.of(given.work, listed=given.listed, user_schema=given.user_schema, run=run)


def require_ray() -> None:
    """Import Ray Data.

    Raises:
        UsageError: it isn't installed.
    """
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "CRITICAL")  # read when it is imported
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"the engine `ray` needs Ray Data ({error}): pip install 'mmlora[ray]', or use the engine `local`"
        ) from None


def join_cluster(address: str) -> None:
    """Connect this process to a cluster, unless it is connected; see :class:`RayEngine`.

    Raises:
        TransientError: there is none at the address.
    """
    import ray

    if ray.is_initialized():
        return
    address = address or os.environ.get("RAY_ADDRESS", "")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        if address:
            _knock(address)
            ray.init(address=address, **quiet)
        else:
            # Nobody else's: says nothing to anybody, and has one CPU more than workers take.
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            spare = (os.cpu_count() or 1) + 1
            ray.init(address="local", num_cpus=spare, include_dashboard=False, **quiet)
    except OSError as error:
        raise TransientError(f"no Ray cluster answers at {address!r}: {error}") from None


def _knock(address: str) -> None:
    """Raise ``OSError`` where nobody listens, which Ray would find out in a quarter of an hour."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _context() -> Any:
    """Return how Ray Data is to work: in order, and without a word."""
    import ray.data

    context = ray.data.DataContext.get_current().copy()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.enable_auto_log_stats = False
    context.raise_original_map_exception = True
    return context


def room_for_workers(threads: int) -> int:
    """Return the workers that the cluster's CPUs hold, one CPU less than all where more than one fits.

    Ray Data stalls where workers hold every CPU and a task of its own needs one.
    """
    import ray

    cpus = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    fit = sum(count // threads for count in cpus)
    spare = sum(cpus) - fit * threads
    return max(1, fit if spare else fit - 1)


def _versions() -> dict[str, str]:
    return {"mmlora": mmlora.__version__, "torch": torch.__version__}


@contextmanager
def _ray_errors() -> Iterator[None]:
    """Raise what a worker raised on purpose as such, and what became of Ray itself as worth another try."""
    import ray.exceptions

    try:
        yield
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ContractError):
            raise ContractError(str(error.cause)) from error
        raise
    except ray.exceptions.RayError as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise TransientError(f"the Ray cluster gave up: {lines[0]}") from error
