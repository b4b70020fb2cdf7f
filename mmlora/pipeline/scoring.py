"""``mmlora score``: candidates -> features -> scores -> audit -> publication, one load a domain and date."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlora.errors import CheckError, MmloraError, UsageError
from mmlora.names import EngineName
from mmlora.pipeline.contract import check_contract
from mmlora.pipeline.features import ensure_features
from mmlora.pipeline.promotion import CHAMPION
from mmlora.pipeline.validation import verdicts_as_of
from mmlora.pipeline.workspace import Progress, Workspace, open_workspace, silent
from mmlora.schema import DOMAIN_ID, EVENT_TIMESTAMP, ITEM_ID, TIMESTAMP, USER_ID, Id, midnight

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
    left_out = _left_out(workspace, on)
    domains = [str(domain) for domain in workspace.expected_domains() if domain not in left_out]
    if not domains:
        raise CheckError(
            f"validation as of {on}", [f"{domain}: {reason}" for domain, reason in left_out.items()][:5]
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
        progress: told the pairs done.

    Returns:
        The ``load_id``.

    Raises:
        CheckError: the domain's verdict is ``broken``, or the audit said no; the load is rejected.
        ContractError: the model was trained on other features than the feature store gives.
        UsageError: no such domain or model, or the engine isn't installed.
    """
    workspace = open_workspace()
    chosen = choose_engine(workspace.settings, engine, ray_address)
    target = workspace.domain(domain)
    if target in (broken := _broken(workspace, on)):
        again = f"mend the data, then `mmlora validate --as-of {on}`"
        raise CheckError(f"the validation of domain {domain!r} as of {on}", [*broken[target], again])
    ensure_features(workspace, on)
    with workspace.open_warehouse() as warehouse:
        bundle = workspace.bundles.load(_version(warehouse, target, model_version))
        check_contract(workspace, bundle)
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


def choose_engine(settings: Settings, engine: EngineName | None, ray_address: str | None) -> Engine:
    """Return who scores: what is asked for, else what the settings say.

    Raises:
        UsageError: the engine isn't installed, or an address is given to one that has none.
    """
    name = engine or settings.scoring.engine
    if name == "ray":
        from mmlora.scoring.ray_engine import RayEngine

        address = settings.scoring.ray_address if ray_address is None else ray_address
        return RayEngine(address, threads=settings.scoring.ray_threads)
    if ray_address is not None:
        raise UsageError(f"a Ray address goes with the engine `ray`, not `{name}`: give --engine ray")
    from mmlora.scoring.score import LocalEngine

    return LocalEngine(threads=settings.training.threads)


def publish(load_id: str) -> str:
    """Publish a staged load: write its rows, then move the pointer; a published one is left as it is.

    Its staged files go once readers follow it, or a later load.
    """
    workspace = open_workspace()
    folder = workspace.staging_folder(load_id)
    with workspace.open_warehouse() as warehouse:
        load = warehouse.publish(warehouse.load(load_id), sorted(folder.glob("part-*.parquet")))
        earlier = warehouse.loads(
            domain=load.domain_id, score_date=load.score_date, states=("failed", "rejected", "superseded")
        )
    for name in (load_id, *(other.load_id for other in earlier)):
        shutil.rmtree(workspace.staging_folder(name), ignore_errors=True)
    return load_id


def score_and_publish(
    on: date, *, domain: str | None = None, progress: Progress = silent, **options: Any
) -> dict[str, Any]:
    """Score and publish a date's domains, each by itself: one that fails doesn't stop the others.

    Args:
        on: the score date.
        domain: this domain only.
        progress: told the pairs done.
        options: see :func:`score`.

    Returns:
        ``loads`` (one row a domain), ``skipped``, ``pairs`` published and ``seconds`` in all.
    """
    workspace = open_workspace()
    begun = time.monotonic()
    domains = [str(workspace.domain(domain))] if domain else scoring_domains(on)
    rows = [_one(workspace, on, name, progress, options) for name in domains]
    left_out = {} if domain else _left_out(workspace, on)
    skipped = [{"domain_id": str(name), "reason": reason} for name, reason in left_out.items()]
    return {
        "loads": rows,
        "skipped": skipped,
        "pairs": sum(row["pairs"] or 0 for row in rows if row["state"] == "published"),
        "seconds": time.monotonic() - begun,
    }


def _one(
    workspace: Workspace, on: date, domain: str, progress: Progress, options: dict[str, Any]
) -> dict[str, Any]:
    """Score and publish one domain; a failure becomes a row that says why."""
    begun = time.monotonic()
    empty = dict.fromkeys(("users", "items", "pairs", "rows", "model_version"))
    row: dict[str, Any] = {"domain_id": domain, "score_date": on.isoformat(), "state": "failed", **empty}
    row["exit_code"] = 0
    try:
        load_id = publish(score(on, domain, progress=progress, **options))
    except UsageError:
        raise
    except Exception as error:
        logger.debug("domain %s, %s failed", domain, on, exc_info=True)
        known = isinstance(error, MmloraError)
        reason = str(error) if known else f"unexpected {type(error).__name__}: {error}"
        code = error.exit_code if isinstance(error, MmloraError) else 1
        return {**row, "exit_code": code, "reason": reason, "seconds": time.monotonic() - begun}
    with workspace.open_warehouse() as warehouse:
        load = warehouse.load(load_id)
    sizes = {name: (load.checks or {}).get(name) for name in ("users", "items", "pairs")}
    done = {"load_id": load_id, "state": load.state, "rows": load.rows, "model_version": load.model_version}
    return {**row, **sizes, **done, "reason": load.reason, "seconds": time.monotonic() - begun}


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
            engine=self.engine,
            progress=lambda what, done, total: self.progress(f"{what} {self.domain}", done, total),
        )
        expected = Expected.of(candidates, staged, top_k=top_k)
        report = audit_load(folder, ids=self.workspace.ids, domain=self.domain, on=self.on, expected=expected)
        sizes = {"users": staged.users, "items": staged.items, "pairs": staged.pairs}
        checks = {**sizes, "seconds": staged.seconds, "audit": [asdict(check) for check in report.checks]}
        if not report.passed:
            self.warehouse.reject(self.load, reason="; ".join(report.failures), checks=checks)
            raise CheckError(f"audit of load {self.load.load_id}", report.failures)
        self.warehouse.mark_staged(
            self.load, rows=staged.rows, content_hash=staged.content_hash, checks=checks
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


def _left_out(workspace: Workspace, on: date) -> dict[Id, str]:
    """Return why domains aren't scored on a date: broken, or without anybody to score."""
    verdicts = verdicts_as_of(workspace, on)
    absent = {d: "absent: nobody to score" for d, found in verdicts.items() if found.verdict == "absent"}
    return {**absent, **{d: "broken: " + "; ".join(why) for d, why in _broken(workspace, on).items()}}


def _broken(workspace: Workspace, on: date) -> dict[Id, tuple[str, ...]]:
    verdicts = verdicts_as_of(workspace, on)
    return {domain: found.reasons for domain, found in verdicts.items() if found.verdict == "broken"}


def _version(warehouse: Warehouse, domain: Id, wanted: str | None) -> str:
    version = wanted or warehouse.current(CHAMPION, domain)
    if version is None:
        raise UsageError("there is no champion yet: train a model first (mmlora train --help)")
    return version
