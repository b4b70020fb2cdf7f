"""Scoring: candidates -> features -> scores -> audit -> a staged load, of one domain and date."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from mmlora.errors import CheckError, MmloraError, UsageError
from mmlora.features.built import snapshot
from mmlora.judging.verdict import below_baseline
from mmlora.names import Device, EngineName
from mmlora.pipeline.contract import check_contract
from mmlora.pipeline.features import ensure_features
from mmlora.pipeline.promotion import CHAMPION
from mmlora.pipeline.validation import verdicts_as_of
from mmlora.pipeline.workspace import Progress, Workspace, open_workspace, silent
from mmlora.schema import (
    DOMAIN_ID,
    EVENT_TIMESTAMP,
    ITEM_ID,
    TIMESTAMP,
    USER_ID,
    DomainVerdict,
    Id,
    midnight,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from mmlora.registry.bundle import Bundle
    from mmlora.scoring.candidates import Candidates
    from mmlora.scoring.score import SideFeatures
    from mmlora.scoring.work import Engine
    from mmlora.settings import Settings
    from mmlora.warehouse.loads import Load
    from mmlora.warehouse.warehouse import Warehouse

logger = logging.getLogger(__name__)


def scoring_domains(on: date) -> list[str]:
    """Return the domains to score on a date: all but those whose verdict is ``broken`` or ``absent``.

    Raises:
        CheckError: none is left, which no night should pass over in silence.
    """
    workspace = open_workspace()
    others = left_out(workspace, on)
    domains = [str(domain) for domain in workspace.expected_domains() if domain not in others]
    if not domains:
        raise CheckError(
            f"validation as of {on}", [f"{domain}: {reason}" for domain, reason in others.items()][:5]
        )
    return domains


def score(
    on: date,
    domain: str,
    *,
    top_k: int | None = None,
    pairs: Path | None = None,
    known_as_of: datetime | None = None,
    model_version: str | None = None,
    engine: EngineName | None = None,
    ray_address: str | None = None,
    device: Device | None = None,
    progress: Progress = silent,
) -> str:
    """Score one domain's candidates of a date into a staged, audited load.

    Args:
        on: the score date; features are read as of its 00:00 UTC.
        domain: the domain.
        top_k: rows kept a user; 0 keeps all; the setting when None.
        pairs: a Parquet file of (user_id, item_id) instead of users x items.
        known_as_of: the second cutoff of DESIGN's "Time"; ``on`` 00:00 UTC when None.
        model_version: the model; the domain's champion when None.
        engine: who scores; the setting when None.
        ray_address: of the cluster that the engine ``ray`` uses; the setting when None.
        device: where the engine ``local`` computes; the setting when None.
        progress: told the pairs done.

    Returns:
        The ``load_id``.

    Raises:
        CheckError: the domain's verdict is ``broken``, or the audit said no; the load is rejected.
        ContractError: the model was trained on other features than the feature store gives.
        UsageError: no such domain or model, or an engine, device or precision that isn't there.
    """
    workspace = open_workspace()
    chosen = choose_engine(workspace.settings, engine, ray_address, device)
    target = workspace.domain(domain)
    if target in (broken := _broken(verdicts_as_of(workspace, on))):
        again = f"mend the data, then `mmlora validate --as-of {on}`"
        raise CheckError(f"the validation of domain {domain!r} as of {on}", [*broken[target], again])
    ensure_features(workspace, on)
    with workspace.open_warehouse() as warehouse:
        bundle = workspace.bundles.load(_version(warehouse, target, model_version))
        check_contract(workspace, bundle)
        if below := below_baseline(bundle.manifest.judgement):
            _warn(str(workspace.home), on, bundle.manifest.model_version, below)
        load = warehouse.begin_load(
            target,
            on,
            model_version=bundle.manifest.model_version,
            contract_hash=bundle.contract.hash,
            stale_after=timedelta(seconds=workspace.settings.scoring.stale_after_seconds),
        )
        job = _Job(workspace, warehouse, bundle, load, known_as_of, chosen, progress)
        try:
            with _heartbeat(warehouse, load, workspace.settings.scoring.heartbeat_seconds):
                job.run(pairs, workspace.settings.scoring.top_k if top_k is None else top_k)
        except BaseException as error:
            shutil.rmtree(workspace.staging_folder(load.load_id), ignore_errors=True)
            if not isinstance(error, CheckError):  # then the load is rejected already
                with suppress(MmloraError):
                    warehouse.fail(load, reason=f"{type(error).__name__}: {error}")
            raise
        return load.load_id


def choose_engine(
    settings: Settings,
    engine: EngineName | None,
    ray_address: str | None,
    device: Device | None = None,
) -> Engine:
    """Return who scores: what is asked for, else what the settings say.

    Raises:
        UsageError: the engine isn't installed, an address or a device is given to one that has none, or this
            machine lacks the device or doesn't compute the precision.
    """
    from mmlora.scoring.devices import require_precision, torch_device

    asked, name = settings.scoring, engine or settings.scoring.engine
    memory = asked.memory_mb << 20
    if name == "ray":
        from mmlora.scoring.ray_engine import RayEngine

        if device == "cuda":
            raise UsageError("the engine `ray` computes on CPUs: leave --device out, or give --engine local")
        require_precision(asked.precision, "cpu")
        address = asked.ray_address if ray_address is None else ray_address
        return RayEngine(address, threads=asked.ray_threads, memory=memory)
    if ray_address is not None:
        raise UsageError(f"a Ray address goes with the engine `ray`, not `{name}`: give --engine ray")
    from mmlora.scoring.score import LocalEngine

    chosen = LocalEngine(threads=settings.training.threads, device=device or asked.device, memory=memory)
    require_precision(asked.precision, torch_device(chosen.device))
    return chosen


@lru_cache(maxsize=1024)
def _warn(home: str, on: date, version: str, sentence: str) -> None:
    """Say that a model is below its best baseline: once a night, and not once a domain."""
    logger.warning("%s is scored by %s, though %s", on, version, sentence)


class _Job:
    """One load from candidates to audit."""

    def __init__(
        self,
        workspace: Workspace,
        warehouse: Warehouse,
        bundle: Bundle,
        load: Load,
        known_as_of: datetime | None,
        engine: Engine,
        progress: Progress,
    ) -> None:
        self.workspace, self.warehouse, self.bundle, self.load = workspace, warehouse, bundle, load
        self.known_as_of, self.engine, self.progress = known_as_of, engine, progress
        self.domain, self.on = load.domain_id, load.score_date

    def run(self, pairs: Path | None, top_k: int) -> None:
        """Stage the load and mark it staged, or reject it."""
        from mmlora.scoring.audit import Expected, audit_load
        from mmlora.scoring.score import score_candidates

        folder = self.workspace.staging_folder(self.load.load_id)
        candidates = self._candidates(pairs)
        if not candidates.num_pairs:
            days = self.workspace.settings.scoring.active_days
            reason = f"nobody to score: no user was active in the domain in the {days} days before {self.on}"
            if pairs is not None:
                reason = f"nothing to score: {pairs} has no rows of the domain"
            self.warehouse.reject(self.load, reason=reason)
            raise CheckError(f"load {self.load.load_id}", [reason])
        staged = score_candidates(
            candidates,
            model=self.bundle.model(),
            encoder=self.bundle.encoder(),
            calibration=self.bundle.calibration,
            features=self._features(candidates),
            ids=self.workspace.ids,
            domain=self.domain,
            on=self.on,
            folder=folder,
            top_k=top_k,
            block_rows=self.bundle.manifest.block_rows,
            precision=self.workspace.settings.scoring.precision,
            engine=self.engine,
            progress=lambda what, done, total: self.progress(f"{what} {self.domain}", done, total),
        )
        expected = Expected.of(candidates, staged, top_k=top_k)
        report = audit_load(folder, ids=self.workspace.ids, domain=self.domain, on=self.on, expected=expected)
        sizes = {"users": staged.users, "items": staged.items, "pairs": staged.pairs}
        checks = {**sizes, "seconds": staged.seconds, "audit": [asdict(check) for check in report.checks]}
        if below := below_baseline(self.bundle.manifest.judgement):
            checks["below_baseline"] = below
        if not report.passed:
            self.warehouse.reject(self.load, reason="; ".join(report.failures), checks=checks)
            raise CheckError(f"audit of load {self.load.load_id}", report.failures)
        self.warehouse.mark_staged(
            self.load,
            rows=staged.rows,
            content_hash=staged.content_hash,
            numerics=staged.numerics,
            checks=checks,
        )
        rate = f"{staged.pairs:,} pairs, {staged.pairs / max(staged.seconds, 1e-9):,.0f} a second"
        logger.info("scored %s, %s: %s", self.domain, self.on, rate)

    def _candidates(self, pairs: Path | None) -> Candidates:
        from mmlora.scoring.candidates import find_candidates
        from mmlora.scoring.pair_table import read_pairs

        if pairs is not None:
            return read_pairs(pairs, ids=self.workspace.ids, domain=self.domain)
        return find_candidates(
            self.workspace.offline,
            domain=self.domain,
            on=self.on,
            known_as_of=self.known_as_of,
            active_days=self.workspace.settings.scoring.active_days,
        )

    def _features(self, candidates: Candidates) -> SideFeatures:
        """Read each side once: users (in this domain), items (in this domain), the domain."""
        import pyarrow as pa

        from mmlora.scoring.score import SideFeatures

        arrow = self.workspace.ids.arrow("domain")
        with snapshot():  # all sides of one build, whatever is built meanwhile
            return SideFeatures(
                users=self._side({USER_ID: candidates.users}, len(candidates.users)),
                items=self._side({ITEM_ID: candidates.items}, len(candidates.items)),
                domain=self._side({DOMAIN_ID: pa.array([self.domain], arrow)}, 1),
            )

    def _side(self, ids: dict[str, pa.Array], rows: int) -> pa.Table:
        import pyarrow as pa

        columns = {
            DOMAIN_ID: pa.repeat(pa.scalar(self.domain, self.workspace.ids.arrow("domain")), rows),
            **ids,
            EVENT_TIMESTAMP: pa.repeat(pa.scalar(midnight(self.on), TIMESTAMP), rows),
        }
        return self.workspace.feature_repo.retrieve(
            pa.table(columns), self.bundle.contract, known_as_of=self.known_as_of
        )


@contextmanager
def _heartbeat(warehouse: Warehouse, load: Load, seconds: float) -> Iterator[None]:
    """Say every ``seconds`` that the load's process lives, whatever it is busy with."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(seconds):
            try:
                warehouse.heartbeat(load)
            except MmloraError as error:  # given up, or the database is gone: the load's own steps will tell
                logger.warning("load %s: no heartbeat: %s", load.load_id, error)

    thread = threading.Thread(target=beat, name=f"heartbeat-{load.load_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def left_out(workspace: Workspace, on: date) -> dict[Id, str]:
    """Return why domains aren't scored on a date: broken, or without anybody to score."""
    verdicts = verdicts_as_of(workspace, on)
    absent = {d: "absent: nobody to score" for d, found in verdicts.items() if found.verdict == "absent"}
    return {**absent, **{d: "broken: " + "; ".join(why) for d, why in _broken(verdicts).items()}}


def _broken(verdicts: Mapping[Id, DomainVerdict]) -> dict[Id, tuple[str, ...]]:
    return {domain: found.reasons for domain, found in verdicts.items() if found.verdict == "broken"}


def _version(warehouse: Warehouse, domain: Id, wanted: str | None) -> str:
    version = wanted or warehouse.current(CHAMPION, domain)
    if version is None:
        raise UsageError("there is no champion yet: train a model first (mmlora train --help)")
    return version
