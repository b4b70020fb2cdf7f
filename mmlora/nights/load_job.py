"""One load of scores: candidates -> features -> scores -> audit -> a staged load."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from mmlora.errors import CheckError
from mmlora.features.built import snapshot
from mmlora.judgement import below_baseline
from mmlora.load_checks import CandidateFacts, LoadChecks, Resumed
from mmlora.nights.candidates import choose, policy_of, recorded_policy, retrieve_best
from mmlora.nights.carrying import find_carried, keep_digests
from mmlora.nights.checking import NightChecks
from mmlora.nights.feature_checks import check_candidates, check_features
from mmlora.nights.interrupted import being_staged, taken_over
from mmlora.schema import DOMAIN_ID, EVENT_TIMESTAMP, ITEM_ID, TIMESTAMP, USER_ID, midnight
from mmlora.telemetry import note
from mmlora.workspace import Progress, Workspace

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


class LoadJob:
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
        note(pairs=staged.scored_pairs, rows=staged.rows, users=staged.users, scoring_seconds=staged.seconds)
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
