"""Scoring of one domain and date: candidates -> features -> scores -> audit -> a staged load."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, TypedDict

from mmlora.errors import CheckError, MmloraError
from mmlora.features.built import snapshot
from mmlora.judgement import below_baseline
from mmlora.load_checks import CandidateFacts, LoadChecks, Resumed
from mmlora.names import Device, EngineName
from mmlora.nights.candidates import (
    check_retrieval,
    choose,
    policy_of,
    recorded_policy,
    retrieve_best,
)
from mmlora.nights.carrying import find_carried, keep_digests
from mmlora.nights.checking import NightChecks
from mmlora.nights.domains import broken_domains
from mmlora.nights.engines import choose_engine
from mmlora.nights.failures import keeps_failures
from mmlora.nights.feature_checks import check_candidates, check_features
from mmlora.nights.heartbeat import heartbeat
from mmlora.nights.interrupted import being_staged, can_be_resumed, taken_over
from mmlora.nights.overrides import Overrides
from mmlora.runs.built_features import ensure_features
from mmlora.runs.champions import bundle_of, warn_of_labels
from mmlora.runs.contract import check_contract
from mmlora.runs.freshness import refuse_stale
from mmlora.runs.lineage import facts_of
from mmlora.runs.verdicts import verdicts_as_of
from mmlora.schema import (
    DOMAIN_ID,
    EVENT_TIMESTAMP,
    ITEM_ID,
    TIMESTAMP,
    USER_ID,
    midnight,
)
from mmlora.workspace import Progress, Workspace, open_workspace, silent

if TYPE_CHECKING:
    import pyarrow as pa

    from mmlora.candidates.pairs import Candidates
    from mmlora.candidates.policy import Policy
    from mmlora.candidates.report import Selection
    from mmlora.nights.rehearsal import Rehearsal
    from mmlora.registry.bundle import Bundle
    from mmlora.scoring.score import SideFeatures, Staged
    from mmlora.scoring.work import Engine, Work
    from mmlora.warehouse.loads import Load
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
    with workspace.open_warehouse() as warehouse:
        refuse_stale(workspace, on, known_as_of=known_as_of, allow=allow_stale)
        verdicts = verdicts_as_of(workspace, on)
        if target in (broken := broken_domains(verdicts, allow_stale=allow_stale, override=override)):
            again = f"repair the data, then run `mmlora validate --as-of {on}`"
            raise CheckError(f"the validation of domain {domain!r} as of {on}", [*broken[target], again])
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
        job = _Job(workspace, records, bundle, load, known_as_of, chosen, progress)
        job.checks = NightChecks(records, load, overrides, verdicts.get(target), allow_stale)
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


class _Job:
    """One load from candidates to audit."""

    checks: NightChecks
    """The outcomes of its checks."""

    def __init__(
        self,
        workspace: Workspace,
        warehouse: Warehouse | Rehearsal,
        bundle: Bundle,
        load: Load,
        known_as_of: datetime | None,
        engine: Engine,
        progress: Progress,
    ) -> None:
        self.workspace, self.warehouse, self.bundle, self.load = workspace, warehouse, bundle, load
        self.known_as_of, self.engine, self.progress = known_as_of, engine, progress
        self.domain, self.on = load.domain_id, load.score_date

    def run(self, pairs: str | None, top_k: int) -> None:
        """Stage the load and mark it staged, or reject it."""
        with being_staged(self.workspace.staging_folder(self.load.load_id)):
            self._run(pairs, top_k)

    def _run(self, pairs: str | None, top_k: int) -> None:
        from mmlora.checks.audit import audit_load
        from mmlora.checks.scores import Expected
        from mmlora.nights.score_checks import check_scores
        from mmlora.scoring.staging import part_files

        candidates, users, work, chosen = self._chosen(pairs, top_k)
        staged, taken = self._stage(candidates, users, work)
        # Computed from the candidates, not from what was written.
        expected = Expected(candidates.expected_rows(top_k), candidates.num_users, top_k, staged.content_hash)
        report = audit_load(
            part_files(staged.folder),
            ids=self.workspace.ids,
            domain=self.domain,
            on=self.on,
            expected=expected,
        )
        facts = replace(
            taken,
            users=staged.users,
            items=staged.items,
            pairs=staged.pairs,
            top_k=top_k,
            seconds=staged.seconds,
            candidates=chosen,
            below_baseline=below_baseline(self.bundle.manifest.judgement),
            experts=self.bundle.experts_of(self.domain, work.model),
        )
        self.checks.require(report.checks, facts)
        self.checks.require(
            check_scores(
                self.workspace,
                self.warehouse,
                self.load,
                self.bundle,
                work,
                candidates,
                users,
                self.known_as_of,
            ),
            facts,
        )
        self.checks.record_overrides()
        self.warehouse.mark_staged(
            self.load,
            rows=staged.rows,
            content_hash=staged.content_hash,
            numerics=staged.numerics,
            checks=self.checks.of(facts),
        )
        rate = staged.scored_pairs / max(staged.seconds, 1e-9)
        logger.info(
            "scored %s, %s: %s pairs, %s per second",
            self.domain,
            self.on,
            f"{staged.scored_pairs:,}",
            f"{rate:,.0f}",
        )

    def _stage(self, candidates: Candidates, users: pa.Table, work: Work) -> tuple[Staged, LoadChecks]:
        """Score the users whose rows can't be taken from elsewhere; return also what was taken."""
        from mmlora.scoring.fingerprint import fingerprint_load
        from mmlora.scoring.score import score_work

        workspace, warehouse, load = self.workspace, self.warehouse, self.load
        numerics = self.engine.numerics()
        version = self.bundle.manifest.content_hash
        fingerprint = fingerprint_load(work, candidates, users, model=version, numerics=numerics)
        with taken_over(workspace, warehouse, load, fingerprint.whole) as interrupted:
            carried = find_carried(workspace, warehouse, load, candidates, fingerprint, numerics)
            staged = score_work(
                work,
                candidates,
                users,
                folder=workspace.staging_folder(load.load_id),
                engine=self.engine,
                fingerprint=fingerprint.whole,
                interrupted=interrupted,
                carried=carried,
                progress=lambda what, done, total: self.progress(f"{what} {self.domain}", done, total),
            )
        return staged, LoadChecks(
            resumed=Resumed(staged.shards, staged.resumed) if staged.resumed else None,
            carried=None if carried is None else carried.facts(candidates.kept_rows(work.top_k)),
            fingerprint=keep_digests(workspace, warehouse, load, candidates.users, fingerprint),
        )

    def _chosen(self, pairs: str | None, top_k: int) -> tuple[Candidates, pa.Table, Work, CandidateFacts]:
        """Return the candidates, the users' features, the scoring work, and the facts to record."""
        policy = policy_of(self.workspace, self.domain, pairs)
        recorded = recorded_policy(
            self.workspace, self.domain, self.on, pairs=pairs, known_as_of=self.known_as_of
        )
        selection = self._candidates(policy)
        if not selection.candidates.num_pairs:
            self._reject_empty(selection, policy, recorded)
        facts = LoadChecks(candidates=CandidateFacts(recorded, selection.removed, selection.unknown))
        self.checks.require(
            check_candidates(
                self.workspace,
                self.warehouse,
                self.load,
                selection.candidates,
                self.checks.verdict,
                top_k=top_k,
            ),
            facts,
        )
        features = self._features(selection.candidates)
        work = self._work(features, top_k)
        self.checks.require(
            check_features(
                self.workspace,
                self.bundle,
                work.encoder,
                self.domain,
                self.on,
                features,
                allow_stale=self.checks.allow_stale,
            ),
            facts,
        )
        selection, recall = retrieve_best(
            selection,
            policy,
            work,
            features.users,
            engine=self.engine,
            threads=self.workspace.settings.training.threads,
        )
        chosen = CandidateFacts(recorded, selection.removed, selection.unknown, recall)
        return selection.candidates, features.users, work, chosen

    def _candidates(self, policy: Policy) -> Selection:
        selection = choose(self.workspace, policy, self.domain, self.on, self.known_as_of)
        for unknown in selection.unknown:
            logger.warning("%s, %s: %s; they are not scored", self.domain, self.on, unknown)
        return selection

    def _reject_empty(self, selection: Selection, policy: Policy, recorded: dict[str, object]) -> None:
        """Reject a load without pairs, with a reason that says what the policy removed."""
        from mmlora.candidates.tables import Table

        reason = "nothing to score" if len(selection.candidates.users) else "nobody to score"
        if policy.pairs is not None and not selection.unknown:
            table = Table("pairs", policy.pairs, self.domain, self.on)
            reason = f"nothing to score: {table} has no rows of the domain"
        said = [*map(str, selection.removed), *map(str, selection.unknown)]
        reason += f"; not scored: {'; '.join(said)}" if said else ""
        facts = CandidateFacts(recorded, selection.removed, selection.unknown)
        self.warehouse.reject(self.load, reason=reason, checks=LoadChecks(candidates=facts))
        raise CheckError(f"load {self.load.load_id}", [reason])

    def _work(self, features: SideFeatures, top_k: int) -> Work:
        from mmlora.scoring.work import Work

        return Work(
            model=self.bundle.model_of(self.domain),
            encoder=self.bundle.encoder(),
            calibration=self.bundle.calibration_of(self.domain),
            items=features.items,
            domain=features.domain,
            ids=self.workspace.ids,
            domain_id=self.domain,
            on=self.on,
            top_k=top_k,
            block_rows=self.bundle.manifest.block_rows,
            precision=self.workspace.settings.scoring.precision,
        )

    def _features(self, candidates: Candidates) -> SideFeatures:
        """Read each side once: users (in this domain), items (in this domain), the domain."""
        import pyarrow as pa

        from mmlora.scoring.score import SideFeatures

        arrow = self.workspace.ids.arrow("domain")
        with snapshot():  # all sides from the same build, even if another build runs meanwhile
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
