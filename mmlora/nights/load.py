"""Scoring of one domain and date into a staged load."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection
from contextlib import suppress
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, TypedDict

from mmlora.errors import CheckError, MmloraError
from mmlora.judgement import below_baseline
from mmlora.names import Device, EngineName
from mmlora.nights.candidates import check_retrieval, policy_of
from mmlora.nights.checking import NightChecks
from mmlora.nights.domains import is_broken
from mmlora.nights.engines import choose_engine
from mmlora.nights.failures import keeps_failures
from mmlora.nights.heartbeat import heartbeat
from mmlora.nights.interrupted import can_be_resumed
from mmlora.nights.load_job import LoadJob
from mmlora.nights.overrides import Overrides
from mmlora.runs.built_features import ensure_features
from mmlora.runs.champions import bundle_of, warn_of_labels
from mmlora.runs.contract import check_contract
from mmlora.runs.datasets import feature_views, models, sources, staged
from mmlora.runs.freshness import refuse_stale
from mmlora.runs.lineage import facts_of
from mmlora.runs.verdicts import verdict_as_of
from mmlora.telemetry import note, work
from mmlora.workspace import Progress, Workspace, open_workspace, silent

if TYPE_CHECKING:
    from mmlora.nights.rehearsal import Rehearsal
    from mmlora.warehouse.warehouse import Warehouse

logger = logging.getLogger(__name__)


class ScoreOptions(TypedDict, total=False):
    """The options of :func:`score` that are the same for all domains of a night."""

    top_k: int | None
    pairs: str | None
    known_as_of: datetime | None
    model_version: str | None
    engine: EngineName | None
    ray_address: str | None
    device: Device | None
    allow_stale: bool
    override: Collection[str] | None
    reason: str | None
    workspace: Workspace | None


@keeps_failures
def score(
    on: date,
    domain: str,
    *,
    top_k: int | None = None,
    pairs: str | None = None,
    known_as_of: datetime | None = None,
    model_version: str | None = None,
    engine: EngineName | None = None,
    ray_address: str | None = None,
    device: Device | None = None,
    allow_stale: bool = False,
    override: Collection[str] | None = None,
    reason: str | None = None,
    dry_run: bool = False,
    shadow: bool = False,
    progress: Progress = silent,
    workspace: Workspace | None = None,
) -> str:
    """Score one domain's candidates of a date into a staged, audited load.

    Args:
        on: the score date; features are read as of its 00:00 UTC.
        domain: the domain.
        top_k: rows kept per user; 0 keeps all; None uses the setting.
        pairs: a table of (user_id, item_id), by path or SQL, instead of the settings' candidates.
        known_as_of: the second cutoff (docs/design/time.md); None means ``on`` 00:00 UTC.
        model_version: the model; None uses the domain's champion.
        engine: where to score; None uses the setting.
        ray_address: address of the cluster for the engine ``ray``; None uses the setting.
        device: where the engine ``local`` computes; None uses the setting.
        allow_stale: score even a date that the data doesn't reach.
        override: checks to override (:mod:`mmlora.check_rules`).
        reason: why they are overridden; recorded in the ledger.
        dry_run: write the staged files, but don't change the warehouse.
        shadow: likewise, but record the load as a shadow load, which nothing publishes.
        progress: called with the number of pairs done.
        workspace: the caller's workspace, whose open warehouse is used; None opens that of the settings.

    Returns:
        The ``load_id``.

    Raises:
        CheckError: the domain's verdict is ``broken``, or the audit failed; the load is rejected.
        ContractError: the model's features differ from the feature store's, or the champion's files are
            missing.
        UsageError: there is no such domain or model, or the engine, device or precision isn't available.
    """
    from mmlora.nights.rehearsal import Rehearsal, Shadow

    workspace = workspace or open_workspace()
    chosen = choose_engine(workspace.settings, engine, ray_address, device)
    overrides = Overrides.of(override, reason)
    target = workspace.domain(domain)
    top_k = workspace.settings.scoring.top_k if top_k is None else top_k
    check_retrieval(policy_of(workspace, target, pairs), top_k)
    reads, writes = [*sources(workspace), models(workspace)], [staged(workspace)]
    scoring = work("score", domain=target, date=on, reads=reads, writes=writes)
    with workspace.open_warehouse() as warehouse, scoring:
        refuse_stale(workspace, on, known_as_of=known_as_of, allow=allow_stale)
        verdict = verdict_as_of(workspace, on, target)
        if verdict is not None and is_broken(verdict, allow_stale=allow_stale, override=override):
            again = f"repair the data, then run `mmlora validate --as-of {on}`"
            raise CheckError(f"the validation of domain {domain!r} as of {on}", [*verdict.reasons, again])
        ensure_features(workspace, on)
        bundle = bundle_of(workspace, warehouse, target, model_version)
        check_contract(workspace, bundle)
        if on < (seen := bundle.manifest.as_of):
            warn_of_labels(str(workspace.home), bundle.manifest.model_version, seen)
        if below := below_baseline(bundle.manifest.judgement):
            warn_below_baseline(str(workspace.home), on, bundle.manifest.model_version, below)
        records: Warehouse | Rehearsal = warehouse
        if dry_run or shadow:
            records = Shadow(warehouse) if shadow else Rehearsal(warehouse)
        records.record_models([facts_of(bundle.manifest)])
        load = records.begin_load(
            target,
            on,
            model_version=bundle.manifest.model_version,
            contract_hash=bundle.contract.hash,
            stale_after=timedelta(seconds=workspace.settings.scoring.stale_after_seconds),
        )
        views = feature_views(field.view for field in bundle.contract.fields)
        note(load=load.load_id, model_version=load.model_version, reads=views)
        job = LoadJob(workspace, records, bundle, load, known_as_of, chosen, progress)
        job.checks = NightChecks(records, load, overrides, verdict, allow_stale)
        try:
            with heartbeat(records, load, workspace.settings.scoring.heartbeat_seconds):
                job.run(pairs, top_k)
        except BaseException as error:
            rejected, folder = isinstance(error, CheckError), workspace.staging_folder(load.load_id)
            if dry_run or shadow or rejected or not can_be_resumed(folder):
                shutil.rmtree(folder, ignore_errors=True)
            if not rejected:  # then it is recorded already
                with suppress(MmloraError):
                    records.fail(load, reason=f"{type(error).__name__}: {error}")
            raise
        return load.load_id


@lru_cache(maxsize=1024)
def warn_below_baseline(home: str, on: date, version: str, sentence: str) -> None:
    """Warn that a model is below its best baseline, once per night rather than once per domain."""
    logger.warning("%s is scored by %s, though %s", on, version, sentence)
