"""Score on a Ray cluster: a pool of workers scores shards of users and returns them in order.

The model, the items and the domain are put into Ray's object store once; every worker (an actor) computes the
items' side once. Rows are returned to this process, which stages them, so no shared disk is needed. Ray
retries a shard whose worker died, and returns each shard once.

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
from mmlora.numerics import Numerics, here
from mmlora.scoring.blocks import CHUNK_MEMORY, ChunkLimits
from mmlora.scoring.shards import ShardScorer, combine, cut, pairs_of_shards
from mmlora.scoring.work import ComputedBy, Count, Work
from mmlora.scoring.workers import workers

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.data import Dataset

# A lost node uses up several attempts of a shard before Ray detects the loss; on the other hand, a shard that
# kills its worker must fail eventually.
ATTEMPTS = 20
# Small enough to spread a large load over many workers and to repeat little after a failure.
_SHARD_PAIRS = 2_000_000


@dataclass(frozen=True)
class RayEngine:
    """An engine on the CPUs of a Ray cluster.

    Attributes:
        address: the cluster's address for ``ray.init``; ``RAY_ADDRESS`` when empty, and without that a
            cluster on this machine that ends with this process. A process stays in the cluster that it has
            joined.
        threads: threads (and CPUs) per worker, which share one copy of the model and the items' side.
        memory: approximate bytes of a shard, as for :class:`~mmlora.scoring.score.LocalEngine`.
        shard_pairs: maximum pairs of a shard, which has at least one user.
    """

    address: str = ""
    threads: int = 1
    memory: int = CHUNK_MEMORY
    shard_pairs: int = _SHARD_PAIRS

    def __post_init__(self) -> None:
        require_ray()

    def numerics(self) -> frozenset[Numerics]:
        """Ask every node of the cluster; see :class:`~mmlora.scoring.work.Engine`.

        Raises:
            TransientError: the cluster can't be reached.
        """
        with _ray_errors(), redirect_stdout(sys.stderr):
            join_cluster(self.address)
            return _numerics_of_nodes()

    def tables(
        self, work: Work, candidates: Candidates, users: pa.Table, count: Count, computed_by: ComputedBy
    ) -> Generator[pa.Table, None, None]:
        """Score every candidate pair; see :class:`~mmlora.scoring.work.Engine`.

        Raises:
            ContractError: the features don't match the contract, or a worker has other versions.
            TransientError: the cluster can't be reached, or workers died repeatedly.
            UsageError: this machine doesn't compute the precision natively.
        """
        limits = ChunkLimits(self.memory, work.user_bytes(users.schema), work.top_k, self.shard_pairs)
        pairs = pairs_of_shards(candidates, limits)
        if not pairs:
            return
        # Ray prints the fate of workers on standard output, which belongs to the caller.
        with _ray_errors(), redirect_stdout(sys.stderr):
            join_cluster(self.address)
            scored = self._scored(work, candidates, users, limits, len(pairs))
            yield from combine(work, scored, pairs, count, computed_by)

    def _scored(
        self, work: Work, candidates: Candidates, users: pa.Table, limits: ChunkLimits, shards: int
    ) -> Iterator[pa.Table]:
        """Yield the shards' rows in order and lazily."""
        import ray
        import ray.data

        payload = ray.put(Payload(work, candidates.listed, users.schema, self.threads, library_versions()))
        with ray.data.DataContext.current(_context()):
            blocks = [ray.put(shard) for shard in cut(candidates, users, limits)]
            pool = min(shards, room_for_workers(self.threads))
            scored = _mapped(ray.data.from_arrow_refs(blocks), payload, self.threads, pool)
        # Read one after another, so that at most two shards' rows wait in this process.
        yield from scored.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)


def _mapped(shards: Dataset, payload: ObjectRef[Payload], threads: int, pool: int) -> Dataset:
    """Score the shards by a pool of at most ``pool`` workers."""
    import ray.data

    with warnings.catch_warnings():
        # The options below keep a shard that kills its worker from being retried forever; Ray 2.60 has no
        # other name for them.
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
        return shards.map_batches(
            Worker,
            fn_constructor_args=(payload,),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=threads,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=pool, initial_size=pool),
            max_restarts=-1,
            max_task_retries=ATTEMPTS - 1,
        )


@dataclass(frozen=True)
class Payload:
    """The input of every worker.

    Attributes:
        work: model, items and domain to score with.
        listed: whether shards list the pairs to score, or those to exclude.
        user_schema: schema of the users' features.
        threads: threads per worker.
        versions: versions of the libraries on which the scores' bits depend.
    """

    work: Work
    listed: bool
    user_schema: pa.Schema
    threads: int
    versions: dict[str, str]


class Worker:
    """A worker of the pool, created once and called with one shard after another."""

    def __init__(self, payload: ObjectRef[Payload]) -> None:
        self._payload = payload

    def __call__(self, shard: pa.Table) -> pa.Table:
        """Score a shard."""
        try:
            return self._score(shard)
        except MmloraError as error:  # some errors can't be pickled
            raise ContractError(str(error)) from error

    @cached_property
    def _score(self) -> ShardScorer:
        """Compute the items' side at the first shard, because a pool hides errors of a constructor."""
        import ray

        payload: Payload = ray.get(self._payload)
        if payload.versions != (installed := library_versions()):
            raise ContractError(
                f"a Ray worker has {installed}, but the load is staged with {payload.versions}: install the "
                "same versions on all nodes"
            )
        self._threads = ExitStack()  # stays open as long as the worker lives
        run = self._threads.enter_context(workers(payload.threads))
        return ShardScorer.of(payload.work, listed=payload.listed, user_schema=payload.user_schema, run=run)


def require_ray() -> None:
    """Import Ray Data.

    Raises:
        UsageError: Ray Data isn't installed.
    """
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "CRITICAL")  # read when it is imported
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"the engine `ray` needs Ray Data ({error}): pip install 'mmlora[ray]', or use the engine `local`"
        ) from None


def join_cluster(address: str) -> None:
    """Connect this process to a cluster unless it is connected; see :class:`RayEngine`.

    Raises:
        TransientError: no cluster answers at the address.
    """
    import ray

    if ray.is_initialized():
        return
    address = address or os.environ.get("RAY_ADDRESS", "")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        if address:
            _check_reachable(address)
            ray.init(address=address, **quiet)
        else:
            # A private cluster: no usage statistics, and one CPU more than the workers need.
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            spare = (os.cpu_count() or 1) + 1
            ray.init(address="local", num_cpus=spare, include_dashboard=False, **quiet)
    except OSError as error:
        raise TransientError(f"no Ray cluster answers at {address!r}: {error}") from None


def _check_reachable(address: str) -> None:
    """Raise ``OSError`` if nothing listens at the address, which Ray would notice only after 15 minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _context() -> Any:
    """Return Ray Data's options: preserve the order, and print nothing."""
    import ray.data

    context = ray.data.DataContext.get_current().copy()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.enable_auto_log_stats = False
    context.raise_original_map_exception = True
    return context


def room_for_workers(threads: int) -> int:
    """Return the number of workers that fit the cluster's CPUs, leaving a CPU free if more than one fits.

    Ray Data stalls if workers hold every CPU and one of its own tasks needs one.
    """
    import ray

    cpus = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    fit = sum(count // threads for count in cpus)
    spare = sum(cpus) - fit * threads
    return max(1, fit if spare else fit - 1)


def _numerics_of_nodes() -> frozenset[Numerics]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(num_cpus=0)(here)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    answers = [
        ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote()
        for node in nodes
    ]
    return frozenset(ray.get(answers))


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries on which the scores' bits depend."""
    return {"mmlora": mmlora.__version__, "torch": torch.__version__}


@contextmanager
def _ray_errors() -> Iterator[None]:
    """Raise a worker's ContractError as such, and Ray's own errors as TransientError."""
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
